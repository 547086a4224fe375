"""Sample tokens as the reference does, with the same random numbers.

Order: top-p on the plain logits, then top-k, then temperature, then softmax, then one multinomial draw.
"""

import numpy as np
import torch
from torch import Tensor

from barkfast.checks import check_seed
from barkfast.config import Sampling

# Each stage's number in the key (seed, stage, index) of counter-based random numbers.
STAGE_KEYS = {"semantic": 0, "coarse": 1, "fine": 2}


class Randomness:
    """The random numbers of one request.

    With a seed, one torch generator per device, each seeded with it: the numbers that the reference would see after
    `torch.manual_seed(seed)`, whatever else runs in the process. Without a seed, torch's global generator.

    Engines that draw in their own kernels use counter-based random numbers instead, see `reserve`.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}
        self._key = seed
        self._reserved: dict[str, int] = {}

    @classmethod
    def of(cls, seed: "Seed") -> "Randomness":
        """A new Randomness from a seed; an existing one is returned as it is and continues."""
        if isinstance(seed, Randomness):
            return seed
        return cls(check_seed(seed))

    def on(self, device: torch.device) -> torch.Generator | None:
        """The generator for `device`; None means torch's global one."""
        if self.seed is None:
            return None
        if device.type not in self._generators:
            self._generators[device.type] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device.type]

    def reserve(self, stage: str, count: int) -> tuple[int, int]:
        """Reserve `count` counter-based random numbers of a stage; return (seed, index of the first).

        Each depends only on (seed, stage, index). Without a seed, one is drawn from torch's global generator.
        """
        if self._key is None:
            self._key = int(torch.randint(2**63 - 1, ()))
        first = self._reserved.get(stage, 0)
        self._reserved[stage] = first + count
        return self._key, first


Seed = int | Randomness | None


def filter_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Set to -inf all logits outside the smallest set of ids whose probabilities sum to more than `top_p`.

    In numpy and float32 as in the reference: which of several equal logits survives depends on numpy's sort.
    """
    values = logits.float().cpu().numpy().copy()
    order = np.argsort(values)[::-1]
    weights = np.exp(values[order] - values.max())
    beyond = np.cumsum(weights / np.sum(weights, keepdims=True)) > top_p
    beyond[1:] = beyond[:-1].copy()
    beyond[0] = False
    values[order[beyond]] = -np.inf
    return torch.from_numpy(values).to(logits.device)


def filter_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Set to -inf all logits below the `top_k`-th largest; ties with it survive."""
    threshold = torch.topk(logits, min(top_k, logits.shape[-1])).values[-1]
    return logits.masked_fill(logits < threshold, -torch.inf)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities of (n,) `logits` after filters and temperature; one-hot for greedy sampling."""
    logits = logits.float()
    if not sampling.temperature:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    if sampling.top_p is not None:
        logits = filter_top_p(logits, sampling.top_p)
    if sampling.top_k is not None:
        logits = filter_top_k(logits, sampling.top_k)
    return torch.softmax(logits / sampling.temperature, dim=-1)


def draw(probs: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """Draw one index per row of `probs` (..., n); greedy sampling takes the largest and uses no random number."""
    if sampling.greedy:
        return probs.argmax(-1)
    return torch.multinomial(probs, num_samples=1, generator=generator)[..., 0]
