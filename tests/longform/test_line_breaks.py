"""Line ends: intended ones end sentences, those that only wrap a text do not."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.longform import split_sentences
from barkfast.longform.line_breaks import find_breaks

PROSE = (
    "In the year 1912 Mr. Smith of Boston left for Rome with Anna and Maria, his two aunts. The Hotel Roma had one bed "
    "- he slept on the floor - and no lamp. Nobody, said Aunt Maria on page 12. of her diary, had ever been so poor. "
)


def lines_of(text: str) -> list[str]:
    return [sentence.text for sentence in split_sentences(text)]


@pytest.mark.parametrize("width", range(40, 100))
def test_wrapped_prose_is_the_same_as_unwrapped(width: int):
    assert lines_of(textwrap.fill(PROSE * 3, width, break_on_hyphens=False)) == lines_of(PROSE * 3)


WORD = st.text("abcdeABCDEÄß0", min_size=1, max_size=12)
# Words without list markers, so that no wrapped line looks like an item of a list.
SENTENCE = st.lists(WORD, min_size=1, max_size=30).map(lambda words: " ".join(words) + "z.")


@given(sentences=st.lists(SENTENCE, min_size=1, max_size=8), width=st.integers(40, 120))
def test_a_wrapped_text_is_split_as_an_unwrapped_one(sentences: list[str], width: int):
    text = " ".join(sentences)
    assert lines_of(textwrap.fill(text, width)) == lines_of(text)


@given(sentences=st.lists(SENTENCE, min_size=1, max_size=6), width=st.integers(40, 120), heading=WORD)
def test_blank_lines_always_end_sentences(sentences: list[str], width: int, heading: str):
    text = "\n\n".join([heading, *(textwrap.fill(sentence, width) for sentence in sentences)])
    expected = [heading, *(line for sentence in sentences for line in lines_of(sentence))]
    assert lines_of(text) == expected


ITEM = st.lists(WORD, min_size=1, max_size=15).map(" ".join)
MARKERS = ["- ", "* ", "+ ", "• ", "– ", "— ", "1. ", "12) ", "a) ", "(b) ", "iv) "]


@given(
    items=st.lists(ITEM, min_size=2, max_size=4), marker=st.sampled_from(MARKERS), intro=ITEM, width=st.integers(40, 90)
)
def test_list_items_are_sentences(items: list[str], marker: str, intro: str, width: int):
    lines = [marker + item for item in items]
    wrapped = [textwrap.fill(line, width, subsequent_indent="  ") for line in lines]
    assert lines_of("\n".join([textwrap.fill(f"{intro}:", width), *wrapped])) == [f"{intro}:", *lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Headings that text follows directly.
        ("Introduction\nHello there.", ["Introduction", "Hello there."]),
        ("CHAPTER I\n" + PROSE[:87], ["CHAPTER I", PROSE[:86]]),
        ("CHAPTER I.\nDown the Rabbit-Hole", ["CHAPTER I.", "Down the Rabbit-Hole"]),
        ("第一章\n今日は雨です。", ["第一章", "今日は雨です。"]),
        # Verse, names, an address.
        ("Roses are red\nViolets are blue,\nSugar is sweet", ["Roses are red", "Violets are blue, Sugar is sweet"]),
        ("Ann Smith\nBob Jr\n12 Long Road\nLondon", ["Ann Smith", "Bob Jr", "12 Long Road", "London"]),
        # Lists after a line with and without a mark; a single dash in prose.
        ("Apples\n- red\n- green", ["Apples", "- red", "- green"]),
        ("・牛乳\n・お茶", ["・牛乳", "・お茶"]),
        ("- Who is there?\n- Me\nThe door opened.", ["- Who is there?", "- Me", "The door opened."]),
        ("One line\nand its end.", ["One line and its end."]),
        ("A line of many words that is nearly full\n- by a hair - and goes on.",
         ["A line of many words that is nearly full - by a hair - and goes on."]),
        # Wrapped Chinese has no spaces between its lines.
        ("天" * 20 + "\n" + "地" * 20 + "\n" + "人。", ["天" * 20 + "地" * 20 + "人。"]),
        ("A word may be bro\u00ad\nken.", ["A word may be broken."]),
    ],
)  # fmt: skip
def test_what_line_ends_mean(text: str, expected: list[str]):
    assert lines_of(text) == expected


def test_a_block_of_one_line_has_no_break():
    assert find_breaks(["One line"]) == []
