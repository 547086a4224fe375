"""A model of a whole decode step: kernels one after the other, their boundaries, and the bytes that they load.

Times in microseconds, sizes in MB (a million bytes).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

# When a kernel's loads may begin: while earlier kernels run, or when its predecessor has ended.
AHEAD, AT_THE_END = "loads ahead", "loads begin when the predecessor ends"


@dataclass(frozen=True)
class Device:
    """A GPU.

    Args:
        read: memory bandwidth, measured or expected, MB per us; kernels reach `share` of it.
        l2: bandwidth of the L2 cache, MB per us.
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
        before: us from the end of the wait until these bytes are needed; if not `ahead`, until they are requested.
        after: us from then on, or from their arrival.
        room: share of a multiprocessor that its blocks occupy.
        ahead: whether it requests the bytes before the wait.
        l2_from: the kernel this many launches earlier prefetches them into the L2 cache; 0 for none.
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
        boundary: time from the end of one to the end of the next one's wait.
        loads: AHEAD or AT_THE_END.
        launch: time from when a kernel's blocks fit to its first load; `apart`: least time between two such starts.
    """

    device: Device
    boundary: float
    loads: str
    launch: float = 0.4
    apart: float = 0.05

    def step(self, stages: Sequence[Stage], steps: int = 3) -> float:
        """Time of one step: the mean of several in a row, without the first."""
        ends = list(self._run(list(stages) * steps))
        of_steps = ends[len(stages) - 1 :: len(stages)]
        return (of_steps[-1] - of_steps[0]) / (steps - 1)

    def _run(self, stages: Sequence[Stage]) -> Iterator[float]:
        """The end time of each kernel."""
        device = self.device
        rate = device.read * device.share
        # `memory`: when the memory has delivered all that was requested so far.
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
        """When a kernel's loads begin: when its blocks fit beside those of the kernels before it."""
        used, free = sum(room for _, room in resident), 0.0
        while resident and used + stage.room > 1:
            free, room = resident.popleft()
            used -= room
        return max(free + self.launch, starts[-1] + self.apart if starts else 0.0)


def brought_to_l2(stages: Sequence[Stage], launches: int, names: frozenset[str]) -> list[Stage]:
    """The same stages, with the bytes of the kernels in `names` prefetched into L2 `launches` launches earlier."""
    return [replace(stage, l2_from=launches) if stage.name in names else stage for stage in stages]
