"""A text as segments, one utterance each, and the queue that keeps the next ones in progress while one is returned.

The queue runs nothing: `barkfast.engine.long` drives it for synchronous callers, `barkfast.engine.stream` for asyncio.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from barkfast.checks import check_seed
from barkfast.config import Layout
from barkfast.engine.results import AudioChunk, Done, Event, Generation
from barkfast.engine.shared import Model
from barkfast.errors import BarkfastError, InputError, VoiceError
from barkfast.longform.chunks import SECONDS, Chunk, split_chunks, split_long
from barkfast.longform.joining import LiveJoiner, pause_after
from barkfast.longform.sentences import check_language, check_source
from barkfast.normalize import Markup
from barkfast.options import Request
from barkfast.text import check_text
from barkfast.voices import check_voice

logger = logging.getLogger(__name__)

# The share of the model's longest utterance that it speaks well: 13 of Suno's 15.4 seconds.
_WELL = SECONDS / (768 / 49.9)
NOTHING_TO_SAY = "the text has nothing to pronounce in it; expected at least one letter or digit"
# Sentences of a stream in progress: the one that is returned, and the next.
STREAM_SEGMENTS = 2
# How often a segment is generated again that was empty or cut off, by default.
RETRIES = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the text that was returned, for `on_piece`.

    Args:
        number: from 0. Halves of a piece that was generated again have the same.
        text: the text of the piece.
        seconds: length of its audio, before it was trimmed and joined; 0 where there was nothing to pronounce.
        speaker: the speaker's name, in a script.
    """

    number: int
    text: str
    seconds: float
    speaker: str | None = None


def voice_of(generation: Generation, layout: Layout) -> dict[str, np.ndarray] | None:
    """Its tokens as a voice; None after a word or two, which are too short for both rates to agree."""
    try:
        check_voice(generation.prompt, layout)
    except VoiceError:
        return None
    return generation.prompt


@dataclass(eq=False)
class VoiceState:
    """A voice through a text.

    Args:
        voice: what the next segment begins with, as `Bark.request` takes it; None for a voice that the model draws.
        chained: each segment continues from the one before.
        steady: without a voice, the one drawn for the first segment is kept.
        name: of the speaker, in a script.
        n_active: segments in progress.
    """

    voice: Any
    chained: bool = False
    steady: bool = True
    name: str | None = None
    n_active: int = 0

    @property
    def follows_previous(self) -> bool:
        """Whether the next segment's voice comes from the segment before."""
        return self.chained or (self.steady and self.voice is None)

    @property
    def known(self) -> bool:
        """Whether the voice of the next segment is known now."""
        return not (self.follows_previous and self.n_active)

    def update(self, generation: Generation, layout: Layout) -> None:
        """Take over the voice of a segment, where the next ones need it and it can be used."""
        if not self.follows_previous:
            return
        # The voice before it is kept where this one cannot be used.
        self.voice = voice_of(generation, layout) or self.voice


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a text for one utterance.

    Args:
        number: from 0, in the whole text; its seed follows from it.
        attempt: how often it, or the segment it is half of, was generated before.
        half: which part of that it is.
        rest: seconds of silence that the text after it asks for, which has nothing to pronounce.
        last: no segment follows; False also where that is not known.
        whole: the request's text or semantic tokens as they are; `chunk` is empty.
    """

    chunk: Chunk
    voice: VoiceState
    number: int
    attempt: int = 0
    half: int = 0
    rest: float = 0.0
    last: bool = False
    whole: bool = False

    @property
    def speakable(self) -> bool:
        """Whether there is anything to pronounce in it."""
        return self.whole or self.chunk.speakable

    @property
    def pause(self) -> float:
        """Seconds of silence after it."""
        return max(pause_after(self.chunk), self.rest)

    def seed(self, seed: int | None) -> int | None:
        """The seed of this segment: the text's own for the first, another one for each other."""
        if seed is None or not (self.number or self.attempt):
            return seed
        return (int(seed) + self.number + ((2 * self.attempt + self.half) << 40)) % 2**63

    def request(self, model: Model, options: Mapping[str, Any]) -> Request:
        """Its request, with `options` of the whole text. Raises: the errors of `Bark.request`."""
        return model.request(self.chunk.text, self.voice.voice, **{**options, "seed": self.seed(options["seed"])})

    def raise_named(self, error: Exception, *, first_too: bool = True) -> NoReturn:
        """Raise a BarkfastError with the segment in its message; of the first segment only with `first_too`."""
        if not isinstance(error, BarkfastError) or self.whole or not (self.number or first_too):
            raise error
        raise type(error)(f"piece {self.number + 1} of the text ({self.chunk.text[:60]!r}): {error}") from error


@dataclass(eq=False)
class Entry:
    """A segment in the queue.

    Args:
        ready: its voice was known when it entered.
        submitted: whether the driver was told to submit it.
        prefetched: it was submitted while audio of a segment before it was still to be returned.
        handle: what the driver got for its request; None before.
        chunks: audio that was not returned yet; only of streams.
        returned: whether some audio was returned.
        outcome: its result or error, once it has ended.
        final: the error came before the request started; trying again does not help.
        settled: nothing can change the outcome, and the segment's voice knows it.
    """

    segment: Segment
    ready: bool = False
    submitted: bool = False
    prefetched: bool = False
    handle: Any = None
    chunks: deque[np.ndarray] = field(default_factory=deque)
    returned: bool = False
    outcome: Generation | Exception | None = None
    final: bool = False
    settled: bool = False


class SegmentQueue:
    """Which segments to run now, and their results in the order of the text.

    The driver repeats: `push` the next segment while `wants_segment`; submit what `next_to_submit` gives; pass events
    to `deliver`; return what `take` gives; wait for an event where that is None.

    Args:
        n_parallel: segments to run side by side. As many again may wait for their next stage.
        retries: how often a segment that ran into the model's length limit is generated again in two halves, or one
            that gave nothing with another seed.
        live: return the audio of each segment as it comes. At most `n_parallel` are in progress then, only one until it
            has audio, and a segment that has returned audio is not generated again.
        halve: whether a segment that ran into the length limit may be cut in halves.
        promote: called with the handle of a segment whose audio is returned from now on.
    """

    def __init__(
        self,
        layout: Layout,
        n_parallel: int,
        retries: int,
        *,
        live: bool = False,
        halve: bool = True,
        promote: Callable[[Any], None] = lambda handle: None,
    ) -> None:
        self._layout, self._n_parallel, self._retries = layout, n_parallel, retries
        self._live, self._halve, self._promote = live, halve, promote
        # Read, but its voice is not known yet, or there is no room.
        self._waiting: Segment | None = None
        self._entries: deque[Entry] = deque()
        self._ended = False
        # Set by the driver: whether a request was submitted.
        self.started = False

    @property
    def done(self) -> bool:
        """Whether all segments have been returned."""
        return self._ended and not self._entries and self._waiting is None

    @property
    def wants_segment(self) -> bool:
        """Whether the next segment should be pushed now."""
        return not self._ended and self._waiting is None and len(self._entries) < self._n_most

    def push(self, segment: Segment | None) -> None:
        """Take the next segment; None if there is none."""
        if segment is None:
            self._ended = True
        else:
            self._waiting, self._ended = segment, segment.last

    def fail(self, error: Exception, voice: VoiceState) -> None:
        """The text cannot be read any further: raise `error` after all segments before it."""
        failed = Segment(Chunk(""), voice, 0, whole=True)
        self._entries.append(Entry(failed, submitted=True, outcome=error, final=True, settled=True))
        self._ended = True

    @property
    def wants_driver(self) -> bool:
        """Whether there is a segment to push or to submit."""
        return self.wants_segment or self._next() is not None

    def next_to_submit(self) -> Entry | None:
        """A segment whose request should start now; it counts as submitted."""
        entry = self._next()
        if entry is not None:
            entry.submitted = True
            entry.prefetched = self._live and entry is not self._entries[0]
        return entry

    def _next(self) -> Entry | None:
        while self._waiting is not None and self._waiting.voice.known and len(self._entries) < self._n_most:
            self._entries.append(self._enter(self._waiting, ready=True))
            self._waiting = None
        for index, entry in enumerate(self._entries):
            if entry.submitted or not entry.segment.speakable:
                continue
            # One that is generated again may depend on the segment before it; the first in the queue does not.
            if entry.ready or index == 0 or not entry.segment.voice.follows_previous:
                return entry
        return None

    def deliver(self, entry: Entry, event: Event) -> None:
        """Take an event of an entry's utterance."""
        if isinstance(event, AudioChunk):
            entry.chunks.append(event.audio)
        else:
            self.end(entry, event.result if isinstance(event, Done) else event.error)

    def end(self, entry: Entry, outcome: Generation | Exception, *, final: bool = False) -> None:
        """An entry has ended; `final` if its request could not start."""
        entry.outcome, entry.final = outcome, final
        if isinstance(outcome, Generation) and not self._hit_limit(outcome):
            # Nothing will change it: the next segment need not wait until it is returned.
            self._settle(entry)

    def take(self) -> tuple[Entry, np.ndarray | Generation | None] | None:
        """The next result: a chunk of a segment's audio, or its Generation at its end; None where nothing is ready.

        A segment with nothing to pronounce gives (entry, None).

        Raises:
            BarkfastError: of the first segment that failed, after all before it were returned.
        """
        while self._entries:
            entry = self._entries[0]
            if entry.prefetched and entry.handle is not None:
                entry.prefetched = False
                self._promote(entry.handle)
            if not entry.segment.speakable:
                self._entries.popleft()
                return entry, None
            if entry.chunks:
                entry.returned = True
                return entry, entry.chunks.popleft()
            if entry.outcome is None:
                return None
            self._entries.popleft()
            if not entry.settled:
                again = self._again(entry, entry.outcome)
                if again:
                    entry.segment.voice.n_active -= 1
                    self._entries.extendleft([self._enter(segment) for segment in reversed(again)])
                    continue
                self._settle(entry)
            if isinstance(entry.outcome, Exception):
                # The first sentence of a stream may be its only one, and is not named.
                entry.segment.raise_named(entry.outcome, first_too=not self._live)
            return entry, entry.outcome
        return None

    def raise_if_not_started(self) -> None:
        """Raise the first segment's error, if its request could not start."""
        if self._entries and self._entries[0].final:
            self.take()

    def close(self) -> list[Any]:
        """Drop all segments. Returns: the handles of their requests, for the driver to cancel."""
        handles = [entry.handle for entry in self._entries if entry.handle is not None]
        self._entries.clear()
        self._waiting, self._ended = None, True
        return handles

    @property
    def _n_most(self) -> int:
        """Segments that may be in the queue."""
        if not self._live:
            return 2 * self._n_parallel
        # What nobody waits for yet must not delay the first audio.
        return self._n_parallel if self._entries and self._entries[0].returned else 1

    @staticmethod
    def _enter(segment: Segment, ready: bool = False) -> Entry:
        segment.voice.n_active += segment.speakable
        return Entry(segment, ready)

    def _settle(self, entry: Entry) -> None:
        entry.settled = True
        entry.segment.voice.n_active -= 1
        if isinstance(entry.outcome, Generation):
            entry.segment.voice.update(entry.outcome, self._layout)

    def _hit_limit(self, generation: Generation) -> bool:
        return self._halve and len(generation.semantic) >= self._layout.semantic.max_steps

    def _again(self, entry: Entry, outcome: Generation | Exception) -> list[Segment]:
        """What to run instead of a segment that was empty or cut off; nothing where that does not help."""
        segment = entry.segment
        attempt = segment.attempt + 1
        may_retry = attempt <= self._retries and not entry.returned and not segment.whole
        if isinstance(outcome, Exception):
            # With another seed: the end token was the first one drawn, say. A network that fails would fail again.
            helps = may_retry and not entry.final and isinstance(outcome, InputError)
            return [replace(segment, attempt=attempt)] if helps else []
        if segment.whole or not self._hit_limit(outcome):
            return []
        chunk = segment.chunk
        halves = split_long(chunk.text, lambda text: 2 * len(text) / (len(chunk.text) + 1), chunk.ending)
        if not may_retry or len(halves) < 2:
            logger.warning(
                "piece %d ran into the model's limit of time and may be cut off: %r; try fewer seconds a piece",
                segment.number + 1,
                chunk.text[:60],
            )
            return []
        logger.info("piece %d took longer than estimated: said again in %d parts", segment.number + 1, len(halves))
        return [
            replace(segment, chunk=half, attempt=attempt, half=2 * segment.half + index)
            for index, half in enumerate(halves)
        ]


def join_live(joiner: LiveJoiner, segment: Segment, output: np.ndarray | Generation | None) -> np.ndarray:
    """Samples to return for an output of `SegmentQueue.take` of a stream, (n,) float32, maybe none."""
    if isinstance(output, np.ndarray):
        return joiner.push(output, segment.last)
    return joiner.finish() if segment.last else joiner.next(segment.pause)


def split_text(
    model: Model,
    text: str | Iterable[str],
    language: str | None,
    seconds: float | None,
    each_sentence: bool,
    markup: Markup = "plain",
) -> Iterator[Chunk]:
    """The text in chunks that fit the model."""
    semantic = model.layout.semantic
    tokenizer = model.tokenizer
    chunks = split_chunks(
        text,
        language,
        seconds=seconds or _WELL * semantic.max_steps / semantic.rate_hz,
        count_tokens=lambda part: len(tokenizer.encode(part)),
        max_tokens=semantic.n_slots,
        each_sentence=each_sentence,
        markup=markup,
    )
    for chunk in chunks:
        yield replace(chunk, silent=tokenizer.leaves_out(chunk.text))


def check_sentences(text: Any, language: str | None, seed: Any) -> None:
    """Raise InputError for what cannot be split into sentences, without reading an iterable."""
    if isinstance(text, str):
        check_text(text)
        if not Chunk(text).speakable:
            raise InputError(f"text is {text[:80]!r}: {NOTHING_TO_SAY}")
    else:
        check_source(text)
    check_language(language)
    check_seed(seed)


def sentence_segments(
    model: Model, text: Any, voice: VoiceState, language: str | None, markup: Markup = "plain"
) -> Iterator[Segment]:
    """A segment for each sentence with something to pronounce, or for a part of a sentence that is too long for one.

    Each is yielded once the next one is known, so that the last can be marked.

    Raises:
        InputError: what is read is not text, or has nothing to pronounce.
    """
    held: Segment | None = None
    for number, chunk in enumerate(split_text(model, text, language, None, True, markup)):
        if chunk.speakable:
            if held is not None:
                yield held
            held = Segment(chunk, voice, number)
        elif held is not None:
            held = replace(held, rest=max(held.rest, pause_after(chunk)))
    if held is None:
        raise InputError(NOTHING_TO_SAY)
    yield replace(held, last=True)
