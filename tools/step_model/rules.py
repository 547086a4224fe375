"""Rules for the machine code of a step's kernels after the wait for the previous kernel (PDL), and resource limits.

A load from the L2 cache takes a third of such a kernel's time. Independent loads cost one such round trip together; a
load whose address depends on another load, or that is issued after the use of another, costs a second one. The
compiler decides the order, so it is read from the machine code.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tools.step_model.loads import UNKNOWN, Kernel, Load, loads_of
from tools.step_model.sass import BRANCHES, Code, Instruction
from tools.step_model.trace import Path

REGISTERS = 64
# Tensors that no kernel of a step writes: they may be loaded through L1.
CONSTANT = frozenset(
    {
        *("weight", "scale", "bias", "norm_weight", "norm_bias", "head", "wte", "wpe", "slices", "rows", "ahead"),
        *("gains", "offsets", "scales", "biases"),
    }
)
RULES = {
    "wait": "a kernel waits for the previous one",
    "trigger": "the next kernel is triggered before the first load",
    "dependent": "no load after the wait depends on another",
    "trips": "what is loaded after the wait is waited for once",
    "L1": "what kernels write is loaded past L1",
    "branch": "no branch between the wait and the first barrier skips a load",
    "call": "nothing is called",
    "registers": f"at most {REGISTERS} registers, no stack, no spill",
}


@dataclass(frozen=True)
class Violation:
    """A rule that a kernel breaks.

    Args:
        rule: one of RULES.
        detail: where and how.
    """

    rule: str
    kernel: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kernel}: {RULES[self.rule]}: {self.detail}"


@dataclass(frozen=True)
class Allowed:
    """Exceptions from the rules for a kernel.

    Args:
        dependent: (tensor, tensor that it may depend on) -> why.
        trips: how often it may stall for loads, and why, if `dependent` does not explain it.
        branches: tensor whose load may be skipped -> why.
        calls: why it may contain calls.
        registers: how many it may use, and why.
    """

    dependent: Mapping[tuple[str, str], str] = field(default_factory=dict)
    trips: tuple[int, str] = (1, "")
    branches: Mapping[str, str] = field(default_factory=dict)
    calls: str = ""
    registers: tuple[int, str] = (REGISTERS, "")


def check(kernel: Kernel, trips: int, allowed: Allowed | None = None) -> list[Violation]:
    """The rules that a kernel breaks.

    Args:
        trips: see `cycles.Timing`.
    """
    allowed = allowed or Allowed()
    code, loads = kernel.code, loads_of(kernel)
    violations = [
        *_check_start(kernel, loads),
        *_check_dependent(kernel, loads, allowed.dependent),
        *_check_l1(kernel, loads),
        *_check_branches(kernel, loads, allowed.branches),
    ]

    def add(rule: str, detail: str) -> None:
        violations.append(Violation(rule, kernel.name, detail))

    if trips > allowed.trips[0]:
        add("trips", f"{trips} times")
    calls = [i for i in code.instructions if i.base == "CALL"]
    if calls and not allowed.calls:
        add("call", f"{calls[0]}, {len(calls)} in all")
    if code.registers > allowed.registers[0]:
        add("registers", f"{code.registers} registers")
    if code.stack_bytes or code.local_bytes:
        add("registers", f"{code.stack_bytes} bytes of stack, {code.local_bytes} of local memory")
    return violations


def _check_start(kernel: Kernel, loads: list[Load]) -> Iterator[Violation]:
    path, name = kernel.path, kernel.name
    if not path.wait:
        yield Violation("wait", name, "there is no ACQBULK on its path")
    bases = [path.code.instructions[i].base for i in path.steps]
    if "PREEXIT" not in bases:
        yield Violation("trigger", name, "there is no PREEXIT on its path")
    elif loads and loads[0].step < bases.index("PREEXIT"):
        first = loads[0]
        yield Violation("trigger", name, f"{first.tensor} by {first.instruction} comes first")


def _check_dependent(
    kernel: Kernel, loads: list[Load], dependent: Mapping[tuple[str, str], str]
) -> Iterator[Violation]:
    found: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Instruction] = {}
    for load in loads:
        if load.depth > 1:
            for other in load.behind:
                found[load.tensor, other] += 1
                first.setdefault((load.tensor, other), load.instruction)
    for (tensor, other), count in found.items():
        if (tensor, other) not in dependent:
            where = first[tensor, other]
            detail = f"{tensor} ({where}, {count} in all) depends on {other}"
            yield Violation("dependent", kernel.name, detail)


def _check_l1(kernel: Kernel, loads: list[Load]) -> Iterator[Violation]:
    on_path = {load.instruction.address: load.tensor for load in loads}
    weak: dict[str, list[Instruction]] = {}
    for i in sorted(reachable(kernel.path)):
        instruction = kernel.code.instructions[i]
        # Loads off the path have no known tensor.
        tensor = on_path.get(instruction.address, UNKNOWN)
        if instruction.is_load and not instruction.is_strong and not set(tensor.split("/")) <= CONSTANT:
            weak.setdefault(tensor, []).append(instruction)
    for tensor, found in weak.items():
        yield Violation("L1", kernel.name, f"{tensor} ({found[0]}, {len(found)} in all)")


def _check_branches(kernel: Kernel, loads: list[Load], allowed: Mapping[str, str]) -> Iterator[Violation]:
    path, code = kernel.path, kernel.code
    if not path.wait:
        return
    for step in range(path.wait, len(path.steps) - 1):
        i = path.steps[step]
        instruction = code.instructions[i]
        if instruction.base == "BAR":
            return
        jumps = instruction.base in BRANCHES or instruction.base == "EXIT"
        if not jumps or not instruction.reads or i in path.decided:
            continue
        # The successors that the path does not take; None is the end.
        ways: set[int | None] = set(code.successors(i)) | ({None} if instruction.base == "EXIT" else set())
        others = ways - {path.steps[step + 1]}
        later = (load for load in loads if load.step > step and load.tensor not in allowed)
        skipped = [
            load.tensor
            for load in later
            if any(other is None or _ends_without(code, other, path.steps[load.step]) for other in others)
        ]
        if skipped:
            yield Violation("branch", kernel.name, f"{instruction} skips {', '.join(dict.fromkeys(skipped))}")


def _ends_without(code: Code, start: int, avoided: int) -> bool:
    """Whether the kernel can end from `start` on without running instruction `avoided`."""
    pending, seen = [start], {avoided}
    while pending:
        i = pending.pop()
        if i in seen:
            continue
        seen.add(i)
        if code.instructions[i].base in ("EXIT", "RET"):
            return True
        pending += code.successors(i)
    return False


def reachable(path: Path) -> set[int]:
    """The instructions that may run after the wait, without those that constants rule out."""
    code = path.code
    pending = [path.steps[path.wait]] if path.wait and path.wait < len(path.steps) else []
    seen: set[int] = set()
    while pending:
        i = pending.pop()
        if i in seen:
            continue
        seen.add(i)
        following = code.successors(i)
        if i in path.decided and len(following) == 2:
            following = following[1:] if path.decided[i] else following[:1]
        pending += following
    return {i for i in seen if path.decided.get(i, True)}
