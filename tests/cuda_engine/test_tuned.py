"""The variant of the decode step's kernels: the one measured on the device, else the default without an error."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from barkfast.cli import info
from barkfast.config import GPTConfig
from barkfast.errors import EngineError, InputError
from barkfast.runtime.cuda import tuned
from barkfast.runtime.cuda.device import Options
from barkfast_kernels import hopper
from barkfast_kernels.variant import DEFAULT, VARIANTS
from benchmarks.results import slug
from cuda_engine.networks import cuda_decoder

SMALL = GPTConfig(n_layer=12, n_head=12, n_embd=768)
GPU = torch.device("cuda:0")
CUDA = VARIANTS["C4 C3, branchless"]


def entry(**changes: Any) -> dict[str, Any]:
    """An entry for this device, dtype and source, with `changes`."""
    content = {
        "device": "nvidia-h200",
        "dtype": "bfloat16",
        "batch": 1,
        "source": tuned.source_digest(),
        "measured": "2026-12-01",
        "label": "C4 C3, branchless",
        "variant": CUDA.to_dict(),
        "us": {"semantic 300": 2.5},
        "base_us": {"semantic 300": 5},
    }
    return content | changes


def write(folder: Path, *entries: Any, **changes: Any) -> Path:
    path = folder / "tuned.json"
    path.write_text(json.dumps({"format": 1, "entries": list(entries)} | changes), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Clear the caches of files read and warnings given after each test."""
    yield
    tuned.read.cache_clear()
    tuned._warn.cache_clear()


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there is an H200, on which the CUDA kernels run."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
    monkeypatch.setattr(hopper, "why_not", lambda *_: None)


def use(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make `tuned.choose` read the file at `path`."""
    monkeypatch.setattr(tuned, "choose", partial(tuned.choose, path=path))


def test_the_file_of_the_package_is_one() -> None:
    kept = tuned.parse(tuned.FILE.read_text(encoding="utf-8"))
    # `python -m benchmarks.tuned` wrote the installed file; reading and writing an entry changes nothing.
    assert [tuned.Entry.from_dict(e.to_dict()) for e in kept] == list(kept)
    assert all(e.variant in VARIANTS.values() for e in kept)


def test_a_measured_variant_is_chosen(tmp_path: Path) -> None:
    choice = tuned.choose("NVIDIA H200", "bfloat16", 1, write(tmp_path, entry()))
    assert choice.variant == CUDA
    assert choice.reason == "C4 C3, branchless, measured 2026-12-01 with a batch of 1"


def test_the_nearest_lower_batch_counts(tmp_path: Path) -> None:
    other = VARIANTS["T1 trigger first"]
    more = entry(batch=4, label="T1 trigger first", variant=other.to_dict())
    path = write(tmp_path, more, entry(batch=2))
    assert [tuned.choose("NVIDIA H200", "bfloat16", n, path).variant for n in (1, 2, 3, 4, 64)] == [
        *(DEFAULT, CUDA, CUDA, other, other)
    ]
    assert "more than 1 sequences" in tuned.choose("NVIDIA H200", "bfloat16", 1, path).reason


@pytest.mark.parametrize(
    ("device", "dtype", "changes", "reason"),
    [
        ("NVIDIA L4", "bfloat16", {}, "nothing was measured on NVIDIA L4"),
        ("NVIDIA H200", "int8", {}, "int8 was not measured on NVIDIA H200"),
        ("NVIDIA H200", "bfloat16", {"source": "0" * 16}, "kernels have changed since 2026-12-01"),
    ],
)
def test_what_was_not_measured_gets_the_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, device: str, dtype: str, changes: dict[str, Any], reason: str
) -> None:
    choice = tuned.choose(device, dtype, 1, write(tmp_path, entry(**changes)))
    assert choice.variant == DEFAULT and not choice.refused
    assert choice.reason.startswith("defaults: ") and reason in choice.reason
    assert not caplog.records


DAMAGED = {
    "no json": "{",
    "no object": "[1]",
    "nested": "[" * 100_000,
    "another format": json.dumps({"format": 2, "entries": []}),
    "a flag for a format": json.dumps({"format": True, "entries": []}),
    "no entries": json.dumps({"format": 1}),
    "no list": json.dumps({"format": 1, "entries": {}}),
    "no entry": json.dumps({"format": 1, "entries": [None]}),
    "a field too many": json.dumps({"format": 1, "entries": [entry(colour="red")]}),
    "a field too few": json.dumps({"format": 1, "entries": [{k: v for k, v in entry().items() if k != "label"}]}),
    "no batch": json.dumps({"format": 1, "entries": [entry(batch=0)]}),
    "a flag for a batch": json.dumps({"format": 1, "entries": [entry(batch=True)]}),
    "no text": json.dumps({"format": 1, "entries": [entry(source=1)]}),
    "no time": json.dumps({"format": 1, "entries": [entry(us={"semantic 300": "2"})]}),
    "not a number": json.dumps({"format": 1, "entries": [entry(us={"semantic 300": float("nan")})]}),
    "a huge number": json.dumps({"format": 1, "entries": [entry(us={"semantic 300": 10**400})]}),
    "no variant": json.dumps({"format": 1, "entries": [entry(variant="C4")]}),
    "an unknown field": json.dumps({"format": 1, "entries": [entry(variant=CUDA.to_dict() | {"colour": 1})]}),
    "an unknown value": json.dumps({"format": 1, "entries": [entry(variant=CUDA.to_dict() | {"splits": 5})]}),
    "another type": json.dumps({"format": 1, "entries": [entry(variant=CUDA.to_dict() | {"splits": [4]})]}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_ignored_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text, encoding="utf-8")
    for _ in range(2):
        choice = tuned.choose("NVIDIA H200", "bfloat16", 1, path)
        assert choice.variant == DEFAULT and "tuned.json is ignored" in choice.reason
    assert len(caplog.records) == 1 and "\n" not in caplog.records[0].getMessage()


def test_a_file_that_cannot_be_read_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.json", "bytes.json"):
        assert tuned.choose("NVIDIA H200", "bfloat16", 1, tmp_path / name).variant == DEFAULT
    assert len(caplog.records) == 2


def test_names_of_devices_are_those_of_results() -> None:
    for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "Some GPU (2)", "**"):
        assert tuned.slug(name) == slug(name)


def test_the_digest_is_of_sources_alone(tmp_path: Path) -> None:
    def make(name: str, files: dict[str, bytes]) -> str:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return tuned.digest(tmp_path / name)

    base = {"a.py": b"x = 1\n", "hopper/b.cu": b"int x;\n", "hopper/c.cuh": b"int y;\n"}
    found = make("base", base)
    assert make("windows", {name: text.replace(b"\n", b"\r\n") for name, text in base.items()}) == found
    assert make("built", base | {"__pycache__/a.pyc": b"1", "notes.md": b"2"}) == found
    for changed in (
        base | {"a.py": b"x = 2\n"},
        base | {"hopper/c.cuh": b"int z;\n"},
        base | {"hopper/d.cu": b""},
        {"a.py": b"x = 1\n", "hopper/b.cu": b"int x;\n", "hopper/e.cuh": b"int y;\n"},
    ):
        assert make(f"changed {len(list(tmp_path.iterdir()))}", changed) != found


def test_options_take_what_was_measured(tmp_path: Path, h200: None, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, write(tmp_path, entry(), entry(dtype="int8", variant=VARIANTS["T2 carve-out"].to_dict())))
    assert Options.for_device(GPU, dtype=torch.bfloat16) == Options(pdl=True, variant=CUDA)
    int8 = Options.for_device(GPU, dtype=torch.bfloat16, int8=True, n_slots=4)
    assert int8.variant == VARIANTS["T2 carve-out"]
    assert Options.for_device(GPU, dtype=torch.float16).variant == DEFAULT
    # Networks that take no decode steps.
    assert Options.for_device(GPU) == Options(pdl=True)


def test_a_measured_variant_that_cannot_run_falls_back_and_says_so_once(
    tmp_path: Path, h200: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, write(tmp_path, entry()))
    asked = []

    def no(shape: hopper.Shape, device: torch.device) -> str:
        asked.append((shape.n_embd, shape.n_head, shape.block_size, shape.dtype, shape.int8, shape.variant))
        return "no compiler"

    monkeypatch.setattr(hopper, "why_not", no)
    for _ in range(2):
        assert Options.for_device(GPU, dtype=torch.bfloat16).variant == tuned.TRITON
    Options.for_device(GPU, config=SMALL, dtype=torch.bfloat16)
    assert asked[1:] == [(1024, 16, 1024, torch.bfloat16, False, CUDA), (768, 12, 1024, torch.bfloat16, False, CUDA)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "C4 C3, branchless" in record.getMessage() and "no compiler" in record.getMessage()


def test_a_variant_of_the_environment_is_used_or_refused(
    tmp_path: Path, h200: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, write(tmp_path, entry()))
    for name, label in (("T0", "T0 as on the H100"), ("c8", "C8 C4, fused head"), ("T6 all", "T6 all")):
        monkeypatch.setenv("BARKFAST_VARIANT", name)
        assert Options.for_device(GPU, dtype=torch.bfloat16).variant == VARIANTS[label]
    for name in ("T", "C42", "fastest"):
        monkeypatch.setenv("BARKFAST_VARIANT", name)
        with pytest.raises(InputError, match=f"BARKFAST_VARIANT.*'{name}'.*T0 as on the H100; .*C8 C4, fused head"):
            Options.for_device(GPU, dtype=torch.bfloat16)
    monkeypatch.setenv("BARKFAST_VARIANT", "")
    assert Options.for_device(GPU, dtype=torch.bfloat16).variant == CUDA


def test_a_forced_variant_that_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_VARIANT", "C4")
    with pytest.raises(EngineError, match="CUDA kernels of a step cannot be used"):
        cuda_decoder()
    monkeypatch.setenv("BARKFAST_VARIANT", "T0")
    assert cuda_decoder().options.variant == VARIANTS["T0 as on the H100"]


def test_info_says_which_variant_is_in_force(tmp_path: Path, h200: None, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, write(tmp_path, entry()))
    lines = info._list_kernels()
    assert lines["cuda:0 bfloat16"] == "C4 C3, branchless, measured 2026-12-01 with a batch of 1"
    assert lines["cuda:0 int8"] == "defaults: int8 was not measured on NVIDIA H200"
    monkeypatch.setattr(hopper, "why_not", lambda *_: "no compiler")
    assert info._list_kernels()["cuda:0 bfloat16"].endswith("cannot be used: no compiler")
    monkeypatch.setenv("BARKFAST_VARIANT", "T0")
    assert set(info._list_kernels().values()) == {"T0 as on the H100, by BARKFAST_VARIANT"}
    monkeypatch.setenv("BARKFAST_VARIANT", "T42")
    assert all(line.startswith("none: BARKFAST_VARIANT") for line in info._list_kernels().values())


@pytest.mark.parametrize(
    ("kept", "held"),
    [
        (tuned.Tuned(tuned.parse(json.dumps({"format": 1, "entries": [entry(), entry()]}))), "2 measured choices"),
        (tuned.Tuned(problem="it is not of format 1"), "ignored: it is not of format 1"),
    ],
)
def test_info_says_what_the_file_holds(kept: tuned.Tuned, held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(tuned, "read", lambda: kept)
    assert info._list_kernels()["tuned.json"] == held


def test_two_decoders_share_a_network() -> None:
    first = cuda_decoder()
    second = cuda_decoder(network=first._network, options=Options(variant=VARIANTS["T0 as on the H100"]))
    assert second._network is first._network
