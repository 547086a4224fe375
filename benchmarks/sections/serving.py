"""Sentences side by side against one by one, how soon the first of a sentence is heard, and how late what follows."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from barkfast.bark import Bark
from barkfast.bench.comparison import PROMPTS
from barkfast.bench.workload import full_voice
from barkfast.engine.async_engine import Engine
from barkfast.engine.results import Generation, percentiles
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import Recorder

DTYPE = "int8"
# Of each sentence, in seconds: random weights do not stop by themselves. Every other one has a voice.
LENGTHS = (2.0, 3.5, 2.5, 4.0, 3.0, 2.0, 4.5, 3.0)
# Of the sentence whose beginning is waited for.
FIRST = 5.0
MODES = ("offline", "exact", "low_latency")

Sentence = dict[str, Any]


def run(plan: Plan, record: Recorder) -> None:
    """One by one first, in a decoder for one; then all together, checked against that."""
    for size in ("nano",) if plan.smoke else ("demo", "small"):
        serve(plan, record, size)


def serve(plan: Plan, record: Recorder, size: str) -> None:
    bark = networks.open_bark(plan, size, DTYPE)
    sentences = make_sentences(plan, bark)
    bark.generate(**sentences[0] | {"max_duration_s": 0.1})
    same = {"size": size, "dtype": DTYPE, "threads": plan.threads}
    alone: list[Generation] = []

    def measure(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        return record.measure(f"{size} {DTYPE}, {name}, {plan.threads} threads", lambda: same | work(), dtype=DTYPE)

    row = measure(f"{len(sentences)} sentences one by one", partial(time_alone, bark, sentences, alone))
    for voice in (True, False):
        for mode in MODES:
            name = f"first audio, {mode}, {'full voice' if voice else 'no voice'}"
            measure(name, partial(time_first, plan, bark, voice, mode))
    factor = None if row is None else row["real_time_factor"]
    measure(f"{len(sentences)} sentences as a batch", partial(time_batch, bark, sentences, alone, factor))
    measure(f"{len(sentences)} streams through the engine", partial(time_engine, bark, sentences, factor))
    if size == "demo":
        # More than can be made as fast as they are heard.
        many = sentences * 3
        measure(f"{len(many)} streams through the engine", partial(time_engine, bark, many, None))


def scaled(plan: Plan, seconds: float) -> float:
    """A length in seconds; next to nothing in a smoke test."""
    return 0.1 + seconds / 100 if plan.smoke else seconds


def make_sentences(plan: Plan, bark: Bark) -> list[Sentence]:
    """Arguments for `Bark.generate`: texts, voices, seeds, temperatures and lengths that differ."""
    voice = full_voice(bark.layout)
    return [
        {
            "text": PROMPTS[i].text,
            "voice": voice if i % 2 else None,
            "seed": i,
            "text_temp": 0.6 + 0.05 * i,
            "min_eos_p": None,
            "max_duration_s": scaled(plan, length),
        }
        for i, length in enumerate(LENGTHS)
    ]


def in_row(seconds: float, audio_s: float, n: int, one_by_one: float | None) -> dict[str, Any]:
    """What speaking several sentences took, and how many times as fast that was as one by one.

    Args:
        one_by_one: real-time factor. Streams split what is long, and so may speak for longer.
    """
    return {
        "sentences": n,
        "seconds": round(seconds, 3),
        "audio_s": round(audio_s, 3),
        "real_time_factor": round(seconds / audio_s, 4),
        "times_one_by_one": None if one_by_one is None else round(one_by_one / (seconds / audio_s), 3),
    }


def time_alone(bark: Bark, sentences: list[Sentence], alone: list[Generation]) -> dict[str, Any]:
    """One after the other; what was said is added to `alone`."""
    start = time.perf_counter()
    alone += [bark.generate(**sentence) for sentence in sentences]
    seconds = time.perf_counter() - start
    audio_s = sum(g.duration for g in alone)
    return in_row(seconds, audio_s, len(sentences), seconds / audio_s)


def check_same(alone: list[Generation], together: list[Generation]) -> None:
    """Raises: RuntimeError unless every token is what it is alone: what is wrong is not worth timing."""
    for i, (a, b) in enumerate(zip(alone, together, strict=True)):
        for key in ("semantic", "coarse", "fine"):
            if not np.array_equal(getattr(a, key), getattr(b, key)):
                raise RuntimeError(f"the {key} tokens of sentence {i} are not those that it has alone")


def time_batch(
    bark: Bark, sentences: list[Sentence], alone: list[Generation], one_by_one: float | None
) -> dict[str, Any]:
    # The decoders for so many are made, and memory touched, before.
    bark.generate_batch([sentence | {"max_duration_s": 0.1} for sentence in sentences])
    start = time.perf_counter()
    together = bark.generate_batch(sentences)
    seconds = time.perf_counter() - start
    check_same(alone, together)
    return in_row(seconds, sum(g.duration for g in together), len(sentences), one_by_one)


def time_first(plan: Plan, bark: Bark, voice: bool, mode: str) -> dict[str, Any]:
    """Seconds from the call to the first samples of one sentence, and to the last."""
    sentence = {
        "text": PROMPTS[0].text,
        "voice": full_voice(bark.layout) if voice else None,
        "seed": 1,
        "min_eos_p": None,
        "max_duration_s": scaled(plan, FIRST),
    }
    heard = Heard(bark.sample_rate)
    if mode == "offline":
        heard.take(bark.generate(**sentence).audio)
    else:
        for chunk in bark.stream(mode=mode, **sentence):
            heard.take(chunk)
    whole = heard.time_s()
    return {
        "mode": mode,
        "voice": voice,
        "audio_s": round(heard.audio_s, 3),
        "chunks": heard.chunks,
        "first_audio_s": round(heard.first_s, 3),
        "late_s": round(heard.late_s, 3),
        "seconds": round(whole, 3),
    }


class Heard:
    """One who listens to a stream from its first chunk on.

    Args:
        first_s: seconds from the beginning to the first chunk.
        late_s: seconds in which there was nothing to hear since then.
    """

    def __init__(self, sample_rate: int) -> None:
        self.first_s = self.late_s = self.audio_s = 0.0
        self.chunks = 0
        self._sample_rate, self._start = sample_rate, time.perf_counter()

    def time_s(self) -> float:
        return time.perf_counter() - self._start

    def take(self, chunk: np.ndarray) -> None:
        """Take (n,) samples as they come."""
        if not self.chunks:
            self.first_s = self.time_s()
        # What was heard until now, and what was waited for.
        self.late_s = max(self.late_s, self.time_s() - self.first_s - self.audio_s)
        self.chunks += 1
        self.audio_s += len(chunk) / self._sample_rate


def time_engine(bark: Bark, sentences: list[Sentence], one_by_one: float | None) -> dict[str, Any]:
    """All at once as streams with low latency, each read as it comes."""

    async def listen(engine: Engine, sentence: Sentence) -> Heard:
        heard = Heard(bark.sample_rate)
        async for chunk in engine.stream(mode="low_latency", **sentence):
            heard.take(chunk)
        return heard

    async def listen_to_all() -> tuple[float, list[Heard]]:
        async with Engine(bark, n_slots=len(sentences)) as engine:
            start = time.perf_counter()
            heard = await asyncio.gather(*(listen(engine, sentence) for sentence in sentences))
            return time.perf_counter() - start, list(heard)

    seconds, heard = asyncio.run(listen_to_all())
    row = in_row(seconds, sum(one.audio_s for one in heard), len(sentences), one_by_one)
    middle, p95 = percentiles(one.first_s for one in heard)
    late = max(one.late_s for one in heard)
    return row | {"first_audio_s": round(middle, 3), "first_audio_s_p95": round(p95, 3), "late_s": round(late, 3)}
