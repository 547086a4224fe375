"""The slots of each decoder, and the networks that each utterance uses."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from barkfast.components import Components
from barkfast.engine.utterance import Decode, Utterance
from barkfast.runtime.decoder import Decoder, Step

# Stage -> the component whose network does its work.
COMPONENT_OF = {"semantic": "text", "coarse": "coarse", "fine": "fine", "codec": "codec"}
# The stages that decode, in the order in which they are stepped.
DECODED = ("coarse", "semantic")
# Stage -> a network and the device it works on.
Bound = dict[str, tuple[Any, str]]


@dataclass(frozen=True, slots=True)
class Advance:
    """What one step did for one utterance."""

    utterance: Utterance
    work: Decode
    step: Step


class SlotTable:
    """The slots of one decoder.

    An utterance retains its slot from one job to the next, until it is paused or freed: the next coarse window often
    continues the cache of the last one, which would be lost if another utterance got the slot.

    Args:
        n_slots: utterances at a time; the decoder has at least as many slots.
    """

    def __init__(self, decoder: Decoder, n_slots: int) -> None:
        self._decoder, self.n_slots = decoder, n_slots
        # Slot -> the utterance that decodes in it, and its work.
        self._running: dict[int, tuple[Utterance, Decode]] = {}
        # Utterances with a slot, those between two jobs included.
        self._retained: set[Utterance] = set()

    def __len__(self) -> int:
        """Number of jobs that are stepped."""
        return len(self._running)

    @property
    def running(self) -> list[Utterance]:
        """The utterances whose jobs are stepped."""
        return [utterance for utterance, _ in self._running.values()]

    @property
    def in_use(self) -> bool:
        """Whether any slot is running or retained."""
        return bool(self._running or self._retained)

    def retains(self, utterance: Utterance) -> bool:
        """Whether it has a slot already."""
        return utterance in self._retained

    def has_slot(self, utterance: Utterance) -> bool:
        """Whether its next job can start."""
        return self.retains(utterance) or len(self._retained) < self.n_slots

    def allocate(self, utterance: Utterance, work: Decode) -> None:
        """Start a job. Raises: the decoder's errors; the utterance then has no slot."""
        try:
            slot = self._decoder.admit(work.job)
        except BaseException:
            # Also for Ctrl-C: the decoder may have given the slot away.
            self._retained.discard(utterance)
            raise
        self._running[slot] = (utterance, work)
        self._retained.add(utterance)

    def step(self, seconds: float = 0.0) -> list[Advance]:
        """Draw one token, or several, for every running job. Slots of jobs that are done are retained."""
        advances = []
        for step in self._decoder.step(seconds):
            advances.append(Advance(*self._running[step.slot], step))
            if step.done:
                self._release(step.slot)
        return advances

    def pause(self, utterance: Utterance) -> None:
        """Free a slot that is only retained; a running job goes on."""
        if all(running is not utterance for running, _ in self._running.values()):
            self._retained.discard(utterance)

    def free(self, utterance: Utterance) -> None:
        """Free its slot, also in the middle of a job; no effect without one."""
        for slot, (running, _) in list(self._running.items()):
            if running is utterance:
                self._release(slot)
        self._retained.discard(utterance)

    def _release(self, slot: int) -> None:
        del self._running[slot]
        self._decoder.release(slot)


class Networks:
    """Binds each utterance to the networks that are loaded when it arrives, until it ends.

    Networks that are reloaded or dropped meanwhile affect later utterances only.

    Args:
        n_slots: utterances at a time in each decoder.
    """

    def __init__(self, components: Components, n_slots: int) -> None:
        self._components, self._n_slots = components, n_slots
        self._bound: dict[Utterance, Bound] = {}
        # Decoder -> its stage and its slots.
        self._tables: dict[Any, tuple[str, SlotTable]] = {}
        # With offloading: networks that are on the device now, to be moved back.
        self._on_device: list[Any] = []

    def load(self, stages: Iterable[str]) -> Bound:
        """The networks of some stages, and their devices. Raises: the errors of loading."""
        return {stage: self._components.bind(COMPONENT_OF[stage]) for stage in stages}

    def bind(self, utterance: Utterance, bound: Bound) -> None:
        """Bind an utterance to networks, one for each of its stages."""
        self._bound[utterance] = bound
        for stage, (network, _) in bound.items():
            utterance.engines[stage] = network.engine
            if network.fallback is not None:
                utterance.fallbacks[stage] = network.fallback
        for stage in DECODED:
            if stage in bound:
                decoder, _ = bound[stage]
                self._tables.setdefault(decoder, (stage, SlotTable(decoder, self._n_slots)))

    def release(self, utterance: Utterance) -> None:
        """Free an utterance's slots and unbind it; no effect if it is not bound."""
        for _, table in self._tables.values():
            table.free(utterance)
        self._bound.pop(utterance, None)
        if len(self._tables) > len(DECODED):
            bound = {id(network) for networks in self._bound.values() for network, _ in networks.values()}
            self._tables = {key: entry for key, entry in self._tables.items() if id(key) in bound}

    def tables(self) -> list[SlotTable]:
        """The slots of all decoders, in the order in which they are stepped."""
        return [table for wanted in DECODED for stage, table in self._tables.values() if stage == wanted]

    def table(self, utterance: Utterance, stage: str) -> SlotTable:
        """The slots of the decoder that an utterance uses for a stage."""
        return self._tables[self._bound[utterance][stage][0]][1]

    def use(self, utterance: Utterance, stage: str, streaming: bool) -> Any:
        """The network that an utterance uses for a stage, moved to its device.

        Args:
            streaming: whether the codec has streams in progress.
        """
        network, device = self._bound[utterance][stage]
        if self._components.offload and network not in self._on_device:
            self._offload_idle(streaming)
            network.to(device)
            self._on_device.append(network)
        return network

    def close(self) -> None:
        """Offload all networks that were moved to their device."""
        while self._on_device:
            self._on_device.pop().to("cpu")

    def _offload_idle(self, streaming: bool) -> None:
        """Offload the networks that nothing in progress needs."""
        codecs = {id(networks["codec"][0]) for networks in self._bound.values() if "codec" in networks}
        for network in list(self._on_device):
            decoding = network in self._tables and self._tables[network][1].in_use
            if not decoding and not (streaming and id(network) in codecs):
                network.to("cpu")
                self._on_device.remove(network)
