"""Where a decode step's time goes: each part's kernels timed alone, and what the whole step takes beyond them."""

from collections import Counter
from functools import partial
from typing import Any

from barkfast.config import GPTConfig
from barkfast.runtime.cpu.decoder import CpuDecoder
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sections.linear import LEAST_BYTES
from benchmarks.cpu.sizes import model_size
from benchmarks.plan import Plan
from benchmarks.record import Recorder
from benchmarks.timing import summarize

PROMPT, STEPS = 885, 42
# Native formats by their number, and the parts of a layer by the checkpoint's names.
FORMATS = ("f32", "bf16", "int8", "int4")
PARTS = {"attn.c_attn": "qkv", "attn.c_proj": "out", "mlp.c_fc": "fc", "mlp.c_proj": "proj"}


def run(plan: Plan, record: Recorder) -> None:
    """Coarse steps, whose context is that of speech with a voice."""
    networks.use_threads(plan)
    for size in ("small",) if plan.smoke else ("small", "large"):
        for dtype in ("int8",) if plan.smoke else ("int8", "bfloat16"):
            size = model_size(plan, size)
            name = f"{size} {dtype} coarse step after {PROMPT}, {plan.threads} threads"
            record.measure(name, partial(profile_step, plan, size, dtype), dtype=dtype)


def profile_step(plan: Plan, size: str, dtype: str) -> dict[str, Any]:
    """Microseconds of each part, of the whole, and of what is not among the parts: norms, quantization, waiting."""
    decoder = networks.build_decoder(plan, size, dtype, "coarse")
    layout = inputs.checkpoint(plan, size).layout
    job = inputs.step_job("coarse", layout, PROMPT, 12 if plan.smoke else STEPS, 0)
    whole = summarize(networks.step_times(decoder, [job]))["median"] * 1e3
    config = inputs.checkpoint(plan, size).stage("coarse").config
    parts = time_parts(plan, decoder, config, inputs.candidates(job), PROMPT + job.steps // 2)
    known = sum(part["us"] for part in parts)
    parts.append({"part": "all else", "count": 1, "us": round(whole - known, 1)})
    for part in parts:
        part["share"] = round(part["us"] / whole, 4)
    return {"size": size, "dtype": dtype, "threads": plan.threads, "us": round(whole, 1), "parts": parts}


def time_parts(
    plan: Plan, decoder: CpuDecoder, config: GPTConfig, candidates: int, context: int
) -> list[dict[str, Any]]:
    """Each kind of matrix, in the formats that the layers have it in; the rows of the head; one attention per layer."""
    native = networks.require_native()
    least, repeats = (2**16, 2) if plan.smoke else (LEAST_BYTES, 10)
    kinds: Counter[tuple[str, int, int, int]] = Counter()
    for piece in decoder._packed.pieces:
        if piece.kind == "matrix":
            head = piece.name.startswith("lm_head")
            name = "head" if head else PARTS[".".join(piece.name.split(".")[3:5])]
            kinds[name, piece.format, candidates if head else piece.rows, piece.cols] += 1
    parts = []
    for (name, stored, rows, cols), count in kinds.items():
        found = native.time_linear(FORMATS[stored], rows, cols, 1, least, False, plan.threads, repeats)
        parts.append(describe(f"{name} {FORMATS[stored]}", count, found))
    cache = "f32" if decoder.dtype == "float32" else "bf16"
    found = native.time_attend(cache, config.n_head, config.head_dim, context, least, plan.threads, repeats)
    return [*parts, describe(f"attention {cache}", config.n_layer, found)]


def describe(name: str, count: int, found: dict[str, Any]) -> dict[str, Any]:
    seconds = summarize(found["seconds"])["median"]
    rate = found["bytes"] / seconds / 1e9
    return {"part": name, "count": count, "us": round(count * seconds * 1e6, 1), "gb_per_s": round(rate, 2)}
