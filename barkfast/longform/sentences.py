"""Text into sentences, as it comes, with nothing lost."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from barkfast.errors import InputError
from barkfast.longform.rates import guess_language
from barkfast.voices import SUPPORTED_LANGS, VOICE_NAMES

LANGUAGES = tuple(code for _, code in SUPPORTED_LANGS)
# Characters looked at together. Long enough for any sentence that can be said in one breath, short enough for books
# of one line; sentencex itself looks at 10 kB together, which this is in any script.
WINDOW = 2000
_PIECE = re.compile(rf"[^\r\n]{{0,{WINDOW}}}(?:\r\n?|\n)|[^\r\n]{{1,{WINDOW}}}")
_LINE_ENDS = ("\n", "\r")
_WHITESPACE = re.compile(r"\s+")
# A single letter before the full stop: the initial of a name, or a title such as the French "M.".
_INITIAL = re.compile(r"(?<!\w)[^\W\d_]\.\s*$")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence.

    Args:
        text: with its whitespace normalized; what holds no sentence end within `WINDOW` characters comes in parts.
        ends_paragraph: whether a blank line, or the end of the text, follows.
    """

    text: str
    ends_paragraph: bool = False


def language_of(voice: Any) -> str | None:
    """The language in the name of one of Suno's voices, else None."""
    if isinstance(voice, str) and voice in VOICE_NAMES:
        code = voice.rpartition("/")[2].partition("_")[0]
        return code if code in LANGUAGES else None
    return None


def check_language(language: str | None) -> None:
    """Raise InputError for a language that Bark does not speak; None is any."""
    if language is not None and language not in LANGUAGES:
        raise InputError(
            f"language is {language!r}; expected one of {', '.join(LANGUAGES)}, or None to go by the script"
        )


def check_source(text: object) -> None:
    """Raise InputError unless this is a str, not blank, or something that yields them."""
    if isinstance(text, str):
        if not text or text.isspace():
            raise InputError(f"text is {text[:80]!r}: nothing to say; expected at least one visible character")
    elif isinstance(text, bytes | bytearray) or not isinstance(text, Iterable):
        raise InputError(f"text is a {type(text).__name__}; expected a str, or an iterable of str such as a file")


def _pieces(text: str | Iterable[str]) -> Iterator[str]:
    """The text in pieces of at most `WINDOW` characters, of which none goes beyond the end of a line."""
    for part in [text] if isinstance(text, str) else text:
        if not isinstance(part, str):
            raise InputError(f"a part of the text is a {type(part).__name__}; expected str")
        for match in _PIECE.finditer(part):
            piece = match.group()
            if _SURROGATE.search(piece):
                raise InputError(f"text is {piece[:80]!r}: it holds bytes that are not valid UTF-8; fix its coding")
            yield piece


def _windows(text: str | Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Stretches of at most two windows' length, whitespace at their seams kept, and whether a paragraph ends there."""
    held: list[str] = []
    size = 0
    # Whether a line begins here, and whether the paragraph has begun in an earlier stretch.
    line_start, begun = True, False
    for piece in _pieces(text):
        if not piece.isspace():
            held.append(piece)
            size += len(piece)
            if size >= WINDOW:
                yield "".join(held), False
                held, size, begun = [], 0, True
        elif line_start and piece.endswith(_LINE_ENDS):
            if held or begun:
                yield "".join(held), True
            held, size, begun = [], 0, False
        elif (held or begun) and held[-1:] != [" "]:
            # However much whitespace there is, one space says as much.
            held.append(" ")
        line_start = piece.endswith(_LINE_ENDS)
    if held or begun:
        yield "".join(held), True


def _segment(text: str, language: str) -> list[str]:
    """The sentences of a stretch of text, whitespace and all: joined they are the text."""
    import sentencex

    try:
        found = sentencex.segment(language, text)
    except BaseException as error:
        # What a bug of a Rust library raises is no Exception, and has no name that could be imported.
        if type(error).__name__ != "PanicException":
            raise
        found = []
    if "".join(found) != text:
        return [text]
    sentences: list[str] = []
    for sentence in found:
        if sentences and (not sentence.strip() or _INITIAL.search(sentences[-1])):
            sentences[-1] += sentence
        else:
            sentences.append(sentence)
    return sentences


def _cut(text: str) -> tuple[str, str]:
    """Cut a stretch without a sentence end in two, at its last space if it has one."""
    space = text.rstrip().rfind(" ") + 1
    return (text[:space], text[space:]) if space > len(text) // 2 else (text, "")


def split_sentences(text: str | Iterable[str], language: str | None = None) -> Iterator[Sentence]:
    """Split a text into its sentences, one after the other.

    Args:
        text: a str, or an iterable of them (a file, say) that are read as one text; a blank line ends a paragraph.
        language: one of the 13 that Bark speaks, for its abbreviations and marks; None goes by the script of each part.

    The sentences joined are the text, up to whitespace. At most a few thousand characters are held at a time.

    Raises:
        InputError: a language that Bark does not speak, something that is no text.
    """
    check_language(language)
    check_source(text)
    return _split(text, language)


def _split(text: str | Iterable[str], language: str | None) -> Iterator[Sentence]:
    carried = ""
    for window, ends in _windows(text):
        block = _WHITESPACE.sub(" ", carried + window).lstrip()
        if not block:
            continue
        *whole, last = _segment(block, language or guess_language(block))
        carried = ""
        if not ends:
            # What follows may belong to the last one.
            if len(last) >= WINDOW:
                last, carried = _cut(last)
                whole.append(last)
            else:
                carried = last
        else:
            whole.append(last)
        texts = [stripped for sentence in whole if (stripped := sentence.strip())]
        for index, sentence in enumerate(texts):
            yield Sentence(sentence, ends and index == len(texts) - 1)
    if carried.strip():
        yield Sentence(carried.strip(), True)
