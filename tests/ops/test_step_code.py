"""Machine code of a decode step's kernels, from two versions of Triton and from CUDA: rules and modelled time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.step_model import compare
from tools.step_model.allowed import ALLOWED
from tools.step_model.cuda import compiler

pytest.importorskip("triton", reason="triton is not installed (the extra `triton`; it has wheels for Linux only)")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DEFAULT, FUSED = "T6 all", "C9 C8, weights to L2"
LAYER = {"norm_qkv", "decode_attention", "attention_out", "norm_fc_gelu", "proj_residual"}
OTHER_TRITON = ROOT / "build" / "triton-3.6"

Report = dict[str, Any]


def model(folder: Path, *arguments: str) -> Report:
    """Compile the kernels again with tools.step_model, and return its report."""
    path = folder / "step.json"
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / name) for name in (".", "kernels"))
    command = [sys.executable, "-m", "tools.step_model", "--json", str(path), *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(path.read_text(encoding="utf-8")) | {"text": result.stdout}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Report:
    """The report on the default variant, and on the CUDA kernels if there is a compiler; the summary shows it."""
    variants = [DEFAULT, FUSED] if compiler() else [DEFAULT]
    found = model(tmp_path_factory.mktemp("step"), "--variant", *variants)
    texts.append(found["text"])
    return found


@pytest.fixture(scope="module")
def other_report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on Triton 3.6, which torch's CUDA builds of 2026 contain."""
    if not (OTHER_TRITON / "triton").is_dir():
        folder = OTHER_TRITON.relative_to(ROOT)
        pytest.skip(f"no {folder}: pip install --no-deps --target {folder} triton==3.6.0")
    folder = tmp_path_factory.mktemp("other")
    return model(folder, "--triton", str(OTHER_TRITON), "--variant", DEFAULT)


def rules_are_kept(report: Report) -> None:
    broken = [f"{row['variant']}, {row['dtype']}: {text}" for row in report["kernels"] for text in row["violations"]]
    assert not broken, "\n".join(broken)


def test_the_rules_are_kept(report: Report) -> None:
    rules_are_kept(report)


def test_the_rules_are_kept_with_the_other_triton(other_report: Report) -> None:
    assert other_report["compilers"]["triton"].startswith("triton 3.6")
    rules_are_kept(other_report)


def test_no_kernel_got_slower(report: Report) -> None:
    found = list(compare.slower(report["compilers"], report["kernels"], compare.read()))
    assert not found, "\n".join(found)


def test_no_kernel_got_slower_with_the_other_triton(other_report: Report) -> None:
    found = list(compare.slower(other_report["compilers"], other_report["kernels"], compare.read()))
    assert not found, "\n".join(found)


def test_every_kernel_of_a_step_is_there(report: Report) -> None:
    by_variant: dict[str, dict[str, str]] = {}
    for row in report["kernels"]:
        by_variant.setdefault(row["variant"], {})[row["kernel"]] = row["source"]
    ends = {f"{kernel} {stage}" for kernel in ("norm_head", "sample") for stage in ("semantic", "coarse")}
    assert by_variant[DEFAULT] == dict.fromkeys(LAYER | ends, "triton")
    if FUSED in by_variant:
        draws = {f"head_draw {stage}" for stage in ("semantic", "coarse")}
        assert by_variant[FUSED] == dict.fromkeys(LAYER | draws, "cuda")
    assert {row["dtype"] for row in report["kernels"]} == {"bfloat16", "int8"}


def test_steps_are_modelled(report: Report) -> None:
    for row in report["steps"]:
        assert 100 < row["us"] < 700, row
    # Loads ahead of the wait, or faster memory, make no step slower.
    us = {
        tuple(row[key] for key in ("variant", "dtype", "stage", "device", "loads")): row["us"]
        for row in report["steps"]
    }
    for (variant, dtype, stage, device, loads), time in us.items():
        assert us[variant, dtype, stage, "H200", loads] <= us[variant, dtype, stage, "H100", loads]
        later = loads.replace("loads ahead", "loads begin when the predecessor ends")
        assert time <= us[variant, dtype, stage, device, later]


@pytest.mark.parametrize(
    ("loads", "us"), [("loads ahead", 245), ("loads begin when the predecessor ends", 400)], ids=["ahead", "late"]
)
def test_a_step_in_cuda_is_modelled_within_its_target(report: Report, loads: str, us: float) -> None:
    """Bark-large in bf16 on an H100; the slower of the two networks."""
    steps = [
        row for row in report["steps"] if (row["variant"], row["dtype"], row["device"]) == (FUSED, "bfloat16", "H100")
    ]
    if not steps:
        pytest.skip("no compiler for CUDA sources: neither NVRTC's bindings nor nvcc")
    assert max(row["us"] for row in steps if row["loads"].startswith(loads)) <= us


def test_what_is_allowed_has_a_reason() -> None:
    for key, allowed in ALLOWED.items():
        reasons = [*allowed.dependent.values(), *allowed.branches.values()]
        trips, why = allowed.trips
        assert all(reasons) and (trips == 1 or why or allowed.dependent), key
        registers, reason = allowed.registers
        assert (registers > 64) == bool(reason), key
