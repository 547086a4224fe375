"""A simulated wrong kernel: an engine that computes with other weights than it was given."""

import dataclasses
from typing import Any

import pytest

from barkfast.bench import teacher_forced, verify
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.decoder import Step, not_finite
from barkfast.runtime.select import Placement
from barkfast.weights import Checkpoint

# Component -> one of its tensors.
TENSORS = {
    "text": "transformer.h.1.mlp.c_proj.weight",
    "coarse": "transformer.h.0.mlp.c_proj.weight",
    "fine": "transformer.h.0.mlp.c_fc.weight",
    "codec": "decoder.layers.0.conv.weight",
}


def spoil(checkpoint: Checkpoint, part: str, factor: float) -> Checkpoint:
    """The same model with one tensor of one part scaled."""

    def with_wrong_tensor(weights: Any) -> Any:
        tensors = dict(weights.tensors)
        tensors[TENSORS[part]] = tensors[TENSORS[part]] * factor
        changes: dict[str, Any] = {"tensors": tensors}
        if part != "codec":
            # Stored packed weights of the right tensors must not be used for these.
            changes["content"] = lambda: f"spoilt by {factor}"
        return dataclasses.replace(weights, **changes)

    if part == "codec":
        return dataclasses.replace(checkpoint, read_codec=lambda: with_wrong_tensor(checkpoint.read_codec()))

    def read_stage(stage: str) -> Any:
        weights = checkpoint.read_stage(stage)
        return with_wrong_tensor(weights) if stage == part else weights

    return dataclasses.replace(checkpoint, read_stage=read_stage)


def plant(patch: pytest.MonkeyPatch, engine: str, part: str, factor: float) -> None:
    """Make `engine` compute with a wrong tensor, multiplied by `factor`, and the other engines with the right ones."""
    build = teacher_forced.build_network

    def build_wrong(checkpoint: Checkpoint, stage: str, placement: Placement) -> Any:
        return build(spoil(checkpoint, part, factor) if placement.engine == engine else checkpoint, stage, placement)

    patch.setattr(teacher_forced, "build_network", build_wrong)
    patch.setattr(verify, "build_network", build_wrong)


def fail_steps(patch: pytest.MonkeyPatch, stage: str) -> None:
    """Make the cpu engine's steps of one stage end with the error for logits that are not finite."""
    step = CpuDecoder.step

    def failing_step(self: CpuDecoder) -> list[Step]:
        error = not_finite(stage, 1, self.dtype)
        return [Step(s.slot, None, True, error) if self.stage == stage else s for s in step(self)]

    patch.setattr(CpuDecoder, "step", failing_step)
