"""The three runs, step by step, and how long each step may take: `make cpu`, `make gpu` and `make gpu-full`.

The steps of a group run beside one another, the groups one after the other. What prints times is alone in its group.
"""

from dataclasses import dataclass

# Why a step was not run that --only leaves out.
NOT_ASKED_FOR = "not asked for"


@dataclass(frozen=True, slots=True)
class Step:
    """One process with a time limit, or with kind="tests" several.

    Args:
        name: of the step, its log and, if it is one, the section; what follows a blank is the part of the section.
        limit: seconds it may take; less when the time for everything is nearly spent.
        timed: whether it prints times, so that it needs a passed check and the device for itself.
        threads: of the CPU that it works with; 0 for what is measured on a GPU.
        kind: "section", "build" or "probe" (the CUDA program of probe.py), "tests" or "sanitizer".
        row_limit: seconds for one row of a section, which is then started again behind it; 0 is the section's limit.
        stretch: seconds more that it may take of those that earlier steps did not need.
        left_out: why it is not run, if it is not.
    """

    name: str
    limit: int
    timed: bool = False
    threads: int = 0
    kind: str = "section"
    row_limit: int = 0
    stretch: int = 0
    left_out: str = ""

    @property
    def section(self) -> str:
        return self.name.partition(" ")[0]


@dataclass(frozen=True)
class Budget:
    """One run.

    Args:
        name: as the Makefile and the results name it.
        total: seconds for everything.
        reserve: of these, kept to write the results.
        groups: in order.
        tests: which of gpu_tests.SETS.
        threads: of the CPU that are measured with; none for a GPU.
    """

    name: str
    total: int
    reserve: int
    groups: tuple[tuple[Step, ...], ...]
    tests: str = ""
    threads: tuple[int, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for group in self.groups for step in group)


def limit_of(group: tuple[Step, ...]) -> int:
    """Seconds that a group may take."""
    return max(step.limit for step in group)


# --- on a GPU

ENVIRONMENT = Step("environment", 25)
DTYPES = ("bfloat16", "int8")
# Decides between the kernels' variants, and measures what the chosen ones bring.
GPU = Budget(
    "gpu",
    300,
    9,
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
        (Step("read", 12),),
        # It watches its variants itself; this limit is for what it cannot see.
        (Step("ab", 75, timed=True, row_limit=35, stretch=30),),
        (Step("decode", 25, timed=True, row_limit=18),),
        (Step("clips", 35, timed=True),),
    ),
    "hopper",
)
# All tests, then what takes other implementations, larger batches and long prompts.
FULL = Budget(
    "gpu-full",
    240,
    9,
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
GPU_BUDGETS = {budget.name: budget for budget in (GPU, FULL)}

# --- on a CPU

CPU_TOTAL_S, CPU_FULL_S, CPU_RESERVE_S = 25 * 60, 60 * 60, 5
CPU_DTYPES = ("float32", "bfloat16", "int8", "int4")


def count_threads(cores: int) -> tuple[int, ...]:
    """How many threads are measured with: one, and one per core."""
    return tuple(sorted({1, cores}))


def cpu_budget(threads: tuple[int, ...], *, full: bool = False, smoke: bool = False) -> Budget:
    """Checks first, then what the targets are set for, then the rest; the most threads before fewer.

    Args:
        full: with what takes many minutes more.
        smoke: one step of each section.
    """
    steps = list_cpu_steps(threads[:1] if smoke else threads, full=full)
    if smoke:
        firsts = {step.section: step for step in reversed(steps)}
        steps = [step for step in steps if firsts[step.section] is step]
    total = CPU_FULL_S if full else CPU_TOTAL_S
    return Budget("cpu", total, CPU_RESERVE_S, tuple((step,) for step in steps), threads=threads)


def list_cpu_steps(threads: tuple[int, ...], *, full: bool) -> list[Step]:
    most, each = max(threads), sorted(threads, reverse=True)
    many_minutes = "" if full else "takes many minutes: only with --full"

    def timed(name: str, limit: int, n: int = most) -> Step:
        return Step(name, limit, timed=True, threads=n)

    return [
        Step("environment", 30, threads=most),
        Step("gate", 240, threads=most),
        Step("weights", 90, threads=most),
        timed("load", 240),
        *(Step(f"read {n}", 30, threads=n) for n in each),
        *(timed(f"linear {n}", 120, n) for n in each),
        # One process per case, for the memory that it takes.
        timed(f"clips small int8 {most}", 240),
        Step("peers small", 600, threads=most),
        *(timed(f"decode {size} {n}", 180, n) for size in ("small", "large") for n in each),
        *(timed(f"stages {size} {most}", 240) for size in ("small", "large")),
        *(
            timed(f"clips small {dtype} {n}", 200, n)
            for n in each
            for dtype in ("bfloat16", "float32", "int4", "int8")
            if (dtype, n) != ("int8", most)
        ),
        timed(f"clips large int8 {most}", 240),
        *(timed(f"busy cpu {n}", 150, n) for n in each),
        timed(f"busy torch {most}", 150),
        timed("batch", 60),
        timed("serving", 700),
        timed("streaming", 300),
        timed("book", 120),
        timed("history", 90),
        timed("profile", 120),
        Step("gate large", 240, threads=most),
        Step("peers large", 1500, threads=most, left_out=many_minutes),
        *(
            timed(f"clips large {dtype} {n}", 300 if n > 1 else 450, n)
            for n in each
            for dtype in ("bfloat16", "int4", "float32", "int8")
            if (dtype, n) != ("int8", most)
        ),
    ]
