"""A model of a kernel's cycles after PDL's wait: one of a multiprocessor's four schedulers, which issues in order.

The model uses the control codes, how many cycles each instruction occupies its unit, and typical latencies. Memory has
a constant latency without contention, all warps take the same path, and a barrier waits only for warps of the same
scheduler. `calibration` compares modelled steps with measured ones.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tools.step_model.loads import Kernel, loads_of
from tools.step_model.sass import NO_BARRIER, Instruction

CLOCK_GHZ = 1.98
MULTIPROCESSORS = 132
SCHEDULERS = 4
# Cycles of an L2 hit, near or far partition, lightly loaded: an assumption close to published values for an H100.
L2 = 300
# A stall for a load that is at least this long counts as a round trip of its own.
TRIP = L2 // 2
BARRIER = 18
# Bytes of a bulk copy, as weight against the loads of single threads.
_COPIED = 16384
# Tensors loaded before the wait that are negligible beside a matrix or a cache.
SMALL = frozenset({"rows", "slices", "slots"})
OPERANDS_READ = 12
FIXED = 6
LATENCY = {
    **dict.fromkeys(("LDG", "LD", "LDGSTS", "ATOM", "ATOMG"), L2),
    **dict.fromkeys(("S2R", "S2UR", "MUFU", "FCHK", "I2F", "F2F"), 22),
    **{"LDS": 30, "LDSM": 33, "HMMA": 33, "LDC": 30, "SHFL": 24, "REDUX": 24, "SYNCS": 24, "STS": 20, "R2UR": 12},
}
_FMA = {"FFMA", "FADD", "FMUL", "IMAD", "HFMA2"}
_ALU = {
    *("SHF", "LOP3", "FSEL", "SEL", "PRMT", "ISETP", "IADD3", "FSETP", "FMNMX", "LEA", "VIADD", "VIMNMX", "PLOP3"),
    *("IABS", "R2P", "VIADDMNMX", "SGXT", "BMSK", "POPC", "CS2R", "MOV"),
}
_MIO = {"LDG", "STG", "SYNCS", "LDC", "S2R", "SHFL", "LDS", "STS", "LDSM", "REDUX"}
_XU = {"MUFU", "F2F", "I2F", "FCHK"}


@dataclass(frozen=True)
class Launch:
    """A kernel's launch configuration.

    Args:
        blocks: of the whole grid.
        threads: of a block.
        shared_bytes: of a block, dynamic ones included.
    """

    blocks: int
    threads: int
    shared_bytes: int = 0


@dataclass(frozen=True)
class Timing:
    """Cycles after the wait.

    Args:
        total: to the last store.
        before: until every load of the largest tensor that was loaded before the wait has been used once; if none was,
            to the first load of the largest tensor.
        after: from there on, or from its arrival, to the last store.
        trips: how often the first warp stalls for loads that it issued after the wait.
        ahead: whether that tensor was loaded before the wait.
    """

    total: int
    before: int
    after: int
    trips: int
    ahead: bool


def unit_of(instruction: Instruction) -> tuple[str, int]:
    """The unit that executes an instruction, and how many cycles the instruction occupies it."""
    base, parts = instruction.base, instruction.opcode.split(".")
    if base in ("LDS", "STS"):
        return "mio", max(4, instruction.width)
    if base == "LDSM":
        return "mio", 16 if parts[-1] == "4" else 8 if parts[-1] == "2" else 4
    if base == "HMMA":
        return "tensor", 16 if "16816" in parts else 8
    for units, name, cycles in ((_MIO, "mio", 4), (_FMA, "fma", 1), (_XU, "xu", 8), (_ALU, "alu", 2)):
        if base in units:
            return name, cycles
    return "other", 1


def per_multiprocessor(kernel: Kernel, launch: Launch) -> int:
    """Blocks that fit on a multiprocessor at once."""
    registers = -(-kernel.code.registers // 8) * 8 * launch.threads
    shared = launch.shared_bytes + 1024
    return max(1, min(65536 // registers, 2048 // launch.threads, 32, 227 * 1024 // shared))


def time_kernel(kernel: Kernel, launch: Launch) -> Timing:
    """Model one kernel."""
    blocks = min(-(-launch.blocks // MULTIPROCESSORS), per_multiprocessor(kernel, launch))
    warps = max(1, -(-launch.threads // 32 // SCHEDULERS)) * blocks
    after = kernel.path.after
    issued, trips = issue(after, warps, blocks)
    total = issued[-1] if issued else 0
    before, rest, ahead = _divide(kernel, issued, total)
    return Timing(total, before, rest, trips, ahead)


def _divide(kernel: Kernel, issued: Sequence[int], total: int) -> tuple[int, int, bool]:
    """Cycles before and after the largest tensor is needed, and whether it was loaded ahead."""
    wait = kernel.path.wait
    loads = loads_of(kernel)
    ahead = [load for load in loads if load.step < wait and load.tensor not in SMALL]
    sizes: Counter[str] = Counter()
    for load in ahead or loads:
        sizes[load.tensor] += _COPIED if load.instruction.base == "UBLKCP" else load.instruction.width
    if not sizes:
        return total, 0, True
    ((largest, _),) = sizes.most_common(1)
    steps = [load.step for load in ahead or loads if load.tensor == largest]
    if not ahead:
        first = issued[steps[0] - wait]
        return first, max(0, total - first - L2), False
    use = max((_first_use(kernel, step) for step in steps), default=0)
    return issued[use], total - issued[use], True


def _first_use(kernel: Kernel, request: int) -> int:
    """The first step after the wait, counted from it, that uses the result of `request`; the last step if none does."""
    path = kernel.path
    code = [path.code.instructions[i] for i in path.steps]
    held = set(code[request].writes)
    copied = code[request].base in ("UBLKCP", "LDGSTS")
    for step in range(request + 1, len(code)):
        instruction = code[step]
        if step >= path.wait and (held & instruction.reads or (copied and instruction.base == "SYNCS")):
            return step - path.wait
        if not instruction.guard:
            held -= instruction.writes
    return len(code) - 1 - path.wait


def issue(code: Sequence[Instruction], warps: int, blocks: int) -> tuple[list[int], int]:
    """The cycle at which the first warp issues each instruction, and how often it stalls for a load.

    Args:
        warps: number of warps of one scheduler.
        blocks: number of blocks that they belong to; a barrier holds the warps of one block.
    """
    scheduler = _Scheduler(code, warps, blocks)
    while scheduler.step():
        pass
    return scheduler.issued, scheduler.trips


class _Scheduler:
    """The state of one scheduler and its warps."""

    def __init__(self, code: Sequence[Instruction], warps: int, blocks: int) -> None:
        self.code, self.warps, self.blocks = code, warps, blocks
        self.units = [unit_of(instruction) for instruction in code]
        self.now, self.next = 0, 0
        self.at, self.ready, self.held = [0] * warps, [0] * warps, [False] * warps
        # When each of a warp's six scoreboard barriers is released; for the first warp also when a load releases it.
        self.falls = [[0] * 6 for _ in range(warps)]
        self.loads = [0] * 6
        self.busy: dict[str, int] = {}
        self.issued: list[int] = []
        self.trips = 0

    def step(self) -> bool:
        """Issue one instruction; False once all are."""
        turns = ((k, (self.next + k) % self.warps) for k in range(self.warps))
        waiting = [(max(self.now, self._earliest(w)), k, w) for k, w in turns if self._goes_on(w)]
        if not waiting:
            return False
        when, _, warp = min(waiting)
        self._issue(warp, when)
        return True

    def _goes_on(self, warp: int) -> bool:
        return self.at[warp] < len(self.code) and not self.held[warp]

    def _earliest(self, warp: int) -> int:
        """When the warp's next instruction can issue."""
        i = self.at[warp]
        barriers = max((self.falls[warp][b] for b in self.code[i].control.waits), default=0)
        unit, _ = self.units[i]
        return max(self.ready[warp], barriers, self.busy.get(unit, 0))

    def _issue(self, warp: int, when: int) -> None:
        i = self.at[warp]
        instruction, (unit, cycles) = self.code[i], self.units[i]
        control = instruction.control
        if warp == 0:
            self._count(instruction, when)
        if unit not in ("other", "fma"):
            self.busy[unit] = when + cycles
        latency = LATENCY.get(instruction.base, FIXED)
        if instruction.base in ("LDS", "LDSM", "SHFL"):
            latency += cycles
        falls = self.falls[warp]
        if control.write_barrier != NO_BARRIER:
            falls[control.write_barrier] = max(falls[control.write_barrier], when + latency)
        if control.read_barrier != NO_BARRIER:
            falls[control.read_barrier] = max(falls[control.read_barrier], when + OPERANDS_READ)
        self.ready[warp] = when + max(control.stall, 1)
        self.at[warp] += 1
        self.now, self.next = when + 1, warp + 1
        if instruction.base == "BAR":
            self._meet(warp, when)

    def _count(self, instruction: Instruction, when: int) -> None:
        control = instruction.control
        arrival = max((self.loads[b] for b in control.waits), default=0)
        if self.issued and arrival >= when and when - self.issued[-1] >= TRIP:
            self.trips += 1
        for b in control.waits:
            self.loads[b] = 0
        if instruction.is_load and control.write_barrier != NO_BARRIER:
            self.loads[control.write_barrier] = when + L2
        self.issued.append(when)

    def _meet(self, warp: int, when: int) -> None:
        """At a block's barrier: hold the warp until the last warp of its block arrives."""
        self.held[warp] = True
        own = [w for w in range(self.warps) if w % self.blocks == warp % self.blocks]
        if all(self.held[w] or self.at[w] == len(self.code) for w in own):
            for w in own:
                self.held[w] = False
                self.ready[w] = when + BARRIER


def microseconds(cycles: float) -> float:
    """Microseconds at the clock of an H100 or H200."""
    return cycles / CLOCK_GHZ / 1000
