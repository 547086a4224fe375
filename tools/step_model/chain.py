"""A whole decode step, modelled: kernels one after the other, their boundaries, and the bytes that must come.

Times in microseconds, sizes in MB (a million bytes).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

# When a kernel's loads may begin: beside the kernels ahead of it, or when the one ahead has ended.
AHEAD, AT_THE_END = "loads ahead", "loads begin when the predecessor ends"


@dataclass(frozen=True)
class Device:
    """A GPU.

    Args:
        read: bytes that it was seen to read from its memory, or is expected to, MB per us; `share` of that is reached.
        l2: the same from its L2 cache.
        latency, l2_latency: of a load from memory, and from L2.
    """

    name: str
    read: float
    share: float = 0.97
    l2: float = 5.5
    latency: float = 0.9
    l2_latency: float = 0.15


H100 = Device("H100", 3.124)
H200 = Device("H200", 4.250)


@dataclass(frozen=True)
class Stage:
    """One kernel of a step.

    Args:
        megabytes: that it reads from memory.
        before: us after the wait until those are needed; where they are not asked for ahead, until they are asked for.
        after: us from there on, or from their arrival.
        room: share of a multiprocessor that its blocks take.
        ahead: whether it asks for the bytes before it waits.
        l2_from: the kernel so many launches before it has them brought into the L2 cache; 0 for none.
    """

    name: str
    megabytes: float
    before: float
    after: float
    room: float
    ahead: bool = True
    l2_from: int = 0


@dataclass(frozen=True)
class Chain:
    """How kernels follow one another.

    Args:
        boundary: from the end of one to the end of the next one's wait.
        loads: AHEAD or AT_THE_END.
        launch: from when there is room for a kernel to its first load; `apart` two such starts.
    """

    device: Device
    boundary: float
    loads: str
    launch: float = 0.4
    apart: float = 0.05

    def step(self, stages: Sequence[Stage], steps: int = 3) -> float:
        """Time of one step: the mean of several in a row, but for the first."""
        ends = list(self._run(list(stages) * steps))
        of_steps = ends[len(stages) - 1 :: len(stages)]
        return (of_steps[-1] - of_steps[0]) / (steps - 1)

    def _run(self, stages: Sequence[Stage]) -> Iterator[float]:
        """When each ends."""
        device = self.device
        rate = device.read * device.share
        # Of memory: when it is done with all that was asked for so far.
        memory, end = 0.0, 0.0
        starts: list[float] = []
        resident: deque[tuple[float, float]] = deque()
        for i, stage in enumerate(stages):
            waited = end + self.boundary
            start = self._start(stage, starts, resident) if self.loads == AHEAD else waited
            starts.append(start)
            asked = start if stage.ahead else waited + stage.before
            if stage.l2_from:
                memory = max(memory, starts[max(0, i - stage.l2_from)] + device.latency) + stage.megabytes / rate
                arrival = max(memory, asked + device.l2_latency) + stage.megabytes / device.l2
            else:
                memory = arrival = max(memory, asked + device.latency) + stage.megabytes / rate
            end = max(waited + stage.before, arrival) + stage.after
            resident.append((end, stage.room))
            yield end

    def _start(self, stage: Stage, starts: Sequence[float], resident: deque[tuple[float, float]]) -> float:
        """When a kernel's loads begin, if its blocks fit beside those of the kernels ahead."""
        used, free = sum(room for _, room in resident), 0.0
        while resident and used + stage.room > 1:
            free, room = resident.popleft()
            used -= room
        return max(free + self.launch, starts[-1] + self.apart if starts else 0.0)


def brought_to_l2(stages: Sequence[Stage], launches: int, names: frozenset[str]) -> list[Stage]:
    """The same with the weights of some kernels brought into L2 by the kernel so many launches before."""
    return [replace(stage, l2_from=launches) if stage.name in names else stage for stage in stages]
