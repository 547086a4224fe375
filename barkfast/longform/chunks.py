"""Pack sentences into chunks that the model can speak in one utterance."""

import math
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from barkfast.errors import InputError
from barkfast.longform.rates import estimate_seconds, guess_language
from barkfast.longform.sentences import Sentence, check_language, check_source, split_sentences
from barkfast.normalize import Markup, end_mark, normalize, normalize_stream
from barkfast.normalize.punctuation import is_wide

Ending = Literal["word", "clause", "sentence", "paragraph"]

# Suno's Bark speaks well for about this long; at 15.4 seconds it stops, even in mid-sentence.
SECONDS = 13.0
_CLOSING = "\"'»”’)\\]」』）】》〉"
# Where a sentence that is too long may be cut, the best points first: after an inner sentence (for example in quotes),
# after a clause, after a word. Tags such as [clears throat] are words.
_CUTS: tuple[tuple[Ending, re.Pattern[str]], ...] = (
    (
        "sentence",
        re.compile(
            rf"(?:(?<=[.!?…])|(?<=[.!?…][{_CLOSING}]))\s+|(?<=[。！？｡।])(?![{_CLOSING}])|(?<=[。！？｡][{_CLOSING}])"
        ),
    ),
    ("clause", re.compile(rf"(?:(?<=[,;:)\]—–])|(?<=[,;:][{_CLOSING}]))\s+|\s+(?=[—–(-]\s?)|(?<=[，、；：､])")),
    ("word", re.compile(r"\s+(?![^\[\]]{0,40}\])")),
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The text of one utterance.

    Args:
        text: with its whitespace normalized.
        ending: what ends with it; "word" and "clause" occur only in a sentence that had to be cut.
        silent: the model drops all of it.
    """

    text: str
    ending: Ending = "paragraph"
    silent: bool = False

    @property
    def speakable(self) -> bool:
        """Whether there is anything to pronounce in it: a letter, a digit, a tag such as [laughs], or a note."""
        return not self.silent and any(character.isalnum() or character in "[♪♫" for character in self.text)


def glue(first: str, second: str) -> str:
    """Join two texts, with a space between them unless their script is written without spaces."""
    if not first or not second:
        return first or second
    return first + second if is_wide(first[-1]) else f"{first} {second}"


def _characters(text: str) -> list[str]:
    """The characters of a text, each with its combining marks and joined characters."""
    found: list[str] = []
    for character in text:
        if found and (unicodedata.category(character)[0] == "M" or "\u200d" in (character, found[-1][-1])):
            found[-1] += character
        else:
            found.append(character)
    return found


def _units(text: str, level: int) -> list[str]:
    """The parts between the points where a text may be cut, each with the whitespace that follows it."""
    starts = [0, *(match.end() for match in _CUTS[level][1].finditer(text)), len(text)]
    return [text[a:b] for a, b in zip(starts, starts[1:], strict=False) if a < b]


def _count(load: Callable[[int], float], wanted: float, most: int) -> int:
    """The smallest n in 1..most with a load of at least `wanted`, or most; tries few n, and none much larger."""
    reach = 1
    while reach < most and load(reach) < wanted:
        reach *= 2
    low = reach // 2 + 1
    return min(most, low + bisect_left(range(low, min(reach, most)), wanted, key=load))


def _split(text: str, load: Callable[[str], float], level: int = 0) -> Iterator[tuple[str, Ending]]:
    """Split a text that is too long for one chunk into parts of about the same length that fit."""
    ending: Ending = _CUTS[level][0] if level < len(_CUTS) else "word"
    units = _units(text, level) if level < len(_CUTS) else _characters(text)
    # As few parts as possible, and none much shorter than the others.
    total = load(text)
    enough = total / max(1, math.ceil(total))
    held, first = "", 0

    def stretch(n: int) -> str:
        return (held + "".join(units[first : first + n])).strip()

    while first < len(units):
        n = _count(lambda n: load(stretch(n)), enough, len(units) - first)
        if load(stretch(n)) > 1:
            # Too long with the last unit. If it is far too short without it, that unit is cut further.
            fits_alone = load(units[first + n - 1].strip()) <= 1
            if stretch(n - 1) and (fits_alone or load(stretch(n - 1)) >= enough / 2):
                n -= 1
            if load(stretch(n)) > 1 and level < len(_CUTS):
                *parts, (last, _) = _split(stretch(n), load, level + 1)
                yield from parts
                # The next units may be added to the remainder of the cut unit.
                end = units[first + n - 1]
                held, first = last + end[len(end.rstrip()) :], first + n
                continue
        if stretch(n):
            yield stretch(n), ending
        held, first = "", first + n
    if held.strip():
        yield held.strip(), ending


def split_long(text: str, load: Callable[[str], float], ending: Ending) -> list[Chunk]:
    """Split a text into chunks with a load of at most 1, as far as it can be cut; the last one gets `ending`."""
    if load(text) <= 1:
        return [Chunk(text, ending)]
    parts = [part for part in _split(text, load) if part[0]]
    return [Chunk(part, ending if index == len(parts) - 1 else end) for index, (part, end) in enumerate(parts)]


def split_chunks(
    text: str | Iterable[str],
    language: str | None = None,
    *,
    seconds: float = SECONDS,
    count_tokens: Callable[[str], int] | None = None,
    max_tokens: int = 256,
    each_sentence: bool = False,
    markup: Markup = "plain",
) -> Iterator[Chunk]:
    """Split a text of any length into chunks that the model can speak in one utterance.

    Args:
        text, language: as in `split_sentences`.
        seconds: the longest duration of a chunk, by the estimate in barkfast.longform.rates.
        count_tokens: the model's tokens of a text; a chunk has at most `max_tokens`. None: no limit.
        each_sentence: a chunk for each sentence (or part of one), instead of as many sentences as fit.
        markup: the markup of the text, see `barkfast.normalize.normalize`.

    Chunks hold whole sentences, and end with the paragraph. A sentence that is too long is cut at clauses, else at
    words, else anywhere. Joined, the chunks are the text, except for whitespace, invisible characters and full stops
    added between lines without a mark in one chunk. Marks with nothing to pronounce stay with the sentence before them.

    Raises:
        InputError: see `split_sentences`; seconds or tokens are too small.
    """
    check_language(language)
    check_source(text)
    if not seconds > 0:
        raise InputError(f"seconds is {seconds!r}; expected a positive number, e.g. {SECONDS}")
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens!r}; expected at least 1")
    if markup != "plain":
        text = [normalize(text, markup)] if isinstance(text, str) else normalize_stream(text, markup)

    def load(part: str) -> float:
        """How full a chunk with this text is: above 1 is too full."""
        spoken = estimate_seconds(part, language or guess_language(part)) / seconds
        return spoken if count_tokens is None else max(spoken, count_tokens(part) / max_tokens)

    return _pack(split_sentences(text, language), load, each_sentence)


_ENDINGS: dict[str, Ending] = {"part": "word", "mark": "sentence", "line": "sentence", "paragraph": "paragraph"}


def _pack(sentences: Iterable[Sentence], load: Callable[[str], float], each_sentence: bool) -> Iterator[Chunk]:
    held: Chunk | None = None
    # The full stop that the held text needs if speech follows it in the same chunk.
    stop = ""
    for sentence in sentences:
        for chunk in split_long(sentence.text, load, _ENDINGS[sentence.end]):
            if held is not None:
                speaks = held.speakable and chunk.speakable
                both = glue(held.text + stop * speaks, chunk.text)
                apart = speaks and (each_sentence or held.ending == "paragraph")
                if load(both) <= 1 and not apart:
                    chunk = Chunk(both, chunk.ending)
                else:
                    yield held
            held, stop = chunk, ""
        stop = end_mark(sentence.text) if sentence.end == "line" else ""
    if held is not None:
        yield held
