"""One run of every step of `make cpu`, in order, whatever goes wrong on the way; written down anew after each."""

from typing import Any

from benchmarks.cpu import results, steps, table
from benchmarks.gate import read_gate
from benchmarks.process import Process
from benchmarks.runner import Runner
from benchmarks.step import Step


class CpuRun(Runner):
    """One run of everything on a CPU.

    Args:
        threads: how many are measured with; each number has processes of its own.
        full: whether to measure what takes many minutes, too.
    """

    sections_package = "benchmarks.cpu.sections"

    def __init__(self, *, threads: tuple[int, ...], full: bool, **options: Any) -> None:
        super().__init__(reserve=steps.RESERVE, **options)
        self.threads, self.full = threads, full
        self.current: Step | None = None

    def merge(self, *, complete: bool) -> dict[str, Any]:
        return results.merge(**self.so_far(complete), threads=self.threads, full=self.full)

    def render(self, merged: dict[str, Any]) -> str:
        return table.render(merged)

    def why_skip(self, step: Step) -> str | None:
        if step.name in steps.FULL and not self.full:
            return "takes many minutes: only with --full"
        return super().why_skip(step)

    def start_section(self, step: Step, limit: float, env: dict[str, str] | None = None) -> Process:
        self.current = step
        # The engine's own pool and torch's are as large as each other, and neither larger than is said.
        count = str(step.threads)
        threads = {"BARKFAST_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        # Packed weights are kept with the models, and go with them.
        cache = {"BARKFAST_CACHE": str(self.models / "cache")}
        return super().start_section(step, limit, {**threads, **cache, **(env or {})})

    def command(self, name: str, seconds: float) -> list[str]:
        assert self.current is not None
        return [*super().command(name, seconds), "--threads", str(self.current.threads)]

    def run_steps(self) -> None:
        for step in (steps.plan_smoke if self.smoke else steps.plan_steps)(self.threads):
            self.run_section(step)
            if step.name == "environment":
                self.name_results()
            if step.name == "gate":
                self.gate = read_gate(self.fragments["gate"])
