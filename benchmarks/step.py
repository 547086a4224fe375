"""What a run is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One process with a time limit.

    Args:
        name: of the step, its log and, if it is one, the section; what follows a blank is the part of the section.
        limit: seconds it may take; less when the time for everything is nearly spent.
        timed: whether it prints times, so that it needs an open gate and the device for itself.
        threads: of the CPU that it works with; 0 leaves that to the libraries.
    """

    name: str
    limit: int
    timed: bool = False
    threads: int = 0

    @property
    def section(self) -> str:
        return self.name.partition(" ")[0]
