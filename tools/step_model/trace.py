"""The instructions that one warp runs, from the first to the last store, as far as the code alone tells.

Constants and arguments are propagated, and decide the branches that depend on nothing else. At other branches the path
falls through (`if` is compiled as a jump over its body; a loop ends after its first iteration; of two branches the
longer is taken), unless that leads into a slow path, to an end without a store, or into the unrolled loop that follows
the loop of the remaining iterations.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.step_model.sass import BRANCHES, STORES, Code, Instruction, is_certain

LIMIT = 200_000
# Most instructions between the end of the loop of the remaining iterations and the jump over the unrolled one.
NEAR = 8
_MASK = 2**32 - 1
_COMPARE = {
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Path:
    """One path through a kernel.

    Args:
        steps: positions in the code, in execution order.
        decided: guarded instruction -> whether it runs, where constants decide that.
        wait: number of steps up to and including ACQBULK, which is PDL's wait; 0 without one.
    """

    code: Code
    steps: tuple[int, ...]
    decided: Mapping[int, bool]
    wait: int

    @property
    def before(self) -> list[Instruction]:
        """The instructions up to the end of the wait."""
        return [self.code.instructions[i] for i in self.steps[: self.wait]]

    @property
    def after(self) -> list[Instruction]:
        """The instructions from the wait to the last store."""
        return [self.code.instructions[i] for i in self.steps[self.wait :]]


def follow(code: Code, arguments: Mapping[int, int]) -> Path:
    """The path of a warp through a kernel.

    Args:
        arguments: offset in the constant bank -> its 32-bit value, where known.

    Raises: ValueError if a branch's target is not in the code, or the path does not end.
    """
    known: dict[str, int] = {}
    steps: list[int] = []
    outcomes: dict[int, set[bool]] = {}
    i: int | None = 0
    while i is not None:
        if len(steps) == LIMIT:
            raise ValueError(f"{code.name}: no end after {LIMIT} instructions")
        instruction = code.instructions[i]
        runs = _guard(instruction.guard, known)
        if not is_certain(instruction) and runs is not None and ".DIV" not in instruction.opcode:
            outcomes.setdefault(i, set()).add(runs)
        if runs is False:
            i += 1
            continue
        if instruction.base != "CALL":
            steps.append(i)
            _learn(instruction, runs, known, arguments)
        i = _next(code, i, runs)
    return _cut(code, steps, {i: found.pop() for i, found in outcomes.items() if len(found) == 1})


def _cut(code: Code, steps: list[int], decided: dict[int, bool]) -> Path:
    """The path without the instructions after the last store."""
    bases = [code.instructions[i].base for i in steps]
    last = max((n for n, base in enumerate(bases) if base in STORES), default=len(steps) - 1)
    wait = bases.index("ACQBULK") + 1 if "ACQBULK" in bases else 0
    return Path(code, tuple(steps[: max(last + 1, wait)]), decided, wait)


def _next(code: Code, i: int, runs: bool | None) -> int | None:
    """The position after instruction i on the path; None at its end."""
    instruction = code.instructions[i]
    following = i + 1 if i + 1 < len(code.instructions) else None
    ends = instruction.base in ("EXIT", "RET", "KILL")
    if instruction.base not in BRANCHES and not ends:
        return following
    taken = is_certain(instruction) or (runs is True and ".DIV" not in instruction.opcode)
    undecided = not taken and runs is None
    if ends:
        return None if taken or (undecided and _leads_astray(code, i, None)) else following
    if instruction.target is None:
        raise ValueError(f"{code.name}: {instruction} goes to where only the device knows")
    target = code.index[instruction.target]
    if undecided and target > i:
        taken = _leads_astray(code, i, target) or _follows_a_loop(code, i) or _is_longer(code, i, target)
    return target if taken else following


def _leads_astray(code: Code, start: int, target: int | None) -> bool:
    """Whether falling through leads to a call (slow path), another iteration or the end, before `target` or a store."""
    i, straight = start + 1, True
    for _ in range(len(code.instructions)):
        if i == target or i >= len(code.instructions):
            return False
        instruction = code.instructions[i]
        if instruction.base == "CALL" and straight:
            return True
        if instruction.base in STORES:
            return False
        if instruction.base in ("EXIT", "RET") and is_certain(instruction):
            return True
        straight = straight and instruction.base not in BRANCHES
        i += 1
        if instruction.base in BRANCHES and is_certain(instruction) and instruction.target is not None:
            i = code.index[instruction.target]
            if i <= start:
                return True
    return False


def _is_longer(code: Code, i: int, target: int) -> bool:
    """Whether `target` is the longer of two branches that meet again or both end."""
    last = code.instructions[target - 1]
    if not is_certain(last):
        return False
    if last.base in BRANCHES and last.target is not None:
        return code.index[last.target] - target > target - i
    ends = (n for n in range(target, len(code.instructions)) if code.instructions[n].base == "EXIT")
    return (
        last.base == "EXIT"
        and next((n for n in ends if is_certain(code.instructions[n])), target) - target > target - i
    )


def _follows_a_loop(code: Code, i: int) -> bool:
    """Whether a jump directly follows the end of a loop, and therefore skips the same loop, unrolled."""
    for instruction in reversed(code.instructions[max(0, i - NEAR) : i]):
        if instruction.base in BRANCHES:
            return instruction.target is not None and instruction.target < instruction.address
    return False


def _guard(guard: str, known: Mapping[str, int]) -> bool | None:
    """Whether a guarded instruction runs; None if that is not known."""
    if not guard:
        return True
    name = guard.lstrip("!")
    value = 1 if name in ("PT", "UPT") else known.get(name)
    return None if value is None else bool(value) != guard.startswith("!")


def _learn(instruction: Instruction, runs: bool | None, known: dict[str, int], arguments: Mapping[int, int]) -> None:
    results = dict(_results(instruction, known, arguments)) if runs else {}
    for name in instruction.writes:
        if name in results:
            known[name] = results[name]
        else:
            known.pop(name, None)


def _results(
    instruction: Instruction, known: Mapping[str, int], arguments: Mapping[int, int]
) -> Iterator[tuple[str, int]]:
    """Results that follow from known values: moves, loop counters, comparisons."""
    opcode, operands = instruction.opcode, instruction.operands
    # Uniform instructions have the same names with a U in front.
    base = instruction.base.removeprefix("U")
    values = [_value(operand, known, arguments) for operand in operands[1:]]
    if base == "MOV" or opcode.startswith("IMAD.MOV"):
        yield from _known(operands[0], values[-1])
    elif base == "LDC" and instruction.parameters:
        words = [arguments.get(instruction.parameters[0] + 4 * n) for n in range(len(instruction.writes))]
        for name, word in zip(sorted(instruction.writes, key=lambda name: int(name.strip("UR"))), words, strict=True):
            yield from _known(name, word)
    elif base == "CS2R" and operands[1] == "SRZ":
        yield from ((name, 0) for name in instruction.writes)
    elif opcode == "HFMA2.MMA" and operands[1:3] == ("-RZ", "RZ"):
        halves = struct.pack("<ee", float(operands[4]), float(operands[3]))
        yield operands[0], struct.unpack("<I", halves)[0]
    elif (base == "IADD3" and len(operands) == 4 and opcode == instruction.base) or opcode == "VIADD":
        if None not in values:
            yield operands[0], sum(value for value in values if value is not None) & _MASK
    elif base == "ISETP" and operands[1] in ("PT", "UPT") and operands[4] in ("PT", "UPT"):
        parts = opcode.split(".")
        left, right = values[1], values[2]
        if "EX" in parts:
            # A 64-bit comparison: an earlier instruction has compared the lower halves.
            below = known.get(operands[5])
            if left is not None and right is not None and below is not None and parts[1] in ("EQ", "NE"):
                differs = left != right or bool(below) == (parts[1] == "NE")
                yield operands[0], int(differs == (parts[1] == "NE"))
        elif left is not None and right is not None and parts[1] in _COMPARE:
            if "U32" not in parts:
                left, right = _signed(left), _signed(right)
            yield operands[0], int(_COMPARE[parts[1]](left, right))
    elif opcode == "LOP3.LUT":
        # An optional first result is a predicate: whether any bit is set.
        *results, first, second, third, rows = operands[:-1]
        inputs_of = [_value(operand, known, arguments) for operand in (first, second, third)]
        if None not in inputs_of:
            value = _look_up(int(rows, 16), [bits for bits in inputs_of if bits is not None])
            yield results[-1], value
            if len(results) == 2:
                yield results[0], int(value != 0)
    elif base == "PLOP3" and len(operands) == 7:
        inputs = [_guard(operand, known) for operand in operands[2:5]]
        if None not in inputs:
            row = sum(bool(value) << (2 - n) for n, value in enumerate(inputs))
            yield operands[0], int(operands[5], 16) >> row & 1


def _look_up(rows: int, inputs: Sequence[int]) -> int:
    """Apply an 8-row truth table to each bit of three inputs."""
    value = 0
    for row in range(8):
        if rows >> row & 1:
            chosen = _MASK
            for place, bits in zip((4, 2, 1), inputs, strict=True):
                chosen &= bits if row & place else ~bits
            value |= chosen & _MASK
    return value


def _known(name: str, value: int | None) -> Iterator[tuple[str, int]]:
    if value is not None:
        yield name, value


def _value(operand: str, known: Mapping[str, int], arguments: Mapping[int, int]) -> int | None:
    """The 32 bits of an operand, if known."""
    name = operand.removesuffix(".reuse")
    negative = name.startswith("-")
    name = name.lstrip("-")
    value: int | None
    if name in ("RZ", "URZ"):
        value = 0
    elif name.startswith("0x"):
        value = int(name, 16)
    elif name.startswith("c[0x0][0x"):
        value = arguments.get(int(name[7:-1], 16))
    else:
        value = known.get(name)
    return value if value is None else (-value if negative else value) & _MASK


def _signed(value: int) -> int:
    return value - 2**32 if value >= 2**31 else value
