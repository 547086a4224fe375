"""Invisible characters: removed, however the text is cut, but kept where they select the shape of a letter."""

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.errors import InputError
from barkfast.normalize import drop_invisible, normalize, normalize_stream
from barkfast.normalize.invisible import clean, read_lines

INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\ufeff\ufe0e\ufe0f\U000e0100\x00\x1b\x7f\u034f"
TEXT = st.text(st.one_of(st.sampled_from(INVISIBLE + "\r\n ab\u2029\x85\u0645\u06cc❤🔥"), st.characters()), max_size=60)


@pytest.mark.parametrize("character", INVISIBLE)
def test_words_stay_whole(character: str):
    assert drop_invisible(f"un{character}believ{character}{character}able{character} ") == "unbelievable "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Line ends, and words that a soft hyphen breaks there.
        ("a\r\nb\rc\x85d\u2028e\u2029f", "a\nb\nc\nd\ne\n\nf"),
        ("un\u00ad\nbroken, un\u00ad\r\nbroken", "unbroken, unbroken"),
        ("a\u00ad\n\nb\u00ad\n c", "a\n\nb\n c"),
        # Joiners in Persian, Hindi and emoji stay; elsewhere they mean nothing.
        ("می\u200cروم", "می\u200cروم"),
        ("क्\u200dष क्\u200cष", "क्\u200dष क्\u200cष"),
        ("👩\u200d🚀 ❤\ufe0f\u200d🔥", "👩\u200d🚀 ❤\u200d🔥"),
        ("می\u200c روم\u200c", "می روم"),
        ("f\u200cf f\u200df 👩\u200c🚀", "ff ff 👩🚀"),
        # What can be seen stays, and so does whitespace.
        ("\u0600١٢ a\tb\u00a0c\u3000d", "\u0600١٢ a\tb\u00a0c\u3000d"),
    ],
)
def test_what_is_left(text: str, expected: str):
    assert normalize(text) == drop_invisible(text) == expected


@given(text=TEXT, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_it_does_not_depend_on_how_the_text_is_cut(text: str, cuts: list[int]):
    edges = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    expected = drop_invisible(text)
    assert "".join(clean(parts)) == "".join(normalize_stream(parts)) == expected
    assert list(read_lines(parts, 7)) == list(read_lines([text], 7))
    assert "".join(read_lines(parts, 7)) == expected
    # A second pass changes nothing, and no visible character is lost.
    assert drop_invisible(expected) == expected
    seen = [c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Mn", "Cn", "Zl", "Zp")]
    assert seen == [c for c in expected if unicodedata.category(c) not in ("Cc", "Cf", "Mn", "Cn", "Zl", "Zp")]


def test_lines_are_cut_where_they_are_too_long():
    assert list(read_lines(["abcdefg\n", "", "abc", "\n\nxy"], 3)) == ["abc", "def", "g\n", "abc\n", "\n", "xy"]


def test_memory_is_constant_whatever_comes():
    # Of an endless run only one character is held back.
    noise = itertools.chain(itertools.repeat("\u00ad\u200d\u200b" * 100, 300), ["end"])
    assert "".join(clean(noise)) == "end"
    endless = read_lines(itertools.repeat("word "), 50)
    assert len(list(itertools.islice(endless, 100))) == 100


def test_what_is_no_text_is_refused():
    with pytest.raises(InputError, match="a part of the text is a int"):
        list(normalize_stream(["a", 7]))
    with pytest.raises(InputError, match="text is a bytes"):
        normalize_stream(b"a")
    with pytest.raises(InputError, match="text is a list"):
        normalize(["a"])
    for call in (normalize, normalize_stream):
        with pytest.raises(InputError, match="markup is 'html'; expected one of 'plain', 'markdown'"):
            call("a", "html")
