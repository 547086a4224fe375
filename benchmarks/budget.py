"""The steps of `make gpu`, in the order of their worth, and how long each may take."""

from dataclasses import dataclass

# Everything together, in seconds, and what is kept of it to write the results.
TOTAL = 525
RESERVE = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Args:
        name: of the step, its log and, if it is one, the section.
        limit: seconds it may take; less when the time for everything is nearly spent.
        timed: whether it prints times, so that it needs an open gate and the device for itself.
    """

    name: str
    limit: int
    timed: bool = False


# Beside one another: they only check and prepare.
CHECKS = (
    Step("gate", 150),
    Step("tests", 150),
    Step("weights", 120),
    Step("sanitizer", 145),
    Step("compile large", 150),
    Step("compile large 32", 150),
    Step("compile small", 150),
    Step("compile batch", 150),
)
# One after the other, alone on the device.
SECTIONS = (
    Step("bandwidth", 25),
    Step("decode", 70, timed=True),
    Step("end_to_end", 65, timed=True),
    Step("batch", 50, timed=True),
    Step("peers", 75),
    Step("profile", 25, timed=True),
    Step("stages", 25, timed=True),
)
ENVIRONMENT = Step("environment", 30)


def worst_case() -> int:
    """Seconds if every step took its limit."""
    return ENVIRONMENT.limit + max(step.limit for step in CHECKS) + sum(step.limit for step in SECTIONS) + RESERVE
