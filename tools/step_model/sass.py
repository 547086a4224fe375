"""The machine code (SASS) of a cubin: instructions with their registers and control codes, as nvdisasm prints them."""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

# Where the arguments of a kernel begin in constant bank 0, on compute capability 9.0.
PARAMETERS = 0x210
NO_BARRIER = 7

_REGISTER = re.compile(r"(?<![A-Za-z_0-9])(UR|UP|R|P)(\d+)(\.64)?")
_WORD = re.compile(r"\s+/\*([0-9a-f]{4,5})\*/\s+(.*?);\s+/\* (0x[0-9a-f]{16}) \*/")
_SECOND_WORD = re.compile(r"\s+/\* (0x[0-9a-f]{16}) \*/")
_TEXT = re.compile(r"(?:@(!?U?P\w+)\s+)?(\S+)\s*(.*)")
_PREDICATE = re.compile(r"U?P(?:\d|T)$")
_PLAIN = re.compile(r"U?[RP](?:\d+|Z|T)(?:\.64)?$")
# Operations without a result in a register.
_NO_RESULT = {
    *("BRA", "BRX", "JMP", "CALL", "RET", "EXIT", "NOP", "BAR", "BSSY", "BSYNC", "BREAK", "WARPSYNC", "YIELD"),
    *("ST", "STG", "STS", "STL", "RED", "REDG", "MEMBAR", "FENCE", "CCTL", "ERRBAR", "DEPBAR", "LDGDEPBAR", "LDGSTS"),
    *("PREEXIT", "ACQBULK", "UBLKCP", "UBLKPF", "UBLKRED", "NANOSLEEP", "BPT", "KILL", "WARPGROUP", "UTMALDG"),
}
# Operations that may have two results: first a predicate, then a register.
_PREDICATE_FIRST = {"LOP3", "ULOP3", "SHFL", "ATOM", "ATOMG", "ATOMS", "ELECT", "R2UR", "MATCH"}
LOADS = {"LDG", "LD", "UBLKCP", "LDGSTS"}
STORES = {"STG", "ST", "RED", "REDG", "ATOM", "ATOMG"}
BRANCHES = {"BRA", "BRX", "JMP"}


@dataclass(frozen=True)
class Control:
    """An instruction's control code for the scheduler.

    Args:
        stall: cycles until the warp's next instruction may issue.
        write_barrier: which of six barriers is released when the result is available; NO_BARRIER for none.
        read_barrier: the one that is released when the operands have been read.
        waits: the barriers that must have been released before it issues.
    """

    stall: int
    write_barrier: int
    read_barrier: int
    waits: frozenset[int]

    @classmethod
    def decode(cls, word: int) -> "Control":
        """Decode the upper 64 bits of an instruction."""
        bits = word >> 41
        waits = frozenset(i for i in range(6) if bits >> (11 + i) & 1)
        return cls(bits & 15, bits >> 5 & 7, bits >> 8 & 7, waits)


@dataclass(frozen=True)
class Instruction:
    """One of a kernel's instructions.

    Args:
        guard: predicate under which it runs, such as "P0" or "!P1"; empty if always.
        opcode: with its modifiers, such as "LDG.E.128".
        target: address that it may branch to.
    """

    address: int
    guard: str
    opcode: str
    operands: tuple[str, ...]
    control: Control
    target: int | None = None

    @cached_property
    def base(self) -> str:
        """The operation without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def is_load(self) -> bool:
        """Whether it loads global memory."""
        return self.base in LOADS

    @property
    def is_strong(self) -> bool:
        """Whether such a load bypasses L1; bulk copies always do."""
        return self.base == "UBLKCP" or ".STRONG.GPU" in self.opcode or ".STRONG.SYS" in self.opcode

    @property
    def width(self) -> int:
        """Bytes per thread of a load or store."""
        sizes = {"128": 16, "64": 8, "U8": 1, "S8": 1, "U16": 2, "S16": 2}
        return next((sizes[part] for part in self.opcode.split(".") if part in sizes), 4)

    @cached_property
    def writes(self) -> frozenset[str]:
        """Registers and predicates that hold its results."""
        names: set[str] = set()
        for position in range(self._results):
            names |= _names(self.operands[position], self._result_width)
        if self.base == "R2P":
            names |= {f"P{i}" for i in range(7)}
        return frozenset(names)

    @cached_property
    def reads(self) -> frozenset[str]:
        """Registers and predicates that it reads, its guard included."""
        names = set(_names(self.guard, 1))
        for position, operand in enumerate(self.operands[self._results :]):
            data = self.base in ("STG", "ST", "STS", "STL") and position == 1
            pairs = self.base in ("UBLKCP", "UBLKPF") and operand.startswith("[")
            names |= _names(operand, max(1, self.width // 4) if data else 2 if pairs else 1)
        return frozenset(names)

    @property
    def parameters(self) -> list[int]:
        """Offsets in the constant bank that it reads."""
        return [int(found, 16) for operand in self.operands for found in re.findall(r"c\[0x0\]\[(0x\w+)\]", operand)]

    @cached_property
    def _results(self) -> int:
        """How many operands, from the first, are results."""
        if self.base in _NO_RESULT or not self.operands or not _PLAIN.match(self.operands[0]):
            return 0
        rest, count = self.operands[1:], 1
        if _PREDICATE.match(self.operands[0]):
            second = bool(rest) and (
                bool(_PREDICATE.match(rest[0]) and self.base != "FCHK")
                or bool(_PLAIN.match(rest[0]) and self.base in _PREDICATE_FIRST)
            )
            return 1 + second
        for operand in rest:
            # Further predicate results, such as carries; a vote's second predicate is its input.
            if not _PREDICATE.match(operand) or (self.base in ("VOTE", "VOTEU") and count == 2):
                break
            count += 1
        return count

    @property
    def _result_width(self) -> int:
        """Number of registers of a result."""
        parts = self.opcode.split(".")
        if self.base in ("LDG", "LD", "LDS", "LDC", "ULDC", "LDL"):
            return max(1, self.width // 4)
        if self.base == "LDSM":
            return int(parts[-1]) if parts[-1].isdigit() else 1
        if self.base == "HMMA":
            return 4 if "F32" in parts else 2
        pair = "WIDE" in parts or "64" in parts or "F64" in parts[1:2] or self.base in ("DADD", "DMUL", "DFMA")
        return 2 if pair or (self.base == "CS2R" and "32" not in parts) else 1

    def __str__(self) -> str:
        return f"{self.opcode} at 0x{self.address:04x}"


@dataclass(frozen=True)
class Code:
    """A kernel.

    Args:
        registers: per thread.
        stack_bytes, local_bytes: memory per thread.
        shared_bytes: static shared memory per block.
        threads: the most that a block may have, if the source sets launch bounds; else 0.
    """

    name: str
    instructions: tuple[Instruction, ...]
    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    threads: int

    @cached_property
    def index(self) -> dict[int, int]:
        """Address -> position."""
        return {instruction.address: i for i, instruction in enumerate(self.instructions)}

    def successors(self, i: int) -> list[int]:
        """Positions that may follow instruction i, the fall-through first; none after the end."""
        instruction = self.instructions[i]
        following = [i + 1] if i + 1 < len(self.instructions) else []
        if instruction.base in BRANCHES:
            if instruction.target is None:
                raise ValueError(f"{self.name}: {instruction} goes to where only the device knows")
            jumps = [self.index[instruction.target]]
            return jumps if is_certain(instruction) else [*following, *jumps]
        if instruction.base in ("EXIT", "RET", "KILL") and is_certain(instruction):
            return []
        return following


def is_certain(instruction: Instruction) -> bool:
    """Whether a branch or exit is unconditional."""
    return (
        instruction.guard in ("", "PT", "UPT")
        and ".DIV" not in instruction.opcode
        and not any(_PREDICATE.match(operand.lstrip("!")) for operand in instruction.operands)
    )


@cache
def read_cubin(cubin: bytes, tools: Path) -> dict[str, Code]:
    """The kernels of a cubin by name.

    Args:
        tools: folder of nvdisasm and cuobjdump.

    Raises: CalledProcessError if they fail.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = _run(tools / "nvdisasm", "-c", "-hex", file.name)
        usage = _run(tools / "cuobjdump", "--dump-resource-usage", file.name)
        threads = dict(_threads(_run(tools / "cuobjdump", "-elf", file.name)))
    kernels = {}
    for name, numbers in re.findall(r"Function (\w+):\n\s+(.*)", usage):
        sizes = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", numbers)}
        instructions = tuple(_instructions(text, name))
        sizes_by_name = (sizes["REG"], sizes["STACK"], sizes["LOCAL"], sizes["SHARED"])
        kernels[name] = Code(name, instructions, *sizes_by_name, threads.get(name, 0))
    return kernels


def _run(*command: str | Path) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def _threads(text: str) -> Iterator[tuple[str, int]]:
    """Threads per block by the launch bounds, for each kernel that has them."""
    for name, section in re.findall(r"^\.nv\.info\.(\w+)\n(.*?)(?=^\.|\Z)", text, re.DOTALL | re.MULTILINE):
        bounds = re.search(r"EIATTR_(?:MAX_THREADS|REQNTID)\n.*\n\s+Value:\s+(0x\w+) (0x\w+) (0x\w+)", section)
        if bounds:
            yield name, math.prod(int(value, 16) for value in bounds.groups())


def _instructions(text: str, name: str) -> Iterator[Instruction]:
    _, _, body = text.partition(f"\n.text.{name}:\n")
    body, _, _ = body.partition("\n.text.")
    parsed: list[tuple[int, str, int]] = []
    labels: dict[str, int] = {}
    pending: list[str] = []
    address, written = 0, ""
    for line in body.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            pending.append(label[1])
        elif first := _WORD.match(line):
            address, written = int(first[1], 16), first[2].strip()
        elif (second := _SECOND_WORD.match(line)) and written:
            labels.update(dict.fromkeys(pending, address))
            pending = []
            parsed.append((address, written, int(second[1], 16)))
            written = ""
    for address, written, word in parsed:
        found = _TEXT.match(written)
        assert found is not None
        guard, opcode, rest = found[1] or "", found[2], found[3]
        label = re.search(r"`\((\.L_\w+)\)", rest)
        operands = tuple(part.strip() for part in rest.split(",")) if rest else ()
        target = labels[label[1]] if label and opcode.partition(".")[0] in BRANCHES else None
        yield Instruction(address, guard, opcode, operands, Control.decode(word), target)


def _names(operand: str, width: int) -> set[str]:
    """Registers in an operand, each expanded to the `width` registers that start with it."""
    names = set()
    for kind, number, pair in _REGISTER.findall(operand):
        count = 1 if kind.endswith("P") else max(width, 2 if pair else 1)
        names |= {f"{kind}{int(number) + i}" for i in range(count)}
    return names
