"""Split text into sentences while it arrives, without losing any of it."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from barkfast.errors import InputError
from barkfast.longform.line_breaks import is_number, read_stretches
from barkfast.longform.rates import guess_language
from barkfast.normalize.invisible import clean
from barkfast.normalize.normalize import check_parts
from barkfast.voices import SUPPORTED_LANGS, VOICE_NAMES

LANGUAGES = tuple(code for _, code in SUPPORTED_LANGS)
# Characters processed together. Long enough for any sentence that fits in an utterance, short enough for books of one
# line; sentencex itself processes 10 kB together, and this is less in any script.
WINDOW = 2000
_WHITESPACE = re.compile(r"\s+")
# A single letter before the full stop, not preceded by another letter or a combining mark: the initial of a name, or a
# title such as the French "M.".
_INITIAL = re.compile(r"(?P<before>.?)(?P<letter>[^\W\d_])\.\s*$", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


# What ends a sentence: nothing (it continues in the next one), its own mark, a line end, a blank line.
End = Literal["part", "mark", "line", "paragraph"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence.

    Args:
        text: with its whitespace normalized; text without a sentence end within `WINDOW` characters comes in parts.
        end: what ends it. The end of the text counts as a blank line.
    """

    text: str
    end: End = "mark"

    @property
    def ends_paragraph(self) -> bool:
        """Whether a blank line, or the end of the text, follows."""
        return self.end == "paragraph"


def language_of(voice: Any) -> str | None:
    """The language in the name of one of Suno's voices, else None."""
    if isinstance(voice, str) and voice in VOICE_NAMES:
        code = voice.rpartition("/")[2].partition("_")[0]
        return code if code in LANGUAGES else None
    return None


def check_language(language: str | None) -> None:
    """Raise InputError for a language that Bark does not speak; None is valid."""
    if language is not None and language not in LANGUAGES:
        raise InputError(
            f"language is {language!r}; expected one of {', '.join(LANGUAGES)}, or None to go by the script"
        )


def check_source(text: object) -> None:
    """Raise InputError unless `text` is a str that is not blank, or an iterable."""
    if isinstance(text, str):
        if not any(map(str.strip, clean(text))):
            raise InputError(f"text is {text[:80]!r}: nothing to say; expected at least one visible character")
    else:
        check_parts(text)


def _segment(text: str, language: str) -> list[str]:
    """The sentences of a stretch of text, including all whitespace: joined they are the text."""
    import sentencex

    try:
        found = sentencex.segment(language, text)
    except BaseException as error:
        # A panic in a Rust library is not an Exception, and its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        found = []
    if "".join(found) != text:
        return [text]
    sentences: list[str] = []
    for sentence in found:
        if sentences and (not sentence.strip() or _goes_on(sentences[-1])):
            sentences[-1] += sentence
        else:
            sentences.append(sentence)
    return sentences


def _goes_on(sentence: str) -> bool:
    """Whether the full stop at the end is not a sentence end: it belongs to an initial, or to a list item's number."""
    if match := _INITIAL.search(sentence):
        before = match["before"]
        return not (before.isalnum() or before == "_" or unicodedata.category(before or " ")[0] in "MC")
    return is_number(sentence)


def _cut(text: str) -> tuple[str, str]:
    """Cut a stretch without a sentence end in two, at its last space if it has one."""
    space = text.rstrip().rfind(" ") + 1
    return (text[:space], text[space:]) if space > len(text) // 2 else (text, "")


def split_sentences(text: str | Iterable[str], language: str | None = None) -> Iterator[Sentence]:
    """Split a text into its sentences, one after the other.

    Args:
        text: a str, or an iterable of str (for example a file) that is read as one text. A blank line ends a sentence
            and a paragraph; other line ends end a sentence if barkfast.longform.line_breaks finds them intended.
        language: one of the 13 that Bark speaks, for its abbreviations and marks; None guesses from each part's script.

    Joined, the sentences are the text, except for whitespace and invisible characters. They do not depend on how the
    text is cut. At most a few thousand characters are held at a time.

    Raises:
        InputError: Bark does not speak the language, or `text` is not a text.
    """
    check_language(language)
    check_source(text)
    return _split(text, language)


def _check_coding(text: str) -> None:
    if _SURROGATE.search(text):
        raise InputError(f"text is {text[:80]!r}: it holds bytes that are not valid UTF-8; fix its coding")


def _split(text: str | Iterable[str], language: str | None) -> Iterator[Sentence]:
    carried = ""
    # The latest part of an unfinished sentence, held until it is known whether the sentence continues.
    part: list[str] = []
    for stretch, follows in read_stretches(text, WINDOW):
        _check_coding(stretch)
        block = _WHITESPACE.sub(" ", carried + stretch).lstrip()
        if not block and follows == "more":
            continue
        carried = ""
        found = _segment(block, language or guess_language(block)) if block else part
        if block:
            yield from (Sentence(sentence, "part") for sentence in part)
        part = []
        # The next stretch may belong to the last sentence.
        if follows == "more" and len(found[-1]) < WINDOW:
            carried = found.pop()
        elif follows == "more":
            last, carried = _cut(found.pop())
            part = [last.strip()]
        for index, sentence in enumerate(found):
            end: End = follows if follows != "more" and index == len(found) - 1 else "mark"
            yield Sentence(sentence.strip(), end)
