"""The two calls on a GPU, step by step, and how long each step may take: `make gpu` decides, `make gpu-full` fills in.

The steps of a group run beside one another, the groups one after the other. What prints times is alone in its group.
"""

from dataclasses import dataclass

from benchmarks.process import GRACE_S
from benchmarks.step import Step

# Kept of the time for everything, to write the results.
RESERVE = 9


@dataclass(frozen=True)
class Budget:
    """One call.

    Args:
        name: as the Makefile and the results name it.
        total: seconds for everything.
        groups: in order.
        tests: which of gpu_tests.SETS.
    """

    name: str
    total: int
    groups: tuple[tuple[Step, ...], ...]
    tests: str

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for group in self.groups for step in group)

    @property
    def names(self) -> set[str]:
        """Of the steps."""
        return {step.name for step in self.steps}

    def worst_case(self) -> float:
        """Seconds if every step took its limit, and one of them did not end when it was asked to."""
        return sum(limit_of(group) for group in self.groups) + 2 * GRACE_S + RESERVE


def limit_of(group: tuple[Step, ...]) -> int:
    """Seconds that a group may take."""
    return max(step.limit for step in group)


ENVIRONMENT = Step("environment", 25)
DTYPES = ("bfloat16", "int8")
# Decides between the kernels' variants, and measures what the chosen ones bring.
GPU = Budget(
    "gpu",
    300,
    (
        (ENVIRONMENT, Step("build", 25, kind="build")),
        (Step("probe", 30, kind="probe"),),
        (
            # Without it nothing is timed: longer than the others, which slow it down.
            Step("gate", 75),
            Step("variants CUDA", 65, row_limit=40),
            Step("variants Triton", 65, row_limit=40),
            Step("tests", 60, kind="tests"),
            Step("weights", 75),
            *(Step(f"compile {dtype} {part}", 60) for dtype in DTYPES for part in range(4)),
        ),
        (Step("bandwidth", 12),),
        # It watches its variants itself; this limit is for what it cannot see.
        (Step("ab", 75, timed=True, row_limit=35, stretch=30),),
        (Step("decode", 25, timed=True, row_limit=18),),
        (Step("end_to_end", 35, timed=True),),
    ),
    "hopper",
)
# All tests, then what takes other implementations, larger batches and long prompts.
FULL = Budget(
    "gpu-full",
    240,
    (
        (ENVIRONMENT,),
        (
            Step("tests", 115, kind="tests", stretch=15),
            Step("gate", 115),
            Step("weights", 115),
            Step("sanitizer", 115, kind="sanitizer"),
            Step("compile batch", 115),
            Step("compile peer", 115),
        ),
        (Step("peers", 50, row_limit=40, stretch=40),),
        (Step("batch", 20, timed=True, stretch=20),),
        (Step("stages", 8, timed=True),),
        (Step("profile", 7, timed=True, stretch=8),),
        # Only with time to spare.
        (Step("decode all", 0, timed=True, stretch=45),),
    ),
    "all",
)
BUDGETS = {budget.name: budget for budget in (GPU, FULL)}
