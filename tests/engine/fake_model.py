"""A fake model that records requests and returns made-up results, for tests of order, voices and errors."""

import gc
import itertools
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from barkfast.config import Layout
from barkfast.engine import long
from barkfast.engine.results import Done, Failed, Generation
from barkfast.errors import BarkfastError
from barkfast.options import BarkStream, LongText, Script
from longform.sounds import RATE, tone


def generation(number: int, n_semantic: int = 40) -> Generation:
    """The result of the `number`-th request: a tone, and tokens that contain the number."""
    frames = round(n_semantic * 1.503)
    fine = np.full((8, frames), number % 1000, dtype=np.int32)
    semantic = np.full(n_semantic, number % 10_000, dtype=np.int64)
    return Generation(tone(0.1, 100.0 + number % 1000), RATE, semantic, fine[:2], fine)


Outcome = Callable[[Any, int], Generation | BarkfastError]


class FakeScheduler:
    """A scheduler that ends one utterance per round, later ones before earlier ones."""

    def __init__(self, bark: "FakeBark", n_slots: int) -> None:
        self.bark, self.n_slots = bark, n_slots
        self.waiting: deque[Any] = deque()
        self.cancelled: list[Any] = []

    def add(self, request: Any, **in_stream: bool) -> Any:
        number = len(self.bark.asked)
        self.bark.asked.append(request)
        utterance = SimpleUtterance(request, number)
        self.waiting.append(utterance)
        self.bark.most = max(self.bark.most, len(self.waiting))
        return utterance

    def round(self) -> list[Any]:
        # The last utterance in a slot ends first: no code may rely on the order in which utterances end.
        index = min(self.n_slots, len(self.waiting)) - 1
        utterance = self.waiting[index]
        del self.waiting[index]
        result = self.bark.outcome(utterance.request, utterance.number)
        return [Failed(utterance, result) if isinstance(result, BarkfastError) else Done(utterance, result)]

    def cancel(self, utterance: Any) -> None:
        self.cancelled.append(utterance)
        if utterance in self.waiting:
            self.waiting.remove(utterance)


class SimpleUtterance:
    def __init__(self, request: Any, number: int) -> None:
        self.request, self.number = request, number


class FakeBark:
    """The parts of a Model that long texts use."""

    def __init__(self, outcome: Outcome = lambda request, number: generation(number)) -> None:
        self.layout = Layout()
        self.outcome = outcome
        self.asked: list[Any] = []
        self.most = 0
        self.schedulers: list[FakeScheduler] = []
        self.open = 0
        self.tokenizer = SimpleNamespace(encode=lambda text: text.split(), leaves_out=lambda text: False)

    @property
    def said(self) -> list[str]:
        return [request.text for request in self.asked]

    def load_voice(self, voice: Any) -> Any:
        return generation(int(voice.rpartition("_")[2])).prompt if isinstance(voice, str) else voice

    def request(self, text: str, voice: Any = None, **options: Any) -> Any:
        return SimpleNamespace(text=text, voice=voice, options=options)

    @contextmanager
    def scheduler(self, n_slots: int) -> Iterator[FakeScheduler]:
        self.schedulers.append(FakeScheduler(self, n_slots))
        self.open += 1
        try:
            yield self.schedulers[-1]
        finally:
            self.open -= 1


def speak_long(model: Any, *args: Any, **options: Any) -> Any:
    """As `Bark.generate_long`, for any model."""
    return long.speak_long(model, LongText(*args, **options))


def speak_script(model: Any, *args: Any, **options: Any) -> Any:
    """As `Bark.generate_script`, for any model."""
    return long.speak_script(model, Script(*args, **options))


def stream_sentences(model: Any, *args: Any, **options: Any) -> Any:
    """As `Bark.stream`, for any model."""
    return long.stream_sentences(model, BarkStream(*args, **options))


def assert_memory_is_bounded(sound: Any, bark: FakeBark, chunks: int) -> None:
    """Read four times `chunks` chunks of an endless sound; assert that the memory in use does not grow with them."""
    tracemalloc.start()
    levels = []
    for _ in range(4):
        for _ in itertools.islice(sound, chunks):
            bark.asked.clear()
        gc.collect()
        levels.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    sound.close()
    assert max(levels[1:]) < levels[0] + 300_000
