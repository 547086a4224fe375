"""The loads of a kernel from global memory, and which loads depend on which."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from tools.step_model.sass import BRANCHES, PARAMETERS, Code, Instruction
from tools.step_model.trace import Path, follow

UNKNOWN = "?"


@dataclass(frozen=True)
class Kernel:
    """A kernel as a step launches it.

    Args:
        parameters: offset in the constant bank -> name, for pointers.
        arguments: offset -> value, for the others.
    """

    code: Code
    parameters: Mapping[int, str] = field(default_factory=dict)
    arguments: Mapping[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's name as in the source."""
        return self.code.name.strip("_").removesuffix("_kernel")

    @cached_property
    def path(self) -> Path:
        """The path of a warp."""
        return follow(self.code, self.arguments)

    def name_of(self, offsets: Set[int]) -> str:
        """The tensor whose address is computed from these parameters."""
        names = {self.parameters.get(offset, "") for offset in offsets} - {""}
        return "/".join(sorted(names)) or UNKNOWN


@dataclass
class Value:
    """What is known of a register's content.

    Args:
        depth: length of the longest chain of loads after the wait that it depends on.
        loaded: the tensors at the end of such chains.
        origins: parameters that it was computed from without a load.
    """

    depth: int = 0
    loaded: frozenset[str] = frozenset()
    origins: frozenset[int] = frozenset()

    def __or__(self, other: "Value") -> "Value":
        depth = max(self.depth, other.depth)
        loaded = frozenset().union(*(v.loaded for v in (self, other) if v.depth == depth))
        return Value(depth, loaded, self.origins | other.origins)


@dataclass(frozen=True)
class Load:
    """A load of global memory on the path.

    Args:
        tensor: what is loaded; UNKNOWN if its address is not computed from a parameter.
        depth: 1 if it depends on no other load after the wait.
        behind: the tensors whose loads it depends on.
    """

    step: int
    instruction: Instruction
    tensor: str
    depth: int
    behind: frozenset[str]


def loads_of(kernel: Kernel) -> list[Load]:
    """The loads on a kernel's path, in order; those before the wait have depth 0."""
    found: list[Load] = []
    held: dict[str, Value] = {}
    # Shared memory as one value, and the conditions of all branches so far, on which every later load depends.
    shared, passed = Value(), Value()
    path = kernel.path
    for step, i in enumerate(path.steps):
        instruction = path.code.instructions[i]
        waited = step >= path.wait > 0
        value = Value(origins=frozenset(o for o in instruction.parameters if o >= PARAMETERS))
        for name in instruction.reads:
            value |= held.get(name, Value())
        if instruction.base in BRANCHES or instruction.base == "EXIT":
            passed |= Value(value.depth, value.loaded)
        if instruction.base in ("STS", "ATOMS"):
            shared |= Value(value.depth, value.loaded)
        elif instruction.base in ("LDS", "LDSM"):
            value |= shared
        if instruction.is_load or instruction.base in ("ATOM", "ATOMG"):
            before = Value(value.depth, value.loaded) | passed
            tensor = kernel.name_of(value.origins)
            depth = before.depth + 1 if waited else 0
            if instruction.is_load:
                found.append(Load(step, instruction, tensor, depth, before.loaded))
            value = Value(depth, frozenset({tensor}) if depth else frozenset())
            if instruction.base in ("UBLKCP", "LDGSTS"):
                shared |= value
        for name in instruction.writes:
            old = held.get(name, Value()) if instruction.guard else Value()
            # If a guarded instruction may overwrite an address, the old one's origins do not matter.
            held[name] = Value(old.depth, old.loaded) | value
    return found
