"""Names, paths, environment variables, caches and the hub: what is found, and the errors when nothing is."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from barkfast.errors import CheckpointError, InputError, MissingFileError
from barkfast.weights import STAGES, fetch_from_hub, hub, open_model

from .build import fill_hub_cache, make_tensors, needs_transformers, same_tensors, write_hf, write_hf_bin, write_suno

KEY = "transformer.wpe.weight"
ROOT = Path(__file__).resolve().parents[2]


class FakeHub:
    """Replaces the hub's servers: puts files into the cache as `hf_hub_download` does, and records the requests."""

    def __init__(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.cache, self.asked = folder, tmp_path / "hf", []
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)

    def download(self, repo: str, filename: str, *, cache_dir: Path, local_files_only: bool) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        self.asked.append(filename)
        assert cache_dir == self.cache and not local_files_only
        place = cache_dir / f"models--{repo.replace('/', '--')}"
        if not (self.folder / filename).is_file():
            raise EntryNotFoundError(f"404: {filename}")
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "blobs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text("1" * 40)
        target = place / "snapshots" / ("1" * 40) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        data = (self.folder / filename).read_bytes()
        blob = place / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        target.symlink_to(blob)
        return str(target)


@pytest.mark.parametrize("name", ["bark", "Demo", "random", "random:huge", "random:nano:x", "random:nano:-1"])
def test_unknown_names_are_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"nano.*small.*large"):
        open_model(name)


def test_path_that_does_not_exist() -> None:
    with pytest.raises(MissingFileError, match=r"no model './not-here'.*no such folder(.|\n)*text_2\.pt"):
        open_model("./not-here")


def test_file_instead_of_folder(tmp_path: Path) -> None:
    write_suno(tmp_path)
    with pytest.raises(InputError, match="opened by its folder"):
        open_model(tmp_path / "text_2.pt")


def test_folder_without_a_model_lists_what_it_holds(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"note{i:02}.txt").touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(CheckpointError, match=r"holds note00\.txt, .* 5 more(.|\n)*config\.json(.|\n)*text_2\.pt"):
        open_model(tmp_path)


def test_incomplete_folder_names_the_stage(tmp_path: Path) -> None:
    write_suno(tmp_path, stages=("text", "coarse"))
    with pytest.raises(CheckpointError, match="no weights for fine"):
        open_model(tmp_path)


def test_unknown_stage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'semantic'; expected one of text, coarse, fine"):
        open_model("random:demo").stage("semantic")


def test_model_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_MODEL", str(write_suno(tmp_path)))
    assert open_model().name == str(tmp_path)
    assert open_model("random:demo").name == "random:demo"
    monkeypatch.setenv("BARKFAST_MODEL", "random:nano")
    assert open_model().name == "random:nano"


@pytest.mark.parametrize("small", [False, True])
def test_sunos_cache_is_found_without_being_told(small: bool, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "suno" / "bark_v0"
    write_suno(cache, "" if small else "_2")
    checkpoint = open_model(small=small)
    assert checkpoint.folder == cache and str(cache) in checkpoint.origin
    assert checkpoint.name == ("suno/bark-small" if small else "suno/bark")
    for stage in STAGES:
        assert same_tensors(checkpoint.stage(stage).tensors, make_tensors(stage))


def test_sunos_cache_of_the_other_size_does_not_serve(tmp_path: Path) -> None:
    write_suno(tmp_path / "cache" / "suno" / "bark_v0", "")
    with pytest.raises(MissingFileError, match=r"text_2\.pt"):
        open_model()


@needs_transformers
def test_what_sunos_cache_lacks_comes_from_the_hub(tmp_path: Path) -> None:
    write_suno(tmp_path / "cache" / "suno" / "bark_v0", stages=("text",), shift=1.0)
    fill_hub_cache("suno/bark", write_hf(tmp_path / "model"), tmp_path)
    checkpoint = open_model()
    assert torch.equal(checkpoint.stage("text").tensors[KEY], make_tensors("text")[KEY] + 1)
    assert torch.equal(checkpoint.stage("fine").tensors[KEY], make_tensors("fine")[KEY])


@needs_transformers
def test_hugging_face_cache_is_found_without_being_told_or_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = fill_hub_cache("suno/bark-small", write_hf(tmp_path / "model"), tmp_path)
    monkeypatch.setenv("SUNO_USE_SMALL_MODELS", "1")
    checkpoint = open_model()
    assert (checkpoint.name, checkpoint.repo, checkpoint.folder) == ("suno/bark-small", "suno/bark-small", snapshot)
    assert same_tensors(checkpoint.stage("coarse").tensors, make_tensors("coarse"))
    assert checkpoint.codec().config.n_codebooks == 8


def test_offline_with_nothing_cached_names_every_place(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        open_model()
    message = str(caught.value)
    for part in (
        *("BARKFAST_MODEL", "text_2.pt, coarse_2.pt, fine_2.pt", str(tmp_path / "cache" / "suno" / "bark_v0")),
        *("suno/bark", str(tmp_path / "hf"), "HF_HUB_OFFLINE", "hf download suno/bark", "model 'demo'"),
    ):
        assert part in message, part
    with pytest.raises(MissingFileError, match="hf download someone/voice"):
        open_model("someone/voice")


def test_offline_in_a_fresh_process(tmp_path: Path) -> None:
    """The real environment variables, as a user sets them."""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path / "c")}
    code = "from barkfast.weights import open_model; open_model('suno/bark')"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1
    assert str(tmp_path / "hub") in result.stderr and "offline mode is on (HF_HUB_OFFLINE)" in result.stderr


def test_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one failed request, every further file must fail at once."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    calls = []

    def download(*args: Any, **kwargs: Any) -> str:
        calls.append(args)
        raise LocalEntryNotFoundError("cannot find it") from OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    for _ in range(3):
        with pytest.raises(MissingFileError, match="Name or service not known"):
            fetch_from_hub("suno/bark", "config.json")
    assert fetch_from_hub("suno/bark", "other.json", optional=True) is None
    assert len(calls) == 1


@pytest.mark.parametrize("answers", [False, True])
def test_a_silent_hub_is_given_up_after_one_question(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub by itself repeats the request: that takes 20 s without a network, or minutes."""
    from huggingface_hub.errors import HfHubHTTPError

    calls = []

    def ask(url: str, **options: Any) -> None:
        calls.append(options["timeout"])
        raise HfHubHTTPError("404", response=mock.MagicMock()) if answers else TimeoutError("timed out")

    monkeypatch.setattr(hub, "_answered", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kwargs: "found")
    for _ in range(2):
        if answers:
            assert fetch_from_hub("suno/bark", "config.json") == Path("found")
        else:
            with pytest.raises(MissingFileError, match="timed out"):
                fetch_from_hub("suno/bark", "config.json")
    assert len(calls) == 1 and calls[0] <= 10


def test_repository_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    def download(*args: Any, **kwargs: Any) -> str:
        raise RepositoryNotFoundError("404", response=mock.MagicMock())

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(MissingFileError, match="no repository 'someone/typo' that you may read.*hf auth login"):
        open_model("someone/typo")


@needs_transformers
@pytest.mark.parametrize("prefer", ["safetensors", "bin"])
def test_fewest_bytes_are_fetched(prefer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = (write_hf if prefer == "safetensors" else write_hf_bin)(tmp_path / "served")
    write_suno(folder)
    (folder / "extra.bin").write_bytes(b"0")
    if prefer == "safetensors":
        (folder / "pytorch_model.bin").write_bytes(b"not needed")
    server = FakeHub(folder, tmp_path, monkeypatch)
    for _ in range(2):
        checkpoint = open_model("someone/bark")
        for stage in STAGES:
            assert same_tensors(checkpoint.stage(stage).tensors, make_tensors(stage))
        checkpoint.codec()
    names = {p.name for p in (tmp_path / "hf").rglob("*") if p.is_symlink()}
    assert names == {"config.json", "model.safetensors" if prefer == "safetensors" else "pytorch_model.bin"}
    assert server.asked.count("config.json") == 1


@needs_transformers
def test_only_the_shards_of_a_stage_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_hf(tmp_path / "served", max_shard_size="1MB")
    server = FakeHub(folder, tmp_path, monkeypatch)
    open_model("someone/bark").stage("fine")
    shards = {name for name in server.asked if "-of-" in name}
    assert shards and len(shards) < len(list(folder.glob("*-of-*")))


def test_stage_safetensors_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from .build import write_stage_safetensors

    folder = write_suno(write_stage_safetensors(tmp_path / "served"))
    server = FakeHub(folder, tmp_path, monkeypatch)
    assert same_tensors(open_model("someone/bark").stage("fine").tensors, make_tensors("fine"))
    assert not any(name.endswith(".pt") for name in server.asked)


def test_wrong_hash_after_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "pytorch_model.bin").write_bytes(b"altered on the way")
    server = FakeHub(served, tmp_path, monkeypatch)
    expected, found = hub.KNOWN_FILES["suno/bark", "pytorch_model.bin"].sha256, hashlib.sha256(b"altered on the way")
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            fetch_from_hub("suno/bark", "pytorch_model.bin")
        for part in ("pytorch_model.bin", expected, found.hexdigest(), "fetch it again"):
            assert part in str(caught.value)
    # The bad file was not left for the next call to trust.
    assert server.asked == ["pytorch_model.bin"] * 2
    assert not [path for path in (tmp_path / "hf").rglob("*") if path.name == "pytorch_model.bin"]


def test_right_hash_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "a.bin").write_bytes(b"as published")
    known = hub.KnownFile(hashlib.sha256(b"as published").hexdigest(), 0.0)
    monkeypatch.setitem(hub.KNOWN_FILES, ("some/repo", "a.bin"), known)
    FakeHub(served, tmp_path, monkeypatch)
    first = fetch_from_hub("some/repo", "a.bin")

    def never(path: Path) -> str:
        raise AssertionError(f"hashed {path} again")

    monkeypatch.setattr(hub, "hash_file", never)
    assert fetch_from_hub("some/repo", "a.bin") == first and first is not None


def test_wrong_size_in_the_cache_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pytorch_model.bin").write_bytes(b"only the beginning")
    fill_hub_cache("suno/bark", source, tmp_path)
    with pytest.raises(CheckpointError, match="has 18 bytes, .* about 4.49 GB"):
        fetch_from_hub("suno/bark", "pytorch_model.bin")


@pytest.mark.parametrize(("repo", "file"), [("a/../b", "x"), ("a/b/c", "x"), ("a/b", "../x"), ("a/b", "/etc/x")])
def test_names_that_lead_elsewhere_are_not_fetched(repo: str, file: str) -> None:
    with pytest.raises(MissingFileError, match="is not a hub file"):
        fetch_from_hub(repo, file)


def test_repository_without_an_owner_is_legal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "vocab.txt").write_text("[PAD]\n")
    FakeHub(served, tmp_path, monkeypatch)
    path = fetch_from_hub("bert-base-multilingual-cased", "vocab.txt")
    assert path is not None and path.read_text() == "[PAD]\n"
