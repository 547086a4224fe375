"""The steps of `make gpu`, in the order of their worth, and how long each may take."""

from benchmarks.step import Step

# Everything together, in seconds, and what is kept of it to write the results.
TOTAL = 525
RESERVE = 8


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
