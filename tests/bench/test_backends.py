"""Backends: barkfast and its peers generate the same clip with the same weights, here or in another process."""

import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from barkfast.bench import peers
from barkfast.bench.backends import PEER_NAMES, Backend, NotInstalled, NotRun, Ours, check_peers
from barkfast.bench.peers import (
    PEERS,
    CompiledPeer,
    ReferencePeer,
    TorchPeer,
    TransformersPeer,
    fast_dtype,
)
from barkfast.bench.worker import Remote, WorkerError
from barkfast.bench.workload import STAGES, Workload, hugging_face_folder
from barkfast.errors import InputError
from barkfast.weights import open_model
from barkfast.weights.convert import convert

WORKLOAD = Workload("random:nano", "cpu", "float32", "torch", voice="full", seconds=0.1)
COUNTS = {"semantic": 5, "coarse": 14, "fine": 7, "codec": 7}
# A worker that answers correctly although Python and C code print to standard output.
NOISY = """
import os
from barkfast.bench import worker
answer = worker.Server.answer
def noisy(self, what, details):
    print("noise")
    os.system("echo more noise")
    return answer(self, what, details)
worker.Server.answer = noisy
worker.main()
"""


def needs(*packages: str) -> None:
    # Not imported, because encodec would import torchaudio.
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (the extra `reference`)")


NEEDS = {
    "bark": ("bark", "transformers", "encodec", "scipy"),
    "transformers": ("transformers",),
    "torch": (),
    "compiled": (),
}


@pytest.fixture(params=list(NEEDS))
def peer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    needs(*NEEDS[request.param])
    # Traced as for compilation, without compiling, which would take longer than the clips.
    monkeypatch.setattr(CompiledPeer, "backend", "eager")
    # Which dtype is faster depends on the machine.
    monkeypatch.setattr(peers, "fast_dtype", lambda device: "float32")
    backend = PEERS[request.param](WORKLOAD)
    try:
        backend.load()
    except NotInstalled as reason:
        pytest.skip(str(reason))
    yield backend
    backend.close()


def test_barkfast_speaks():
    ours = Ours(WORKLOAD)
    with pytest.raises(NotRun, match="not loaded"):
        ours.speak(0)
    ours.load()
    clip = ours.speak(0)
    assert clip.counts == COUNTS
    assert clip.audio_s == pytest.approx(7 / 75)
    assert ours.start_up is not None and ours.start_up["load_s"] > 0
    assert (ours.name, ours.dtype) == ("barkfast", "float32") and ours.version
    assert set(ours.work) == set(STAGES) and all(work.operations > 0 for work in ours.work.values())
    assert ours.memory()["rss_bytes"] > 10_000_000
    ours.close()
    with pytest.raises(NotRun, match="not loaded"):
        ours.speak(0)


def test_peers_speak_a_clip_as_long(peer: Backend):
    clip = peer.speak(0)
    assert clip.counts == COUNTS
    assert clip.audio_s == pytest.approx(7 / 75)
    assert set(clip.seconds) == set(STAGES) and all(seconds > 0 for seconds in clip.seconds.values())
    assert clip.first_audio_s >= sum(clip.seconds.values()) * 0.999
    assert peer.speak(1, 0.2).counts["semantic"] == 10
    assert peer.version and peer.dtype == "float32" and not peer.work
    with pytest.raises(NotRun, match="no trace"):
        peer.trace("trace.json", 0)


def test_peers_have_our_weights(peer: Backend):
    ours = open_model(WORKLOAD.model)
    for stage in ("coarse", "fine"):
        network: Any
        if isinstance(peer, ReferencePeer):
            network = peer._generation.models[stage]
            found = network.transformer.h[1].mlp.c_fc.weight, network.transformer.wpe.weight
        elif isinstance(peer, CompiledPeer):
            network = peer._decoders["coarse"].network.gpt if stage == "coarse" else peer._refiner.model
            found = network.transformer.h[1].mlp.c_fc.weight, network.transformer.wpe.weight
        elif isinstance(peer, TorchPeer):
            network = peer.loaded.components.load(stage).model
            found = network.transformer.h[1].mlp.c_fc.weight, network.transformer.wpe.weight
        else:
            assert isinstance(peer, TransformersPeer)
            network = getattr(peer._model, f"{stage}_acoustics")
            found = network.layers[1].mlp.in_proj.weight, network.position_embeds_layer.weight
        tensors = ours.stage(stage).tensors
        for theirs, key in zip(found, ("transformer.h.1.mlp.c_fc.weight", "transformer.wpe.weight"), strict=True):
            assert torch.equal(theirs.detach(), tensors[key])


@pytest.mark.parametrize("name", ["transformers", "torch"])
def test_where_bfloat16_is_faster_peers_speak_in_it(name: str, monkeypatch: pytest.MonkeyPatch):
    needs(*NEEDS[name])
    monkeypatch.setattr(peers, "fast_dtype", lambda device: "bfloat16")
    backend = PEERS[name](WORKLOAD)
    try:
        backend.load()
        assert backend.dtype == "bfloat16"
        assert backend.speak(0).counts == COUNTS
    finally:
        backend.close()


def test_the_dtype_that_multiplies_faster(monkeypatch: pytest.MonkeyPatch):
    assert fast_dtype("cpu") in ("float32", "bfloat16")
    for slow, fast in (("float32", "bfloat16"), ("bfloat16", "float32")):

        def linear(x: torch.Tensor, weights: torch.Tensor, slow: str = slow) -> None:
            time.sleep(0.02 if x.dtype == getattr(torch, slow) else 0.001)

        monkeypatch.setattr(torch.nn.functional, "linear", linear)
        assert fast_dtype("cpu") == fast


def test_what_a_peer_makes_on_disk_goes_with_it():
    needs("transformers")
    backend = TransformersPeer(WORKLOAD)
    backend.import_library()
    backend.prepare()
    folder = backend._model_folder
    assert folder is not None and (folder / "model.safetensors").is_file()
    backend.close()
    assert not folder.exists()


def test_a_folder_that_transformers_can_open_is_not_converted(tmp_path: Path):
    folder = convert("random:nano", tmp_path / "model", "float32", voices=False)
    assert hugging_face_folder(open_model(folder)) == folder
    assert hugging_face_folder(open_model("random:nano")) is None


@pytest.mark.parametrize(("name", "module"), [("bark", "bark.generation"), ("transformers", "transformers")])
def test_a_peer_that_is_not_installed_says_how_to(name: str, module: str, monkeypatch: pytest.MonkeyPatch):
    # None in sys.modules makes an import fail.
    for absent in {module, module.partition(".")[0]}:
        monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(NotInstalled, match=rf"{name} cannot be imported .* pip install"):
        PEERS[name](WORKLOAD).load()


def test_the_reference_is_not_asked_for_tokens_it_does_not_know():
    needs("bark", "transformers", "encodec", "scipy")
    with pytest.raises(NotRun, match="knows only Suno's tokens"):
        ReferencePeer(Workload("random:demo", "cpu", "float32", "torch", seconds=0.1)).load()


def test_unknown_peers_are_refused():
    assert tuple(PEERS) == PEER_NAMES
    check_peers(["transformers", "bark"])
    with pytest.raises(
        InputError, match="unknown peer 'tortoise'; expected one of bark, transformers, torch, compiled"
    ):
        check_peers(["bark", "tortoise"])


def test_a_backend_in_a_process_of_its_own(tmp_path: Path):
    remote = Remote("barkfast", WORKLOAD, command=[sys.executable, "-c", NOISY])
    with pytest.raises(NotRun, match="not loaded"):
        remote.speak(0)
    try:
        remote.load()
        # The import includes a new interpreter and torch.
        assert remote.start_up is not None and remote.start_up["import_s"] > 0.1
        assert remote.version and remote.dtype == "float32"
        clip = remote.speak(0)
        assert clip.counts == COUNTS and clip.audio_s == pytest.approx(7 / 75)
        assert set(remote.work) == set(STAGES)
        assert remote.memory()["rss_bytes"] > 10_000_000
        remote.trace(tmp_path / "trace.json", 0)
        assert "fine" in (tmp_path / "trace.json").read_text(encoding="utf-8")
        # An error in the process is raised here with its own type, and the process goes on.
        with pytest.raises(InputError, match="engine is 'impossible'"):
            remote._ask("open", name="barkfast", workload={**vars(WORKLOAD), "engine": "impossible"})
        assert remote.speak(1).counts == COUNTS
        with pytest.raises(WorkerError, match="impossible: AttributeError"):
            remote._ask("impossible")
    finally:
        folder = Path(remote._folder.name) if remote._folder else None
        remote.close()
    assert folder is not None and not folder.exists()


def test_barkfasts_process_checks_measures_and_shares(tmp_path: Path):
    remote = Remote("barkfast", WORKLOAD)
    try:
        remote.start()
        checks = remote.check()
        assert {check["name"].split()[0] for check in checks} == set(STAGES) and all(check["ok"] for check in checks)
        (row,) = remote.batches([2])
        assert row["batch"] == 2 and row["tokens_per_s"] > 0
        folder = Path(remote.share(str(tmp_path / "model")))
        assert hugging_face_folder(open_model(folder)) == folder
        limits, codec_limits = remote.limits()
        assert limits == codec_limits and limits.read_gb_per_s > 0 and limits.ways
    finally:
        remote.close()


def test_a_process_that_dies_says_what_it_wrote():
    code = "import sys; sys.stdin.readline(); print('out of luck', file=sys.stderr); sys.exit(3)"
    remote = Remote("bark", WORKLOAD, command=[sys.executable, "-c", code])
    with pytest.raises(WorkerError, match=r"open: the process ended with status 3; it last wrote: out of luck"):
        remote.load()
    remote.close()


def test_a_process_that_hangs_is_ended():
    remote = Remote("bark", WORKLOAD, limit_s=0.5, command=[sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(WorkerError, match=r"ended after 0.5 s without an answer; it wrote nothing"):
        remote.load()
    process = remote._process
    assert process is not None and process.poll() is not None
    remote.close()
