"""A made-up result of `barkfast bench` with every part that a result can have; no number in it was measured."""

from typing import Any

from barkfast.bench.measure import summarize

READ_GB_PER_S, TFLOP_PER_S = 38.9, 1.62
AUDIO_S = 10.0
# Relative times of a clip's repeats.
SPREAD = (1.0, 0.98, 1.05)
# Stage -> count, unit, bytes read, operations that count in the roofline, all operations, what bounds it.
STAGES: dict[str, tuple[int, str, float, float, float, str]] = {
    "semantic": (500, "tokens", 44e9, 0.05e12, 0.14e12, "read"),
    "coarse": (1498, "tokens", 150e9, 3.5e12, 3.8e12, "read"),
    "fine": (749, "frames", 1.1e9, 2.6e12, 2.6e12, "compute"),
    "codec": (749, "frames", 0.12e9, 0.09e12, 0.09e12, "compute"),
}
# Backend -> version, dtype, and seconds of its stages.
TIMES: dict[str, tuple[str | None, str, dict[str, float]]] = {
    "barkfast": ("0.1.0", "int8", {"semantic": 1.44, "coarse": 8.96, "fine": 3.1, "codec": 0.13}),
    "bark": ("0.1.1", "float32", {"semantic": 11.8, "coarse": 62.4, "fine": 19.7, "codec": 1.2}),
    "transformers": ("5.23.0", "float32", {"semantic": 13.1, "coarse": 88.0, "fine": 20.3, "codec": 1.1}),
}
BATCH = {1: 4.0, 2: 5.3, 4: 7.4, 8: 11.4}


def sample_result(status: str = "complete") -> dict[str, Any]:
    """A result of a run on a CPU with two peers.

    Args:
        status: "complete", or "partial" for a run that was ended after its second round.
    """
    rounds = len(SPREAD) if status == "complete" else 2
    return {
        "schema": 1,
        "kind": "bench",
        "status": status,
        "seconds": 512.3,
        "environment": sample_environment(),
        "case": sample_workload(),
        "gate": {"ok": True, "checks": [check("semantic logits", 0.0174, 0.08), check("coarse logits", 0.018, 0.08)]},
        "limits": {
            "read_gb_per_s": READ_GB_PER_S,
            "tflop_per_s": TFLOP_PER_S,
            "ways": [
                {"name": "read by the engine's threads", "value": READ_GB_PER_S, "unit": "GB/s"},
                {"name": "read by torch.sum", "value": 36.8, "unit": "GB/s"},
                {"name": "int8 product of the engine", "value": TFLOP_PER_S, "unit": "TFLOP/s"},
                {"name": "bfloat16 product of torch", "value": 1.1, "unit": "TFLOP/s"},
            ],
        },
        "contenders": [sample_backend(name, rounds) for name in TIMES],
        "batch": [sample_batch(batch, ms) for batch, ms in BATCH.items()] if status == "complete" else [],
    }


def red_result() -> dict[str, Any]:
    """A result whose correctness check failed, so that nothing was timed."""
    checks = [check("semantic logits", 0.0174, 0.08), check("coarse logits", 0.61, 0.08)]
    return sample_result() | {
        "status": "gate red",
        "gate": {"ok": False, "checks": checks},
        "limits": None,
        "contenders": [],
        "batch": [],
    }


def sample_environment() -> dict[str, Any]:
    """A small server without a GPU."""
    return {
        "date": "2026-11-23T15:30:48Z",
        "barkfast": "0.1.0",
        "python": "3.11.7",
        "system": "Linux 6.18.44 x86_64",
        "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6", "transformers": "5.23.0", "bark": None},
        "source": {"commit": "17946aa066f8e450d882a2d55f0c0ed7e12a6c23", "dirty": False, "digest": "e31ac72d8c93ac84"},
        "threads": 2,
        "device": {"name": "Example CPU (family 26, model 2), 2 cores", "isa": "avx512_bf16", "governor": None},
    }


def sample_workload() -> dict[str, Any]:
    """The workload of the sample."""
    return {
        "model": "random:small",
        "device": "cpu",
        "engine": "cpu",
        "dtype": "int8",
        "voice": "full",
        "seconds": AUDIO_S,
        "repeats": len(SPREAD),
        "seed": 0,
        "random_weights": True,
    }


def check(name: str, value: float, limit: float) -> dict[str, Any]:
    """One check of the gate."""
    return {"name": name, "ok": value < limit, "value": value, "limit": limit, "unit": "rms ratio", "note": ""}


def sample_backend(name: str, rounds: int) -> dict[str, Any]:
    """A backend with `rounds` timed clips."""
    version, dtype, seconds = TIMES[name]
    whole = [factor * sum(seconds.values()) for factor in SPREAD[:rounds]]
    clips = [
        {"seed": seed, "seconds": {stage: factor * s for stage, s in seconds.items()}, "audio_s": AUDIO_S}
        for seed, factor in enumerate(SPREAD[:rounds])
    ]
    width = 1 if dtype == "int8" else 4
    return {
        "name": name,
        "version": version,
        "dtype": dtype,
        "status": "ok",
        "reason": "",
        "clips": clips,
        "real_time_factor": summarize([s / AUDIO_S for s in whole]),
        "first_audio_s": summarize(whole),
        "start_up": {"import_s": 1.9, "load_s": 0.4 if name == "barkfast" else 6.5},
        "memory": {"rss_bytes": 981_000_000 * width, "device_bytes": None},
        "stages": [sample_stage(stage, s, width, rounds) for stage, s in seconds.items()],
    }


def not_run(name: str = "bark") -> dict[str, Any]:
    """A peer that is not installed."""
    nothing = {"clips": [], "real_time_factor": None, "first_audio_s": None, "start_up": None, "memory": None}
    reason = f"{name} is not installed: pip install {name}"
    return {"name": name, "version": None, "dtype": "", "status": "not run", "reason": reason, "stages": []} | nothing


def sample_stage(stage: str, seconds: float, width: int, rounds: int) -> dict[str, Any]:
    """One stage's row; `width` bytes per weight."""
    count, unit, n_bytes, flop, operations, limit = STAGES[stage]
    summary = summarize([factor * seconds for factor in SPREAD[:rounds]])
    median = summary["median"]
    bound = (n_bytes * width / READ_GB_PER_S / 1e9 if limit == "read" else 0) + flop / TFLOP_PER_S / 1e12
    return {
        "stage": stage,
        "count": count,
        "unit": unit,
        "s": summary,
        "ms_per_count": median / count * 1e3,
        "bytes": n_bytes * width,
        "flop": flop,
        "operations": operations,
        "gb_per_s": n_bytes * width / median / 1e9,
        "tflop_per_s": flop / median / 1e12,
        "limit": limit,
        "share": bound / median,
    }


def sample_batch(batch: int, ms: float) -> dict[str, Any]:
    """Decode steps of a batch."""
    return {
        "batch": batch,
        "ms_per_step": summarize([0.97 * ms, ms, 1.1 * ms]),
        "tokens_per_s": batch / ms * 1e3,
    }
