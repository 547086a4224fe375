"""The steps of `make cpu`, in the order of their worth, and how long each may take."""

from benchmarks.step import Step

# Everything together, in seconds, without and with what only --full measures; and what is kept to write the results.
TOTAL = 25 * 60
FULL_TOTAL = 60 * 60
RESERVE = 5
# What --full adds.
FULL = ("peers large",)

DTYPES = ("float32", "bfloat16", "int8", "int4")


def count_threads(cores: int) -> tuple[int, ...]:
    """How many threads are measured with: one, and one per core."""
    return tuple(sorted({1, cores}))


def plan_smoke(threads: tuple[int, ...]) -> list[Step]:
    """One step of each section."""
    found: dict[str, Step] = {}
    for step in plan_steps(threads[:1]):
        found.setdefault(step.section, step)
    return list(found.values())


def plan_steps(threads: tuple[int, ...]) -> list[Step]:
    """Checks first, then what the targets are set for, then the rest; the most threads before fewer."""
    most = max(threads)
    steps = [
        Step("environment", 30, threads=most),
        Step("gate", 240, threads=most),
        Step("weights", 90, threads=most),
    ]
    steps.append(Step("load", 240, timed=True, threads=most))
    each = sorted(threads, reverse=True)
    steps += [Step(f"read {n}", 30, threads=n) for n in each]
    steps += [Step(f"linear {n}", 120, timed=True, threads=n) for n in each]
    # One process per case, for the memory that it takes.
    steps.append(Step(f"clips small int8 {most}", 240, timed=True, threads=most))
    steps.append(Step("peers small", 600, threads=most))
    steps += [Step(f"decode {size} {n}", 180, timed=True, threads=n) for size in ("small", "large") for n in each]
    steps += [Step(f"stages {size} {most}", 240, timed=True, threads=most) for size in ("small", "large")]
    steps += [
        Step(f"clips small {dtype} {n}", 200, timed=True, threads=n)
        for n in each
        for dtype in ("bfloat16", "float32", "int4", "int8")
        if (dtype, n) != ("int8", most)
    ]
    steps.append(Step(f"clips large int8 {most}", 240, timed=True, threads=most))
    steps += [Step(f"busy cpu {n}", 150, timed=True, threads=n) for n in each]
    steps.append(Step(f"busy torch {most}", 150, timed=True, threads=most))
    steps.append(Step("batch", 60, timed=True, threads=most))
    steps.append(Step("serving", 700, timed=True, threads=most))
    steps.append(Step("streaming", 300, timed=True, threads=most))
    steps.append(Step("book", 120, timed=True, threads=most))
    steps.append(Step("history", 90, timed=True, threads=most))
    steps.append(Step("profile", 120, timed=True, threads=most))
    steps.append(Step("accuracy", 120, threads=most))
    steps.append(Step("ablation", 60, threads=most))
    steps.append(Step("peers large", 1500, threads=most))
    steps += [
        Step(f"clips large {dtype} {n}", 300 if n > 1 else 450, timed=True, threads=n)
        for n in each
        for dtype in ("bfloat16", "int4", "float32", "int8")
        if (dtype, n) != ("int8", most)
    ]
    return steps
