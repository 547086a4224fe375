"""What rounding weights costs, by how many of them share a scale: error of the logits, without any kernel.

Weights are rounded and turned back to float32 in the torch network; inputs too, where the engine rounds them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barkfast.bench.compare import rms_ratio
from barkfast.models.gpt import GPT, KVCache
from barkfast.runtime import select
from barkfast.weights import open_model
from barkfast.weights.random import SIZES
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.plan import Plan
from benchmarks.record import Recorder

Round = Callable[[Tensor], Tensor]
# How many, and how long.
PROMPTS, PROMPT = 8, 128


def round_int8(w: Tensor, group: int | None = None) -> Tensor:
    """To 127 steps on either side of zero, with one scale per row, or per `group` numbers of a row, in bfloat16."""
    parts = w.unflatten(-1, (-1, group or w.shape[-1]))
    scale = parts.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    scale = scale if group is None else scale.bfloat16().float()
    return ((parts / scale).round() * scale).flatten(-2)


def round_int4(w: Tensor, group: int | None = 32) -> Tensor:
    """To -8..7, the number of the largest magnitude at -8, with scales in bfloat16."""
    parts = w.unflatten(-1, (-1, group or w.shape[-1]))
    most = parts.gather(-1, parts.abs().argmax(-1, keepdim=True))
    scale = (most / -8).bfloat16().float()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return ((parts / scale).round().clamp(-8, 7) * scale).flatten(-2)


def round_bf16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def keep(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Variant:
    """One way to round.

    Args:
        weights, head: of the layers' matrices and of the head's.
        given: what they are multiplied with.
        bits: per weight of a layer, scales included.
        first: of the first layer's matrices, if that is stored more exactly than the others.
    """

    weights: Round
    head: Round
    given: Round
    bits: float
    first: Round | None = None


GROUPS = {n: partial(round_int8, group=n) for n in (128, 64, 32)}
QUARTERS = {n: partial(round_int4, group=n) for n in (64, 32)}
BY_32 = GROUPS[32]
VARIANTS = {
    "int8 per row, float32 inputs": Variant(round_int8, round_int8, keep, 8),
    "int8 per row, int8 inputs": Variant(round_int8, round_int8, round_int8, 8),
    **{f"int8 groups of {n}, int8 inputs": Variant(by, by, round_int8, 8 + 16 / n) for n, by in GROUPS.items()},
    "int8 groups of 32, float32 inputs": Variant(BY_32, BY_32, keep, 8.5),
    "int8 groups of 32, int8 inputs in groups of 32": Variant(BY_32, BY_32, BY_32, 8.5),
    "int8 groups of 32, int8 inputs in groups of 32, first layer bfloat16": Variant(
        BY_32, BY_32, BY_32, 8.5, round_bf16
    ),
    "bfloat16": Variant(round_bf16, round_bf16, round_bf16, 16),
    "int8 inputs alone": Variant(keep, keep, round_int8, 32),
    "int8 inputs in groups of 32 alone": Variant(keep, keep, BY_32, 32),
    "int4 per row, int8 inputs in groups of 32": Variant(partial(round_int4, group=None), BY_32, BY_32, 4),
    **{
        f"int4 groups of {n}, int8 inputs in groups of 32": Variant(by, BY_32, BY_32, 4 + 16 / n)
        for n, by in QUARTERS.items()
    },
    "int4 groups of 32, int8 inputs in groups of 32, first layer int8": Variant(QUARTERS[32], BY_32, BY_32, 4.5, BY_32),
}


def run(plan: Plan, record: Recorder) -> None:
    """The coarse network of the small model."""
    networks.use_threads(plan)
    size = model_size(plan, "small")
    width = SIZES[size][2]
    for name, variant in VARIANTS.items():
        if any(f"groups of {n}," in name and width % n for n in GROUPS):
            continue
        record.measure(f"{size} {name}", lambda variant=variant: measure_error(plan, size, variant))


@lru_cache(maxsize=1)
def plain_model(plan: Plan, size: str) -> tuple[GPT, dict[str, Tensor], Tensor]:
    """The network, its weights as they are, and its logits."""
    # Not the converted model, whose weights are bfloat16 already.
    stage = open_model(f"random:{size}").stage("coarse")
    decoder = select.build_decoder("coarse", stage.config, stage.tensors, networks.place("float32", "torch"))
    model = decoder.model
    weights = {name: layer.weight for name, layer in matrices(model).items()}
    return model, weights, logits(plan, model, size)


def matrices(model: GPT) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def logits(plan: Plan, model: GPT, size: str) -> Tensor:
    """Those of several prompts' last positions, over what may be drawn there."""
    layout = inputs.checkpoint(plan, size).layout
    found = []
    for seed in range(1 if plan.smoke else PROMPTS):
        job = inputs.step_job("coarse", layout, PROMPT, 1, seed)
        first, end = job.slices[0]
        with torch.inference_mode():
            cache = KVCache(model.config, device=torch.device("cpu"), dtype=torch.float32)
            hidden = model(torch.from_numpy(job.prompt.astype(np.int64))[None], cache)
            found.append(model.logits(hidden, first, end).clone())
    return torch.cat(found)


def measure_error(plan: Plan, size: str, variant: Variant) -> dict[str, Any]:
    """Root mean squares of the logits' and of the layers' weights' errors over those of the plain ones."""
    model, plain, expected = plain_model(plan, size)
    hooks = []
    errors = []
    try:
        for name, layer in matrices(model).items():
            first = variant.first is not None and name.startswith("transformer.h.0.")
            by = variant.head if name == "lm_head" else variant.first if first else variant.weights
            # What is stored in bfloat16 is multiplied as such.
            given = keep if first and variant.first is round_bf16 else variant.given
            rounded = by(plain[name].detach())
            if name != "lm_head":
                errors.append(rms_ratio(plain[name].numpy(), rounded.numpy()))
            layer.weight = nn.Parameter(rounded, requires_grad=False)
            hooks.append(layer.register_forward_pre_hook(lambda _, x, given=given: (given(x[0]),)))
        actual = logits(plan, model, size)
    finally:
        for hook in hooks:
            hook.remove()
        for name, layer in matrices(model).items():
            layer.weight = plain[name]
    return {
        "size": size,
        "bits_per_weight": variant.bits,
        "weights_rms_ratio": sum(errors) / len(errors),
        "logits_rms_ratio": rms_ratio(expected.numpy(), actual.numpy()),
    }
