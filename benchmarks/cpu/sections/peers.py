"""The reference and transformers on the same processor, weights, voice and length, in the same run."""

from typing import Any

import torch

from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.peers import time_reference, time_transformers
from benchmarks.plan import Plan
from benchmarks.record import Recorder

# No target is set for it: a shorter clip will do, and is said to be one.
TRANSFORMERS_S = 5.0


def run(plan: Plan, record: Recorder, part: str) -> None:
    """In float32, as both run on a CPU by default; one clip each, for it takes minutes."""
    networks.use_threads(plan)
    size = model_size(plan, part)
    voice = inputs.full_voice(inputs.checkpoint(plan, size).layout)
    same = {"size": size, "voice": True, "threads": plan.threads}
    options: dict[str, Any] = {"voice": voice, "warm": False}

    def reference() -> dict[str, Any]:
        return same | {"peer": "bark"} | time_reference(plan, size, **options)

    def transformers() -> dict[str, Any]:
        clip_s = min(plan.clip_s, TRANSFORMERS_S)
        row = time_transformers(plan, size, torch.float32, clip_s=clip_s, **options)
        return same | {"peer": "transformers"} | row

    record.measure(f"bark {size}, full voice", reference)
    record.measure(f"transformers {size}, full voice", transformers)
