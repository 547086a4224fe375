"""Long texts, dialogues, streams and batches for synchronous callers, all in the caller's thread."""

import inspect
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from barkfast.checks import check_number
from barkfast.engine.results import AudioChunk, Generation
from barkfast.engine.segments import (
    NOTHING_TO_SAY,
    RETRIES,
    STREAM_SEGMENTS,
    Entry,
    Piece,
    Segment,
    SegmentQueue,
    VoiceState,
    check_sentences,
    join_live,
    sentence_segments,
    split_text,
)
from barkfast.engine.shared import Model
from barkfast.errors import BarkfastError, InputError, VoiceError
from barkfast.longform.joining import Joiner, LiveJoiner
from barkfast.longform.script import find_speaker, parse_script
from barkfast.longform.sentences import check_language, check_source, language_of
from barkfast.options import BarkStream, LongText, Pieces, Request, Script

# Slots that a batch allocates where there are fewer, if it has as many requests.
BATCH_SLOTS = 8
DROPPED = "a stream of sound was dropped half-read; read it to its end, close it, or use it in a with block"
Audio = Generator[np.ndarray, None, None]


class Sound(Iterator[np.ndarray]):
    """(n,) float32 samples as they are ready. Several threads may read it; each chunk goes to one of them.

    Work is done while the next chunk is waited for. `close()`, leaving its `with` block or dropping it ends what is in
    progress; dropping it half-read is a ResourceWarning.
    """

    def __init__(self, chunks: Audio) -> None:
        self._chunks = chunks
        # A generator runs in one thread at a time.
        self._lock = threading.Lock()
        self._begun = self._ended = False

    def __next__(self) -> np.ndarray:
        with self._lock:
            self._begun = True
            try:
                return next(self._chunks)
            except BaseException:
                # StopIteration among it: a generator that raised has ended.
                self._ended = True
                raise

    def close(self) -> None:
        """End it. May be called again; a chunk that another thread waits for comes first."""
        with self._lock:
            self._ended = True
            self._chunks.close()

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._begun and not self._ended:
            warnings.warn(DROPPED, ResourceWarning, stacklevel=2, source=self)
        self._chunks.close()


def speak_batch(model: Model, requests: Any, keep_errors: bool, defaults: Mapping[str, Any]) -> list[Any]:
    """A Generation for each request. Args and errors: as `Bark.generate_batch`."""
    if isinstance(requests, str) or not isinstance(requests, Sequence):
        raise InputError(f"requests is a {type(requests).__name__}; expected a list of texts or dicts")
    if not requests:
        return []
    with model.scheduler(min(len(requests), BATCH_SLOTS)) as session:
        results = session.run(partial(_make_request, model, item, defaults) for item in requests)
    for result in results:
        if isinstance(result, Exception) and not keep_errors:
            raise result
    return results


def _make_request(model: Model, item: Any, defaults: Mapping[str, Any]) -> Request:
    """One item of a batch as a request."""
    if isinstance(item, Request):
        return item
    given = {"text": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping):
        raise InputError(f"a request is {item!r}; expected a text, or a dict of arguments of Bark.request")
    options: dict[str, Any] = {**defaults, **given}
    known = inspect.signature(Request).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"unknown arguments {', '.join(map(repr, unknown))}; expected some of {', '.join(known)}")
    return model.request(**options)


def stream_sentences(model: Model, asked: BarkStream) -> Audio:
    """Generate a text of any length sentence by sentence, and return its audio while it is made.

    Returns:
        (n,) float32 samples as they come. Work is done while the next ones are waited for, and not between: for the
        sentence that is returned, and, once it has audio, for the next. `close()` ends it.

    Raises:
        InputError, VoiceError: at once for arguments and for a str with nothing to pronounce; the error of a later
            sentence comes in place of its audio and names it.
    """
    language = asked.language or language_of(asked.voice)
    check_sentences(asked.text, language, asked.seed)
    state = VoiceState(model.load_voice(asked.voice), asked.chained)
    segments = sentence_segments(model, asked.text, state, language, asked.markup)
    return _stream_segments(model, segments, asked)


def _stream_segments(model: Model, segments: Iterator[Segment], asked: BarkStream) -> Audio:
    # No more slots than there are sentences.
    first = list(islice(segments, STREAM_SEGMENTS))
    queue = SegmentQueue(model.layout, len(first), RETRIES, live=True, promote=_promote)
    joiner = LiveJoiner(model.layout.sample_rate)
    options = asked.request_options()
    for segment, output in run_segments(model, chain(first, segments), queue, len(first), options):
        if isinstance(output, Generation) and asked.on_piece is not None:
            asked.on_piece(Piece(segment.number, segment.chunk.text, output.duration))
        samples = join_live(joiner, segment, output)
        if len(samples):
            yield samples


def _promote(utterance: Any) -> None:
    utterance.prefetched = False


def speak_long(model: Model, asked: LongText) -> Audio:
    """Generate a text of any length in pieces.

    Returns:
        (n,) float32 arrays that make up the whole when joined, as they are ready. Work is done while the next one is
        waited for; `close()` ends it.

    Raises:
        InputError, VoiceError: at once for arguments; later for what is found in the text, and then it names the piece.
    """
    check_source(asked.text)
    _check_seconds(model, asked)
    language = asked.language or language_of(asked.voice)
    check_language(language)
    state = VoiceState(model.load_voice(asked.voice), asked.chained, asked.steady)

    def segments() -> Iterator[Segment]:
        chunks = split_text(model, asked.text, language, asked.seconds, asked.each_sentence, asked.markup)
        for number, chunk in enumerate(chunks):
            yield Segment(chunk, state, number)

    return _join_segments(model, segments(), 1 if asked.chained else asked.at_once, asked)


def speak_script(model: Model, asked: Script) -> Audio:
    """Generate a dialogue, with a voice for each speaker.

    Returns and raises what `speak_long` does. An unknown speaker is an InputError with the number of the line: at once
    if the script is a str or a list, else when the line is read.
    """
    _check_seconds(model, asked)
    script, voices = asked.script, asked.voices
    if not isinstance(voices, Mapping) or not voices:
        raise InputError(f"voices is {str(voices)[:80]!r}; expected a dict: the name of each speaker, and a voice")
    if isinstance(script, str | list | tuple):
        for line in parse_script(script):
            find_speaker(line, voices)
    states = {}
    for name, voice in voices.items():
        try:
            states[name] = VoiceState(model.load_voice(voice), asked.chained, asked.steady, name)
        except VoiceError as error:
            raise VoiceError(f"the voice of {name}: {error}") from error

    def segments() -> Iterator[Segment]:
        number = 0
        for line in parse_script(script):
            name = find_speaker(line, voices)
            language = asked.language or language_of(voices[name])
            for chunk in split_text(model, line.text, language, asked.seconds, False, asked.markup):
                yield Segment(chunk, states[name], number)
                number += 1

    return _join_segments(model, segments(), asked.at_once, asked)


def _check_seconds(model: Model, asked: Pieces) -> None:
    longest = model.layout.semantic.max_steps / model.layout.semantic.rate_hz
    if asked.seconds is not None:
        expected = f"up to {longest:.1f}, which is all the model says in one go"
        check_number("seconds", asked.seconds, expected, least=0, most=longest, open_=True)


def _join_segments(model: Model, segments: Iterator[Segment], at_once: int, asked: Pieces) -> Audio:
    """Run segments and join their audio."""
    # No more slots than there are pieces.
    first = list(islice(segments, at_once))
    n_parallel = max(1, len(first))
    queue = SegmentQueue(model.layout, n_parallel, asked.retries, halve=asked.max_duration_s is None)
    joiner = Joiner(model.layout.sample_rate, trim=asked.trim, pauses=asked.pauses)
    silent = True
    for segment, output in run_segments(model, chain(first, segments), queue, n_parallel, asked.request_options()):
        samples = np.zeros(0, dtype=np.float32)
        if isinstance(output, Generation):
            silent = False
            samples = joiner.add(output.audio, segment.pause)
        else:
            joiner.rest(segment.pause)
        if asked.on_piece is not None:
            spoken = output.duration if isinstance(output, Generation) else 0.0
            asked.on_piece(Piece(segment.number, segment.chunk.text, spoken, segment.voice.name))
        if len(samples):
            yield samples
    if silent:
        raise InputError(NOTHING_TO_SAY)
    last = joiner.finish()
    if len(last):
        yield last


def run_segments(
    model: Model,
    segments: Iterator[Segment],
    queue: SegmentQueue,
    n_slots: int,
    options: dict[str, Any],
) -> Iterator[tuple[Segment, np.ndarray | Generation | None]]:
    """Every segment with its results, in order: chunks of its audio if the queue is live, then its Generation.

    Raises:
        BarkfastError: of the first segment that failed, after all before it were returned.
    """
    entries: dict[Any, Entry] = {}
    with model.scheduler(n_slots) as session:
        try:
            while not queue.done:
                _submit(model, session, segments, queue, entries, options)
                if (taken := queue.take()) is not None:
                    yield taken[0].segment, taken[1]
                elif entries:
                    for event in session.round():
                        queue.deliver(entries[event.utterance], event)
                        if not isinstance(event, AudioChunk):
                            del entries[event.utterance]
        finally:
            for utterance in entries:
                session.cancel(utterance)


def _submit(
    model: Model,
    session: Any,
    segments: Iterator[Segment],
    queue: SegmentQueue,
    entries: dict[Any, Entry],
    options: dict[str, Any],
) -> None:
    """Read and start as many segments as the queue wants."""
    while queue.wants_driver:
        if queue.wants_segment:
            queue.push(next(segments, None))
        if (entry := queue.next_to_submit()) is None:
            continue
        try:
            request = entry.segment.request(model, options)
            entry.handle = session.add(request, prefetched=entry.prefetched, continues_stream=queue.started)
        except BarkfastError as error:
            queue.end(entry, error, final=True)
            continue
        queue.started = True
        entries[entry.handle] = entry
