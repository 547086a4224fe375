"""How a suite takes a time: by pytest-benchmark's timer, or from where it was measured; behind the correctness gate."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from benchmarks.suites.setting import Setting, find_wrong


class Clock:
    """A timer that goes on only when it is told to: with it, a benchmark takes times that were measured elsewhere."""

    # What pytest-benchmark writes down as the timer's name.
    __name__ = "measured elsewhere"

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Go on by so much."""
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

    def time(self, work: Callable[[], object], *, rounds: int, warm_up: int = 1, **facts: Any) -> None:
        """Time whole calls of `work`, after some that do not count; one call in a smoke test. Args: as of `take`."""
        smoke = self.setting.smoke
        self.benchmark.pedantic(work, rounds=1 if smoke else rounds, warmup_rounds=0 if smoke else warm_up)
        self._write(facts)

    def take(self, milliseconds: Sequence[float], **facts: Any) -> None:
        """Take times that were measured elsewhere: on a device's own clock, or in native code.

        Args:
            milliseconds: of each round; the test is marked with CLOCK for a timer.
            facts: to be written down; of `n_bytes` and `flop`, of one round, their rates too.
        """
        coming: Iterator[float] = iter(milliseconds)
        self.benchmark.pedantic(lambda: CLOCK.pass_time(next(coming) / 1e3), rounds=len(milliseconds))
        self._write(facts)

    @property
    def median(self) -> float | None:
        """Seconds; None where pytest-benchmark was told to time nothing."""
        return None if self.benchmark.stats is None else self.benchmark.stats.stats.median

    def _write(self, facts: dict[str, Any]) -> None:
        info, seconds = self.benchmark.extra_info, self.median
        info.update(facts)
        if seconds and facts.get("n_bytes"):
            info["gb_per_s"] = round(facts["n_bytes"] / seconds / 1e9, 3)
        if seconds and facts.get("flop"):
            info["tflop_per_s"] = round(facts["flop"] / seconds / 1e12, 4)
