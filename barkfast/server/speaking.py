"""A request for speech from its acceptance to its end, which is counted and logged once, for every protocol."""

import asyncio
import json
import logging
import secrets
import uuid
from collections import deque
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import numpy as np

from barkfast.config import Layout
from barkfast.errors import BarkfastError
from barkfast.server.errors import ApiError, from_engine
from barkfast.server.metrics import Clock, Metrics
from barkfast.server.speech import Asked

logger = logging.getLogger("barkfast.server.requests")

# What a seed of the server's own is drawn below: every JSON reader holds such a number exactly.
SEEDS = 2**32
# Semantic tokens of a second of sound, for `usage`.
TOKENS_PER_S = Layout().semantic.rate_hz
# Requests whose seconds `Retry-After` is estimated from.
KEPT = 64


class Speech:
    """One request that the engine has accepted. Whoever opened it calls `end`.

    Attributes:
        number: its id.
        clock: its times.
    """

    def __init__(self, speaker: "Speaker", stream: Any, asked: Asked, clock: Clock, number: str, seed: int) -> None:
        self.asked, self.clock, self.number, self.seed = asked, clock, number, seed
        self._speaker, self._stream = speaker, stream
        self._gauge = speaker.metrics.waiting
        self._gauge.inc()
        speaker.without_sound[number] = None
        self._ended = False

    async def samples(self) -> AsyncIterator[np.ndarray]:
        """(n,) float32 each. Raises: as `Engine.stream`."""
        metrics, rate = self._speaker.metrics, self._speaker.engine.sample_rate
        async for samples in self._stream:
            if self.clock.first_audio_s is None:
                self._speaker.without_sound.pop(self.number, None)
                self._gauge.dec()
                self._gauge = metrics.running
                self._gauge.inc()
            self.clock.receive(len(samples) / rate)
            yield samples

    @property
    def sentences(self) -> list[Any]:
        """The sentences whose sound has begun, see SpokenSentence."""
        return self._stream.sentences

    @property
    def timings(self) -> dict[str, float]:
        """Stage -> seconds, of all sentences that have ended."""
        return self._stream.timings

    @property
    def voice(self) -> dict[str, Any] | None:
        """The first sentence that can be used as a voice, once it has ended."""
        return self._stream.voice

    @property
    def queue_wait_s(self) -> float | None:
        """Seconds until its work started."""
        return self._stream.queue_wait_s

    @property
    def n_ahead(self) -> int | None:
        """Requests that were accepted before it and have no sound yet; None once it has sound."""
        waiting = self._speaker.without_sound
        return list(waiting).index(self.number) if self.number in waiting else None

    @property
    def usage(self) -> dict[str, int]:
        """As OpenAI counts: words in, semantic tokens out."""
        n_in, n_out = len(self.asked.text.split()), round(self.clock.audio_s * TOKENS_PER_S)
        return {"input_tokens": n_in, "output_tokens": n_out, "total_tokens": n_in + n_out}

    async def end(self, outcome: str, error: BaseException | None = None) -> None:
        """Free its slot, count it and log it. Only the first call has an effect.

        Args:
            outcome: done, cancelled or failed.
        """
        if self._ended:
            return
        self._ended = True
        self._speaker.without_sound.pop(self.number, None)
        self._gauge.dec()
        self._speaker.count(self.asked, self.clock, self.number, outcome, self._stream, error)
        await self._stream.aclose()


class Speaker:
    """Opens requests on an engine and counts how they end.

    Args:
        engine: as of `create_app`.
        log_texts: whether the log has the texts.
        watermark: whether all sound is marked.

    Attributes:
        draining: whether it refuses new ones.
        without_sound: the numbers of accepted requests that have no sound yet, in their order.
    """

    def __init__(self, engine: Any, metrics: Metrics, log_texts: bool, watermark: bool) -> None:
        self.engine, self.metrics, self.log_texts, self.watermark = engine, metrics, log_texts, watermark
        self.draining = False
        self.without_sound: dict[str, None] = {}
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self.n_open = 0
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def accepting(self) -> bool:
        """Whether it takes requests."""
        return not self.draining and bool(self.engine.accepting)

    async def open(self, asked: Asked, clock: Clock, number: str | None = None) -> Speech:
        """Submit a request. Raises: ApiError."""
        number = number or uuid.uuid4().hex
        given = asked.options.get("seed")
        seed = secrets.randbelow(SEEDS) if given is None else given
        stream: Any = None
        # Already now, so that a drain waits for it.
        self._enter()
        try:
            if not self.accepting:
                raise self._unavailable()
            options = {**asked.options, "seed": seed, "watermark": self.watermark}
            stream = self.engine.stream(asked.text, voice=asked.voice, **options)
            await stream.open()
        except BaseException as error:
            # Also where the client has left.
            refused = error if isinstance(error, ApiError) else from_engine(error, self.pace())
            outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else refused.outcome
            self.count(asked, clock, number, outcome, stream, error)
            if isinstance(error, BarkfastError):
                raise refused from error
            raise
        return Speech(self, stream, asked, clock, number, seed)

    def _unavailable(self) -> ApiError:
        if self.draining:
            return ApiError(503, "the server is stopping; try another, or again later", "draining", retry_after=5.0)
        return ApiError(503, "the engine does not run now; try again", "engine_unavailable", retry_after=self.pace())

    def count(
        self, asked: Asked, clock: Clock, number: str, outcome: str, stream: Any, error: BaseException | None = None
    ) -> None:
        """Count a request that has ended, and log it in one line."""
        metrics = self.metrics
        metrics.requests.labels(outcome=outcome).inc()
        queue_wait = getattr(stream, "queue_wait_s", None)
        line: dict[str, Any] = {"request": number, "outcome": outcome, "voice": asked.voice, "format": asked.format}
        line |= {"characters": len(asked.text), "seconds": clock.seconds, "audio_s": clock.audio_s}
        if queue_wait is not None:
            metrics.queue_wait.observe(queue_wait)
            line["queue_wait_s"] = queue_wait
        if clock.first_audio_s is not None:
            metrics.first_audio.observe(clock.first_audio_s)
            metrics.audio_seconds.inc(clock.audio_s)
            metrics.underrun.observe(clock.underrun_s)
            line |= {"first_audio_s": clock.first_audio_s, "underrun_s": clock.underrun_s}
        if outcome == "done":
            self._seconds.append(clock.seconds)
            metrics.request_seconds.observe(clock.seconds)
            for stage, seconds in stream.timings.items():
                metrics.stage_seconds.labels(stage=stage).observe(seconds)
            if clock.audio_s:
                line["real_time_factor"] = clock.seconds / clock.audio_s
                metrics.real_time_factor.observe(line["real_time_factor"])
        if error is not None and outcome != "cancelled":
            line["error"] = getattr(error, "code", type(error).__name__)
        if self.log_texts:
            line["text"] = asked.text
        line = {name: round(value, 3) if isinstance(value, float) else value for name, value in line.items()}
        logger.info(json.dumps(line, ensure_ascii=False))
        self._leave()

    def count_refused(self, clock: Clock, number: str, error: ApiError) -> None:
        """Count a request that was refused before its text was understood, and log it."""
        self.metrics.requests.labels(outcome=error.outcome).inc()
        line = {"request": number, "outcome": error.outcome, "error": error.code, "seconds": round(clock.seconds, 3)}
        logger.info(json.dumps(line))

    def pace(self) -> float:
        """Seconds until a request is likely to end: their usual time over how many are open (Little's law)."""
        return median(self._seconds) / max(1, self.n_open) if self._seconds else 1.0

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests, and wait until those in progress have ended and their sound was sent.

        Returns: whether all have.
        """
        self.draining = True
        try:
            await asyncio.wait_for(self._none_open.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    def _enter(self) -> None:
        self.n_open += 1
        self._none_open.clear()

    def _leave(self) -> None:
        self.n_open -= 1
        if not self.n_open:
            self._none_open.set()
