"""Markdown: converted to the text that people read aloud, in streams too."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.normalize import SOUND_TAGS, end_mark, normalize, normalize_stream
from barkfast.normalize.markdown_blocks import cut_portions
from longform.test_chunks import is_text

LIST = """- apples
- [ ] pears,
- [x] plums: ripe
  - *nested*

  more of it
"""
CASES = [
    # Within a line.
    ("[the page](https://example.com/a_b \"title\") and ![a *cat*](cat.png)![](x.png)", "the page and a cat"),
    ("**bold** _it_ ***both*** ~~old~~ `code` snake_case 2 * 3", "bold it both old code snake_case 2 * 3"),
    ("a\nb  \nc\\\nd<br>e", "a b\nc\nd\ne"),
    ("中文\n中文", "中文中文"),
    ("AT&amp;T &copy; \\*no\\* <b>bold</b> <kbd>x</kbd><!-- gone -->", "AT&T © *no* bold x"),
    ("a < b > c, List<String>, <laughs>", "a < b > c, List<String>, <laughs>"),
    # Addresses are read as the names of their sites.
    ("See https://www.example.com/a/b?c=d#e, or <http://a.org:80/x>.", "See example.com, or a.org."),
    ("Mail <me@example.com> or (ftp://files.net/x).", "Mail me@example.com or (files.net)."),
    ("[https://example.com/long](https://example.com/long)", "example.com"),
    # Brackets that are no links.
    ("[1] and [note], [sic] x[i] [a][b] [^1 [", "[1] and [note], [sic] x[i] [a][b] [^1 ["),
    ("[laughs] `[sighs]` [laughs](softly) [Clears throat][1]", "[laughs] [sighs] [laughs](softly) [Clears throat][1]"),
    ("[Narrator]: Hello!\n\n[MAN]: Hi.", "[Narrator]: Hello!\n\n[MAN]: Hi."),
    ("MAN: Hi — ♪ la la ♪ ... WOMAN: no", "MAN: Hi — ♪ la la ♪ ... WOMAN: no"),
    # Links with their addresses elsewhere, and footnotes.
    ("[a page][p], [p] and [P][]\n\n[p]: https://example.com 'title'", "a page, p and P"),
    ("Text[^1] goes on [^note].\n\n[^1]: Said below.", "Text goes on.\n\nSaid below."),
    # Blocks.
    ("# One *x* #\ntext\n\nTwo\n===\n\n### Three?\n#", "One x.\n\ntext.\n\nTwo.\n\nThree?"),
    ("題名\n===\n\n# शीर्षक\n", "題名。\n\nशीर्षक।"),
    (LIST, "apples.\npears.\nplums: ripe.\nnested.\nmore of it."),
    ("1. one\n1) other\n\n7. seven", "1. one.\n\n1) other.\n\n7. seven."),
    ("| a | *b* |\n|---|---|\n| 1 | 2, |\n|   | x! |", "a, b.\n1, 2.\nx!"),
    ("> quote\n> goes on\n>> deeper\n\ntext", "quote goes on.\n\ndeeper.\n\ntext"),
    ("a\n\n```python\nx = [1]\n\ny\n```\nb\n\n~~~\nz", "a.\n\nb"),
    ("a\n\n***\n\n---\nb", "a.\n\nb"),
    ("    indented\n    verse", "indented verse"),
    ("a\n<!-- x\n\n# y -->\n\nb\n\n<script>\n\n# z\n</script>\n", "a.\n\nb"),
    ("<div align='center'>\n<h1>Big\n&eacute;</h1><p>Para</p></div>\n\nx", "Big é.\nPara.\n\nx"),
    ("---\ntitle: x\nlang: en\n---\n# A", "A."),
    ("---\n\nno: settings", "no: settings"),
    ("", ""),
    ("```\nx", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_markdown_is_read_as_people_read_it(text: str, expected: str):
    assert normalize(text, "markdown") == expected


def test_cases_follow_each_other():
    # Without cases that must begin a text or go on to its end, and without links that another case might define.
    cases = [
        (text, said)
        for text, said in CASES
        if said and not text.startswith("---") and "\n~~~" not in text and "[a]" not in text
    ]
    text, expected = "\n\n".join(text for text, _ in cases), "\n\n".join(said + end_mark(said) for _, said in cases)
    assert normalize(text + "\n\n#", "markdown") == expected.removesuffix(end_mark(cases[-1][1]))


BLOCKS = [text for text, _ in CASES] + ["\n", "\r\n", "- ", "> ", "# ", "\u00ad", "```\n", "<!--", "-->", "|", " "]


@given(blocks=st.lists(st.one_of(st.sampled_from(BLOCKS), st.text(max_size=20)), max_size=8), data=st.data())
def test_it_does_not_depend_on_how_the_text_is_cut(blocks: list[str], data: st.DataObject):
    text = "\n\n".join(blocks)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6))), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert "".join(normalize_stream(parts, "markdown")) == "".join(normalize_stream(iter(text), "markdown"))


@given(st.text(st.sampled_from("ab [].,\n|"), max_size=60))
def test_brackets_are_never_swallowed(text: str):
    kept = "".join(c for c in normalize(text, "markdown") if c in "ab")
    assert kept == "".join(c for c in text if c in "ab")
    if "|" not in text:
        # Except for the full stops after paragraphs.
        assert is_text(normalize(text, "markdown"), text)


@pytest.mark.parametrize("tag", SOUND_TAGS)
def test_sound_tags_stay(tag: str):
    for around in ("{}", "*{}*", "`{}`", "{}(x)", "# {}", "- {}", "| {} |\n|---|", "{}: x"):
        assert f"[{tag}]" in normalize(around.format(f"[{tag}]"), "markdown")


def test_a_stream_is_read_before_it_ends():
    read = []

    def book():
        for number in itertools.count():
            read.append(number)
            yield f"## Chapter {number}\n\nText of *chapter* {number}.\n\n"

    said = "".join(itertools.islice(normalize_stream(book(), "markdown"), 4))
    assert said == "Chapter 0.\n\nText of chapter 0.\n\nChapter 1.\n\nText of chapter 1.\n\n"
    assert len(read) < 10
    # A stream does not know an address that is defined later.
    assert "".join(normalize_stream(["[a][p] [p]\n\n[p]: https://x.org\n\n[a][p]"], "markdown")) == "[a][p] [p]\n\na"


@pytest.mark.parametrize("line", ["word ", "- a\n", "> ", "    x\n\n", "`", "[", "*a_", "| a ", "<!-- ", "```\n", "<"])
def test_blocks_without_end_are_cut(line: str):
    portions = cut_portions(itertools.repeat(line * 64))
    assert all(len(portion) <= 32_768 + 4 for portion in itertools.islice(portions, 3))


@pytest.mark.parametrize("piece", ["[", "*", "`a", "<a ", "![", "[a](", "https://", "](", "**a _", "> ", "<!--", "|a"])
def test_no_text_takes_long(piece: str):
    start = time.process_time()
    normalize(piece * (10_000 // len(piece)), "markdown")
    assert time.process_time() - start < 5
