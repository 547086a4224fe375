"""The networks of a scheduler's tasks: which each works with, who sits where, and what is on the device."""

from collections.abc import Iterable
from typing import Any

from barkfast.components import Components
from barkfast.engine.seating import Seating
from barkfast.engine.task import Task

# Stage -> the part whose network does its work.
COMPONENT_OF = {"semantic": "text", "coarse": "coarse", "fine": "fine", "codec": "codec"}
# The stages whose networks draw tokens, in the order in which they are stepped.
DECODED = ("coarse", "semantic")
# Stage -> a network, and the device that it works on.
Bound = dict[str, tuple[Any, str]]


class Networks:
    """Gives each task the networks that are loaded when it comes, for as long as it lasts.

    Where networks are loaded anew meanwhile, or dropped, that is for those that come later.

    Args:
        n_seats: tasks at a time in each decoder.
    """

    def __init__(self, components: Components, n_seats: int) -> None:
        self._components, self._n_seats = components, n_seats
        self._of: dict[Task, Bound] = {}
        # Decoder -> its stage and its seats.
        self._seatings: dict[Any, tuple[str, Seating]] = {}
        # Networks that were moved to their device, which has no room for all: to be moved back.
        self._moved: list[Any] = []

    def load(self, stages: Iterable[str]) -> Bound:
        """The networks of some stages, and the devices that they work on. Errors: those of loading."""
        return {stage: self._components.bind(COMPONENT_OF[stage]) for stage in stages}

    def bind(self, task: Task, bound: Bound) -> None:
        """Keep networks for a task, one for each of its stages."""
        self._of[task] = bound
        for stage, (network, _) in bound.items():
            task.engines[stage] = network.engine
            if network.fallback is not None:
                task.fallbacks[stage] = network.fallback
        for stage in DECODED:
            if stage in bound:
                decoder, _ = bound[stage]
                self._seatings.setdefault(decoder, (stage, Seating(decoder, self._n_seats)))

    def release(self, task: Task) -> None:
        """Free a task's seats and let go of its networks; nothing if it has none."""
        for _, seating in self._seatings.values():
            seating.leave(task)
        self._of.pop(task, None)
        if len(self._seatings) > len(DECODED):
            bound = {id(network) for networks in self._of.values() for network, _ in networks.values()}
            self._seatings = {key: entry for key, entry in self._seatings.items() if id(key) in bound}

    def seatings(self) -> list[Seating]:
        """The seats of all decoders, in the order in which they are stepped."""
        return [seating for wanted in DECODED for stage, seating in self._seatings.values() if stage == wanted]

    def seating(self, task: Task, stage: str) -> Seating:
        """The seats of the decoder that a task uses for a stage."""
        return self._seatings[self._of[task][stage][0]][1]

    def use(self, task: Task, stage: str, busy: bool) -> Any:
        """The network that a task uses for a stage, on its device.

        Args:
            busy: whether the codec is in the middle of a stream.
        """
        network, device = self._of[task][stage]
        if self._components.offload and network not in self._moved:
            self._move_back_idle(busy)
            network.to(device)
            self._moved.append(network)
        return network

    def close(self) -> None:
        """Move back what was moved."""
        while self._moved:
            self._moved.pop().to("cpu")

    def _move_back_idle(self, busy: bool) -> None:
        """Let the networks that nobody is in the middle of leave the device."""
        codecs = {id(networks["codec"][0]) for networks in self._of.values() if "codec" in networks}
        for network in list(self._moved):
            seated = network in self._seatings and self._seatings[network][1].in_use
            if not seated and not (busy and id(network) in codecs):
                network.to("cpu")
                self._moved.remove(network)
