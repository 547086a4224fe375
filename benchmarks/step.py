"""What a run is made of."""

from dataclasses import dataclass

# Why a step was not run that --only leaves out.
NOT_ASKED_FOR = "not asked for"


@dataclass(frozen=True, slots=True)
class Step:
    """One process with a time limit, or with kind="tests" several.

    Args:
        name: of the step, its log and, if it is one, the section; what follows a blank is the part of the section.
        limit: seconds it may take; less when the time for everything is nearly spent.
        timed: whether it prints times, so that it needs an open gate and the device for itself.
        threads: of the CPU that it works with; 0 leaves that to the libraries.
        kind: "section", "build" or "probe" (the CUDA program of probe.py), "tests" or "sanitizer".
        row_limit: seconds for one row of a section, which is then started again behind it; 0 is the section's limit.
        stretch: seconds more that it may take of those that earlier steps did not need.
    """

    name: str
    limit: int
    timed: bool = False
    threads: int = 0
    kind: str = "section"
    row_limit: int = 0
    stretch: int = 0

    @property
    def section(self) -> str:
        return self.name.partition(" ")[0]
