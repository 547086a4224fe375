"""A scripted scheduler and a Bark for it, to test everything around the networks without any network."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from barkfast.config import Layout
from barkfast.engine.results import AudioChunk, Done, Event, Failed, Generation
from barkfast.errors import EngineError, InputError
from barkfast.options import Request

CHUNK = 240


class ScriptedUtterance:
    """One request in progress."""

    def __init__(self, request: Any, prefetched: bool, continues_stream: bool) -> None:
        self.request, self.prefetched, self.continues_stream = request, prefetched, continues_stream
        self.left = 1 if request.max_duration_s is None else int(request.max_duration_s)
        self.spoken: list[np.ndarray] = []
        self.parked = False
        self.began_s = time.monotonic()


class ScriptedScheduler:
    """Makes a chunk per round for each of the first `n_slots` utterances that are not parked.

    An utterance has `max_duration_s` chunks. Some texts make it fail: "refused" when it is added, "NaN" in its first
    round, and "boom" raises from the round, which ends all utterances.
    """

    def __init__(self, components: Any, layout: Any, *, n_slots: int, owner: str) -> None:
        self.n_slots, self.script = n_slots, components
        self.live: list[ScriptedUtterance] = []
        self.closed = False
        components.scheduler = self

    @property
    def idle(self) -> bool:
        return all(u.parked for u in self.live)

    def tokenize(self, request: Any) -> Any:
        self.script.on_tokenize(request.text)
        self.script.readers.add(threading.current_thread().name.partition("_")[0])
        return request.text

    def add(self, request: Any, text_ids: Any, **in_stream: bool) -> ScriptedUtterance:
        assert text_ids == request.text
        self.script.threads.add(threading.current_thread().name)
        if request.text == "refused":
            raise InputError("text is 'refused'; expected another")
        utterance = ScriptedUtterance(request, **in_stream)
        self.live.append(utterance)
        return utterance

    def cancel(self, utterance: ScriptedUtterance) -> None:
        if utterance in self.live:
            self.live.remove(utterance)

    def park(self, utterance: ScriptedUtterance) -> None:
        utterance.parked = True

    def resume(self, utterance: ScriptedUtterance) -> None:
        utterance.parked = False

    def close(self) -> None:
        self.live.clear()
        self.closed = True

    def round(self) -> list[Event]:
        self.script.gate.wait(10)
        time.sleep(self.script.round_s)
        events: list[Any] = []
        for utterance in [u for u in self.live if not u.parked][: self.n_slots]:
            events += self._advance(utterance)
        self.script.rounds += 1
        return events

    def _advance(self, utterance: ScriptedUtterance) -> list[Any]:
        text = utterance.request.text
        if text == "boom":
            raise RuntimeError("the device fell off the bus")
        if text == "NaN":
            self.live.remove(utterance)
            return [Failed(utterance, EngineError("the logits are not finite"))]
        events: list[Any] = []
        if utterance.left > 0:
            utterance.left -= 1
            utterance.spoken.append(np.full(CHUNK, len(utterance.spoken), np.float32))
            if utterance.request.stream != "off":
                events.append(AudioChunk(utterance, utterance.spoken[-1]))
        if utterance.left == 0:
            self.live.remove(utterance)
            audio = np.concatenate(utterance.spoken)
            nothing = np.zeros((8, 0), np.int32)
            events.append(Done(utterance, Generation(audio, 24_000, nothing[0], nothing[:2], nothing)))
        return events


class ScriptedBark:
    """The parts of a Bark that an Engine uses. A round waits until `gate` is set, and then takes `round_s` seconds."""

    def __init__(self, round_s: float = 0.0) -> None:
        self.components, self.layout = self, Layout()
        # An Engine uses `bark.model`.
        self.model = self
        self.gate = threading.Event()
        self.gate.set()
        self.round_s, self.rounds = round_s, 0
        self.threads: set[str] = set()
        self.readers: set[str] = set()
        self.asked: list[Any] = []
        self.scheduler: Any = None
        self.on_request: Callable[[], None] = lambda: None
        self.on_tokenize: Callable[[str], object] = lambda _: None

    def request(self, text: str, voice: Any = None, **options: Any) -> Request:
        return self.resolve(Request(text, voice, **options))

    def resolve(self, request: Request) -> Request:
        self.on_request()
        if request.voice == "nobody":
            raise InputError("voice 'nobody' is unknown")
        self.asked.append(request)
        return request

    def load(self) -> None:
        """Do nothing: there are no networks."""

    @property
    def tokenizer(self) -> Any:
        return SimpleNamespace(encode=str.split, leaves_out=lambda text: False)
