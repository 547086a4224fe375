"""Which engine and dtype a request gets, why, and what happens if the first choice is not available."""

import importlib.metadata
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from barkfast import Bark
from barkfast.config import GPTConfig
from barkfast.errors import EngineError, InputError
from barkfast.runtime import engines, select
from barkfast.runtime.cpu import packing, store, threads
from barkfast.runtime.torch_ import TorchDecoder
from barkfast.weights.random import make_gpt


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretend that there is one GPU, which can be described but not used; change `capability` to make it older."""
    machine = SimpleNamespace(capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: machine.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Some GPU")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return machine


def cuda_engine() -> engines.Engine:
    return {engine.name: engine for engine in select.describe_engines()}["cuda"]


def test_a_gpu_gets_the_cuda_engine_by_itself(gpu: SimpleNamespace) -> None:
    assert cuda_engine().available and "compute capability 9.0" in cuda_engine().reason
    assert select.resolve_engine("auto", "cuda") == "cuda"
    assert select.resolve_engine("auto", "cuda:0") == "cuda"
    assert select.resolve_engine("torch", "cuda") == "torch"


def test_other_devices_do_not_get_the_cuda_engine(gpu: SimpleNamespace) -> None:
    assert select.resolve_engine("auto", "cpu") in ("cpu", "torch")
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


@pytest.mark.parametrize(("capability", "expected"), [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_bfloat16_only_where_it_is_native(gpu: SimpleNamespace, capability: tuple[int, int], expected: str) -> None:
    gpu.capability = capability
    assert select.resolve_dtype("auto", "cuda") == expected
    assert select.Placement("cuda", "cuda", "cuda", "int8").storage == getattr(torch, expected)
    if expected == "float16":
        with pytest.raises(InputError, match="'bfloat16', which Some GPU only emulates; use float16"):
            select.resolve_dtype("bfloat16", "cuda")


@pytest.mark.parametrize(
    ("dtype", "engine", "others"),
    [("int8", "torch", "engine 'cpu' or engine 'cuda'"), ("int4", "torch", "engine 'cpu'")]
    + [("int4", "cuda", "engine 'cpu'")],
)
def test_a_dtype_that_an_engine_lacks_names_those_that_have_it(dtype: str, engine: str, others: str) -> None:
    with pytest.raises(InputError, match=f"dtype is '{dtype}', which the {engine} engine does not have.*{others}"):
        select.resolve_dtype(dtype, "cpu", engine)


def test_dtypes_of_the_cpu_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert select.resolve_dtype("auto", "cpu", "cpu") == "bfloat16"
    assert select.resolve_dtype("auto", "cpu", "torch") == "float32"
    for name, expected in {"fp32": "float32", "bf16": "bfloat16", "int8": "int8", "int4": "int4"}.items():
        assert select.resolve_dtype(name, "cpu", "cpu") == expected
        # If the torch engine takes over, it uses the only dtype that is fast there.
        assert select.Placement("cpu", "cpu", "cpu", expected).storage == torch.float32
    for name in ("float16", "half"):
        with pytest.raises(InputError, match=f"dtype is '{name}'.*use bfloat16"):
            select.resolve_dtype(name, "cpu", "cpu")
    monkeypatch.setenv("BARKFAST_DTYPE", "int4")
    assert select.resolve_dtype("auto", "cpu", "cpu") == "int4"
    with pytest.raises(InputError, match="dtype is 'int3'; expected auto, float32, bfloat16, float16, int8, int4"):
        select.resolve_dtype("int3", "cpu", "cpu")


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A native module that can be described but not used; `isa_error` is its error for the requested level."""
    module = SimpleNamespace(isa_error=None)

    def choose_isa() -> str:
        if module.isa_error:
            raise ValueError(module.isa_error)
        return "avx2"

    module.choose_isa = choose_isa
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(packing, "load_native", lambda: module)
    for user in (engines, select):
        monkeypatch.setattr(user, "native_status", lambda: (True, "loaded"))
    return module


def cpu_engine() -> engines.Engine:
    return {engine.name: engine for engine in select.describe_engines()}["cpu"]


def test_a_cpu_gets_the_cpu_engine_by_itself(native: SimpleNamespace) -> None:
    assert cpu_engine() == engines.Engine("cpu", True, "instructions: avx2; threads: 1")
    assert select.resolve_engine("auto", "cpu") == "cpu"
    assert select.resolve_engine("cpu", "cpu") == "cpu"
    assert select.resolve_engine("torch", "cpu") == "torch"
    assert select.resolve_engine("auto", "mps") == "torch"


def test_the_cpu_engine_runs_on_no_other_device(native: SimpleNamespace, gpu: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="engine is 'cpu', but device is 'cuda'; use device='cpu'"):
        select.resolve_engine("cpu", "cuda")


def test_a_part_on_another_device_gets_a_dtype_that_exists_there(
    native: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example the codec, which stays on the CPU when the device is an Apple GPU."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    components = Bark("random:demo", device="mps", dtype="float16").components
    assert components._placement("mps", "mps").dtype == "float16"
    assert components._placement("cpu", "cpu") == select.Placement("cpu", "cpu", "cpu", "bfloat16", may_fall_back=True)


def test_a_level_that_cannot_run_is_an_error_and_no_reason_to_fall_back(native: SimpleNamespace) -> None:
    native.isa_error = "BARKFAST_CPU_ISA is 'avx1024'; expected one of scalar, avx2"
    for engine in ("auto", "cpu"):
        with pytest.raises(InputError, match="BARKFAST_CPU_ISA is 'avx1024'; expected one of scalar, avx2"):
            select.resolve_engine(engine, "cpu")
    assert select.resolve_engine("torch", "cpu") == "torch"
    assert not cpu_engine().available and "avx1024" in cpu_engine().reason


def test_too_many_threads_are_an_error_and_no_reason_to_fall_back(
    native: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARKFAST_THREADS", "100000")
    for engine in ("auto", "cpu"):
        with pytest.raises(InputError, match="BARKFAST_THREADS is '100000'; expected a whole number from 1 to"):
            select.resolve_engine(engine, "cpu")
    assert not cpu_engine().available and "100000" in cpu_engine().reason


def test_without_the_native_module_the_torch_engine_serves_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (engines, select):
        monkeypatch.setattr(user, "native_status", lambda: (False, "not built: run `pip install` again"))
    monkeypatch.setenv("BARKFAST_CPU_ISA", "nonsense")
    assert select.resolve_engine("auto", "cpu") == "torch"
    with pytest.raises(EngineError, match="engine 'cpu' is not available: not built: run `pip install` again"):
        select.resolve_engine("cpu", "cpu")


def test_the_result_says_which_engine_was_not_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from barkfast.cli import main

    for user in (engines, select):
        monkeypatch.setattr(user, "native_status", lambda: (False, "not built: no compiler"))
    select.warn_of_fallback.cache_clear()
    with caplog.at_level(logging.WARNING):
        generation = [Bark("random:demo", device="cpu") for _ in range(2)][0].generate("Hello.", **SPEAK)
    said = [r.message for r in caplog.records if "engine" in r.message]
    assert said == ["the cpu engine is not available: not built: no compiler; the torch engine serves instead"]
    assert generation.engines == dict.fromkeys(("semantic", "coarse", "fine", "codec"), "torch")
    assert generation.fallbacks == dict.fromkeys(generation.engines, said[0])
    assert not Bark("random:demo", device="cpu", engine="torch").generate("Hello.", **SPEAK).fallbacks
    assert main(["info", "--model", "random:demo"]) == 0
    assert "fallback  the cpu engine is not available: not built: no compiler" in capsys.readouterr().out


def test_a_network_that_does_not_fit_gets_the_torch_engine_with_one_warning(
    native: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    config = GPTConfig(1, 3, 63, 32, 32, 16, bias=False)
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    placement = select.Placement("cpu", "cpu", "cpu", "int8", may_fall_back=True)
    with caplog.at_level(logging.WARNING):
        decoder = select.build_decoder("coarse", config, tensors, placement)
    assert isinstance(decoder, TorchDecoder) and decoder.dtype == torch.float32
    assert decoder.engine == "torch" and "heads are 21 wide" in decoder.fallback
    (record,) = caplog.records
    assert "the cpu engine failed for the coarse network, the torch engine serves instead" in record.message
    assert "heads are 21 wide" in record.message


def test_memory_that_cannot_be_had_gets_the_torch_engine(
    native: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError("no 512 MiB of memory for packed weights")

    monkeypatch.setattr(store, "open_packed", fail)
    monkeypatch.setattr(threads, "shared_pool", lambda: SimpleNamespace(size=1))
    config = GPTConfig(1, 2, 64, 32, 32, 16, bias=False)
    tensors = make_gpt(config, torch.Generator().manual_seed(0))
    placement = select.Placement("cpu", "cpu", "cpu", "bfloat16", may_fall_back=True)
    with caplog.at_level(logging.WARNING):
        assert isinstance(select.build_decoder("semantic", config, tensors, placement), TorchDecoder)
    assert "no 512 MiB of memory" in caplog.text


def test_info_says_why_there_is_no_cuda_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from barkfast.cli import main

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["info", "--model", "random:demo"]) == 0
    assert "no: torch sees no CUDA device; the torch engine serves instead" in capsys.readouterr().out


def fail_to_load(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make everything that the cuda engine loads raise `error`."""
    from barkfast.runtime.cuda import codec, decoder, refiner

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    for module in (decoder, refiner):
        monkeypatch.setattr(module, "load_network", fail)
    monkeypatch.setattr(codec, "flatten", fail)


REASONS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    OSError("no C compiler"),
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
]
SPEAK = {"seed": 1, "max_duration_s": 0.2}


@pytest.mark.parametrize("error", REASONS)
def test_auto_falls_back_with_one_warning_each_and_the_result_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    fail_to_load(monkeypatch, error)
    expected = Bark("random:demo", device="cpu", engine="torch").generate("Hello.", **SPEAK)
    assert set(expected.engines.values()) == {"torch"} and not expected.fallbacks
    monkeypatch.setattr(select, "resolve_engine", lambda engine, device: "cuda")
    with caplog.at_level(logging.WARNING):
        generation = Bark("random:demo", device="cpu", dtype="float32").generate("Hello.", **SPEAK)
    np.testing.assert_array_equal(generation.audio, expected.audio)
    warnings = [r.message for r in caplog.records]
    assert len(warnings) == 4, warnings
    for warning, what in zip(warnings, ("semantic network", "coarse network", "fine network", "codec"), strict=True):
        assert f"the cuda engine failed for the {what}, the torch engine serves instead" in warning
        assert str(error) in warning
    assert generation.engines == dict.fromkeys(("semantic", "coarse", "fine", "codec"), "torch")
    assert set(generation.fallbacks) == set(generation.engines)
    assert all(str(error) in reason for reason in generation.fallbacks.values())


@pytest.mark.parametrize("error", [*REASONS, RuntimeError("a fault")])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_an_engine_asked_for_by_name_is_used_or_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception, by: str
) -> None:
    fail_to_load(monkeypatch, error)
    if by == "variable":
        monkeypatch.setenv("BARKFAST_ENGINE", "cuda")
    bark = Bark("random:demo", device="cpu", engine="cuda" if by == "argument" else "auto")
    with pytest.raises(EngineError, match="the cuda engine failed for the semantic network.*use engine='torch'"):
        bark.generate("Hello.", **SPEAK)


def test_a_fault_of_an_engine_is_no_reason_to_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_load(monkeypatch, RuntimeError("shape mismatch"))
    monkeypatch.setattr(select, "resolve_engine", lambda engine, device: "cuda")
    with pytest.raises(EngineError, match="shape mismatch"):
        Bark("random:demo", device="cpu", dtype="float32").generate("Hello.", **SPEAK)
