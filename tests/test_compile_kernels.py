"""Every kernel that the GPU engine launches compiles for three GPU architectures, without a GPU, and fits them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed (the extra `triton`; it has wheels for Linux only)")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ARCHITECTURES = (80, 90, 120)
# The decode step's kernels for few slots (matrix-vector products); each holds its weights in registers.
VECTOR = {"norm_qkv", "attention_out", "norm_fc_gelu", "proj_residual", "norm_head"}
STEP = VECTOR | {"decode_attention", "combine_splits", "linear_qkv", "linear_partial", "linear_gelu", "linear_head"}
STEP |= {"sample"}
PROMPT = {"embed_prompt", "embed_codes", "flash_attention", "bias_gelu", "sample_codes"}
# Usable by one block: sm_80 has 163 KiB, sm_90 227, sm_120 99.
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 120: 99 * 1024}
REGISTERS_OF_A_MULTIPROCESSOR = 65536

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> list[Row]:
    """One row per kernel, set of constants and architecture; the summary shows the table."""
    path = tmp_path_factory.mktemp("kernels") / "kernels.json"
    # Not Triton's usual cache folder: a cached kernel would prove nothing.
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(path.parent / "cache")}
    command = [sys.executable, str(ROOT / "kernels" / "compile_kernels.py"), "--json", str(path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    texts.append(result.stdout)
    return json.loads(path.read_text(encoding="utf-8"))


def show(row: Row) -> str:
    return f"{row['kernel']} {row['model']} {row['dtype']} sm_{row['sm']} ({row['constants']})"


def test_every_kernel_is_there_for_every_architecture(rows: list[Row]) -> None:
    for sm in ARCHITECTURES:
        kernels = {row["kernel"] for row in rows if row["sm"] == sm}
        assert kernels == STEP | PROMPT | {"residual_norm"}
    dtypes = {(row["model"], row["dtype"]) for row in rows if row["kernel"] == "norm_qkv"}
    sizes, types = ("small", "large"), ("float32", "float16", "bfloat16", "int8")
    assert dtypes == {(model, dtype) for model in sizes for dtype in types}
    assert all(row["cubin_bytes"] > 0 for row in rows)


def test_the_list_of_kernels_is_complete() -> None:
    folders = {path.parent.name for path in (ROOT / "kernels" / "barkfast_kernels").glob("*/triton.py")}
    compiled_elsewhere = {"random", "batch_linear"}
    assert folders - compiled_elsewhere == (STEP | PROMPT | {"residual_norm"}) - {
        "combine_splits",
        "linear_qkv",
        "linear_partial",
        "linear_gelu",
        "linear_head",
    }


def test_nothing_spills(rows: list[Row]) -> None:
    # One kernel uses a few bytes of stack: they stay in the L1 cache and are not worth a smaller tile.
    spilled = [f"{show(row)}: {row['local_bytes']} B" for row in rows if row["local_bytes"] > 16]
    assert not spilled, "\n".join(spilled)


def test_every_kernel_fits_on_a_multiprocessor(rows: list[Row]) -> None:
    for row in rows:
        assert row["shared_bytes"] <= SHARED_BYTES[row["sm"]], show(row)
        registers = row["registers"] * 32 * row["num_warps"]
        # Two programs of a step's kernel must fit side by side, so that one loads while the other adds.
        share = 2 if row["kernel"] in VECTOR | {"decode_attention"} else 1
        assert registers * share <= REGISTERS_OF_A_MULTIPROCESSOR, f"{show(row)}: {row['registers']} registers"


def test_weights_are_requested_16_bytes_at_a_time_and_before_the_wait(rows: list[Row]) -> None:
    for row in rows:
        if row["kernel"] in VECTOR | {"linear_qkv", "linear_gelu", "linear_partial", "linear_head"}:
            assert row["wide_loads"] > 0, show(row)
        if row["kernel"] in VECTOR and row["pdl"]:
            assert row["wide_loads_before_wait"] > 0, show(row)


def test_dependent_launches_stand_where_they_belong(rows: list[Row]) -> None:
    for row in rows:
        step = row["kernel"] in STEP or (row["kernel"] == "residual_norm" and row["pdl"])
        expected = 1 if step and row["sm"] >= 90 else 0
        assert (row["waits"], row["launches_dependents"]) == (expected, expected), show(row)
