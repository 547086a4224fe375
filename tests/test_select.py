"""Which engine and dtype a request gets, why, and what happens where the first choice cannot be had."""

import importlib.metadata
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from barkfast import Bark
from barkfast.errors import EngineError, InputError
from barkfast.runtime import select


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with one GPU, to be described and not to be used; change `capability` to make it older."""
    machine = SimpleNamespace(capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: machine.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Some GPU")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return machine


def cuda_engine() -> select.Engine:
    return {engine.name: engine for engine in select.describe_engines()}["cuda"]


def test_a_gpu_gets_the_cuda_engine_by_itself(gpu: SimpleNamespace) -> None:
    assert cuda_engine().available and "compute capability 9.0" in cuda_engine().reason
    assert select.resolve_engine("auto", "cuda") == "cuda"
    assert select.resolve_engine("auto", "cuda:0") == "cuda"
    assert select.resolve_engine("torch", "cuda") == "torch"


def test_other_devices_get_the_torch_engine(gpu: SimpleNamespace) -> None:
    assert select.resolve_engine("auto", "cpu") == "torch"
    assert select.resolve_engine("auto", "mps") == "torch"
    with pytest.raises(InputError, match="engine is 'cuda', but device is 'cpu'; use device='cuda'"):
        select.resolve_engine("cuda", "cpu")


def test_without_triton_the_torch_engine_serves_and_says_why(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def absent(name: str) -> str:
        if name == "triton":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert select.resolve_engine("auto", "cuda") == "torch"
    with pytest.raises(EngineError, match="Triton is not installed.*pip install 'triton>=3.4'"):
        select.resolve_engine("cuda", "cuda")


@pytest.mark.parametrize(("version", "works"), [("3.3.1", False), ("3.4.0", True), ("3.10.0", True), ("4.0", True)])
def test_old_versions_of_triton_are_told_apart(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, version: str, works: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert cuda_engine().available is works
    assert works or f"Triton {version} is too old" in cuda_engine().reason


def test_on_rocm_the_torch_engine_serves(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert not cuda_engine().available and "ROCm" in cuda_engine().reason
    assert select.resolve_engine("auto", "cuda") == "torch"


def test_gpus_too_old_for_triton_get_the_torch_engine(gpu: SimpleNamespace) -> None:
    gpu.capability = (6, 1)
    assert not cuda_engine().available and "6.1 is too old" in cuda_engine().reason


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_bfloat16_only_where_it_is_native(
    gpu: SimpleNamespace, capability: tuple[int, int], expected: torch.dtype
) -> None:
    gpu.capability = capability
    assert select.resolve_dtype("auto", "cuda") == expected
    assert select.Placement("cuda", "cuda", "cuda", torch.int8).storage == expected
    if expected == torch.float16:
        with pytest.raises(InputError, match="'bfloat16', which Some GPU only emulates; use float16"):
            select.resolve_dtype("bfloat16", "cuda")


def test_int8_is_refused_where_there_is_no_engine_for_it(gpu: SimpleNamespace) -> None:
    assert select.resolve_dtype("int8", "cuda", "cuda") == torch.int8
    with pytest.raises(InputError, match="dtype is 'int8', which the torch engine does not have"):
        select.resolve_dtype("int8", "cpu", "torch")


def test_info_says_why_there_is_no_cuda_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from barkfast.cli import main

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["info", "--model", "demo"]) == 0
    assert "no: torch sees no CUDA device; the torch engine serves instead" in capsys.readouterr().out


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), OSError("no C compiler")])
def test_an_engine_that_fails_is_replaced_with_one_warning_each(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    from barkfast.runtime.cuda import codec, decoder, refiner

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    for module in (decoder, refiner):
        monkeypatch.setattr(module, "load_network", fail)
    monkeypatch.setattr(codec, "flatten", fail)
    speak = {"seed": 1, "max_duration_s": 0.2}
    expected = Bark("demo", device="cpu", engine="torch").generate("Hello.", **speak)
    with caplog.at_level(logging.WARNING):
        generation = Bark("demo", device="cpu", engine="cuda").generate("Hello.", **speak)
    np.testing.assert_array_equal(generation.audio, expected.audio)
    warnings = [r.message for r in caplog.records]
    assert len(warnings) == 4, warnings
    for warning, what in zip(warnings, ("semantic network", "coarse network", "fine network", "codec"), strict=True):
        assert f"the cuda engine failed for the {what}, the torch engine serves instead" in warning
        assert str(error) in warning
