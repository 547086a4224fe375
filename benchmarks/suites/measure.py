"""How the suite takes a time: by pytest-benchmark's clock from where it was measured, behind the correctness gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import pytest
import torch

from barkfast.bench import check
from barkfast.bench.workload import Workload
from barkfast.weights import Checkpoint, open_model


@dataclass(frozen=True)
class Setting:
    """One run of the suite.

    Args:
        size: of the random weights, one of barkfast.weights.random.SIZES.
        device: resolved.
        smoke: next to no work, to see that everything runs.
    """

    size: str
    device: str
    smoke: bool

    @property
    def model(self) -> str:
        return f"random:{self.size}"

    @property
    def torch_device(self) -> torch.device:
        """With its number, as the cuda engine has it."""
        device = torch.device(self.device)
        return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


@cache
def find_wrong(setting: Setting, engine: str, dtype: str) -> tuple[str, ...]:
    """The names of the correctness gate's checks that are red for an engine and a dtype."""
    if engine == "cuda" and setting.device == "cpu":
        # Triton's interpreter is far too slow for it, and its times are worth nothing.
        return ()
    workload = Workload(model=setting.model, device=setting.device, engine=engine, dtype=dtype)
    return tuple(one.name for one in check.check(workload) if not one.ok)


@lru_cache(maxsize=1)
def open_weights(setting: Setting) -> Checkpoint:
    return open_model(setting.model)


class Clock:
    """A timer that goes on only when it is told to: with it, a benchmark takes times that were measured elsewhere."""

    # What pytest-benchmark writes down as the timer's name.
    __name__ = "measured elsewhere"

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


class Measure:
    """Takes times, and writes beside them what was done in that time.

    Args:
        benchmark: pytest-benchmark's fixture.
    """

    def __init__(self, benchmark: Any, setting: Setting) -> None:
        self.benchmark, self.setting = benchmark, setting
        benchmark.extra_info.update(size=setting.size, device=setting.device)

    def check(self, engine: str, dtype: str) -> None:
        """End the test, without a time, where the correctness gate is red."""
        wrong = find_wrong(self.setting, engine, dtype)
        if wrong:
            pytest.fail(f"the correctness gate is red, so no time is taken: {', '.join(wrong)}", pytrace=False)

    def take(self, milliseconds: Sequence[float], **facts: Any) -> None:
        """Take times that were measured elsewhere: on a device's own clock, or in native code.

        Args:
            milliseconds: of each round; the test is marked with CLOCK for a timer.
            facts: to be written down; of `n_bytes` and `flop`, of one round, their rates too.
        """
        coming: Iterator[float] = iter(milliseconds)
        self.benchmark.pedantic(lambda: CLOCK.pass_time(next(coming) / 1e3), rounds=len(milliseconds))
        info = self.benchmark.extra_info
        # None where pytest-benchmark was told to time nothing.
        seconds = None if self.benchmark.stats is None else self.benchmark.stats.stats.median
        info.update(facts)
        if seconds and facts.get("n_bytes"):
            info["gb_per_s"] = round(facts["n_bytes"] / seconds / 1e9, 3)
        if seconds and facts.get("flop"):
            info["tflop_per_s"] = round(facts["flop"] / seconds / 1e12, 4)
