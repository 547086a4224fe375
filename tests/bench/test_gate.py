"""The check before timing passes what is right and fails what is wrong, whichever stage is wrong."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from barkfast.bench import check as check_module
from barkfast.bench.check import Check, Sizes, check
from barkfast.bench.workload import Workload
from barkfast.errors import EngineError
from barkfast.native import native_status
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.torch_ import TorchDecoder, TorchRefiner

from .planted import fail_steps, plant

needs_native = pytest.mark.skipif(not native_status()[0], reason=f"native module {native_status()[1]}")
STAGES = ("semantic", "coarse", "fine", "codec")
COMPONENTS = list(zip(("text", "coarse", "fine", "codec"), STAGES, strict=True))


def workload(engine: str = "cpu", dtype: str = "float32", **fields: str) -> Workload:
    return Workload("random:nano", "cpu", dtype, engine, **fields)


def all_right(checks: list[Check]) -> bool:
    return bool(checks) and not failed_stages(checks)


def failed_stages(checks: list[Check]) -> set[str]:
    """The stages of failed checks: the first words of their names."""
    return {found.name.split()[0].rstrip(",") for found in checks if not found.ok}


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("voice", ["none", "full"])
def test_the_cpu_engine_passes(dtype: str, voice: str) -> None:
    checks = check(workload(dtype=dtype, voice=voice))
    assert all_right(checks), [found for found in checks if not found.ok]
    assert {found.name.split()[0].rstrip(",") for found in checks} == set(STAGES)
    assert all(found.value is not None and found.limit is not None for found in checks)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_torch_engine_passes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "QUICK", Sizes(6, 12, 8))
    assert all_right(check(workload("torch", dtype)))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are interpreted only where there is no GPU")
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_interpreted_cuda_engine_passes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "QUICK", Sizes(2, 4, 2))
    monkeypatch.setattr(check_module, "STEPS_TOGETHER", 2)
    checks = check(workload("cuda", dtype))
    assert all_right(checks), [found for found in checks if not found.ok]


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(("part", "stage"), COMPONENTS)
def test_a_planted_wrong_kernel_fails_its_stage(
    part: str, stage: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "cpu", part, 1.5)
    checks = check(workload(dtype=dtype))
    assert not all_right(checks)
    assert failed_stages(checks) == {stage}


@needs_native
def test_logits_that_are_not_finite_fail_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_steps(monkeypatch, "coarse")
    checks = check(workload())
    (failed,) = [found for found in checks if not found.ok]
    assert failed.name == "coarse steps" and failed.value is None and "not finite" in failed.note


def test_steps_that_are_right_do_not_excuse_a_run_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "QUICK", Sizes(6, 12, 8))
    run = TorchDecoder.run

    def wrong_run(self: TorchDecoder, jobs: list, **options: object) -> list[np.ndarray]:
        return [tokens + 1 for tokens in run(self, jobs, **options)]

    refine = TorchRefiner.refine
    monkeypatch.setattr(TorchDecoder, "run", wrong_run)
    monkeypatch.setattr(TorchRefiner, "refine", lambda self, job: np.roll(refine(self, job), 1, axis=0))
    checks = check(workload("torch", "bfloat16"))
    assert {found.name for found in checks if not found.ok} >= {"semantic tokens", "coarse tokens", "fine codes"}


@needs_native
def test_a_batch_that_changes_logits_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = CpuDecoder.logits

    def mixed_up(self: CpuDecoder, slot: int) -> np.ndarray:
        return logits(self, slot) * (1.5 if len(self.active) > 1 else 1)

    monkeypatch.setattr(CpuDecoder, "logits", mixed_up)
    wrong = [found.name for found in check(workload(dtype="int8")) if not found.ok]
    assert wrong == ["semantic, 2 at a time", "coarse, 2 at a time"]


@needs_native
def test_an_engine_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(CpuDecoder, "__init__", fail)
    with pytest.raises(EngineError, match="the cpu engine failed for the semantic network: planted"):
        check(workload())
