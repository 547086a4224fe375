"""What a kernel loads from global memory, and which loads had to wait for which."""

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
        """Of the function, as its author calls it."""
        return self.code.name.strip("_").removesuffix("_kernel")

    @cached_property
    def path(self) -> Path:
        """What a warp of it runs."""
        return follow(self.code, self.arguments)

    def name_of(self, offsets: Set[int]) -> str:
        """The tensor whose address is made from these parameters."""
        names = {self.parameters.get(offset, "") for offset in offsets} - {""}
        return "/".join(sorted(names)) or UNKNOWN


@dataclass
class Value:
    """What is known of a register's content.

    Args:
        depth: longest chain of loads after the wait that it comes from.
        loaded: the tensors at the end of such chains.
        origins: parameters that it was made from without a load.
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
        tensor: what is loaded; UNKNOWN where its address does not come from a parameter alone.
        depth: 1 if nothing after the wait has to be loaded before it.
        behind: the tensors that have.
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
    # Of shared memory as a whole, and of the branches passed so far: what is loaded after them had to wait for them.
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
            # What an address that may be replaced was made from does not matter.
            held[name] = Value(old.depth, old.loaded) | value
    return found
