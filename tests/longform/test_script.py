"""Dialogue scripts: speakers and their lines, and errors that name the line."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.errors import InputError
from barkfast.longform import Line, parse_script, split_chunks
from barkfast.longform.script import find_speaker

PLAY = """# A play.
ALICE: Who is there?

Bob Jr.:  It is me,
  and I said: open!
and quickly.
# A comment.
ALICE : Coming: at once.
王：你好。
"""
LINES = [
    Line("ALICE", "Who is there?", 2),
    Line("Bob Jr.", "It is me,\nand I said: open!\nand quickly.", 4),
    Line("ALICE", "Coming: at once.", 8),
    Line("王", "你好。", 9),
]


def test_a_script_is_read_line_by_line():
    assert list(parse_script(PLAY)) == LINES
    assert list(parse_script(io.StringIO(PLAY))) == LINES
    assert list(parse_script(PLAY.splitlines())) == LINES


def test_invisible_characters_make_nobody_else():
    assert list(parse_script("\ufeffALICE: Hi.\nAL\u200bICE: Un\u00adseen.\n\u200b\n")) == [
        Line("ALICE", "Hi.", 1),
        Line("ALICE", "Unseen.", 2),
    ]


def test_lines_of_one_speaker_may_be_sentences():
    (line,) = parse_script("ALICE: We need:\n  - apples\n  - green pears\n  and that is all.")
    said = ["We need:", "- apples", "- green pears and that is all."]
    assert [chunk.text for chunk in split_chunks(line.text, "en", each_sentence=True)] == said


def test_a_script_can_be_a_list():
    pairs = [("A", "Hello: you."), ["B", "Hi."], {"speaker": "A", "text": "Bye."}]
    assert list(parse_script(pairs)) == [Line("A", "Hello: you.", 1), Line("B", "Hi.", 2), Line("A", "Bye.", 3)]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "the script is empty"),
        ("# Nothing.\n\n", "the script is empty"),
        ("\nHello there.\nALICE: Hi.", "line 2: 'Hello there.' has no speaker"),
        ("  ALICE: Hi.", "line 1: .* has no speaker"),
        ("ALICE: Hi.\nBOB:\nALICE: Bye.", "line 2: BOB says nothing"),
        ("ALICE: Hi.\nBOB:", "line 2: BOB says nothing"),
        ([("A",)], "entry 1"),
        ([("A", "Hi."), ("", "Hi.")], "entry 2"),
        ([("A", "Hi."), ("B", 7)], "entry 2"),
        ([{"speaker": "A"}], "entry 1"),
        ([7], "entry 1"),
        ([("A", " ")], "line 1: A says nothing"),
        (7, "script is a int"),
        (b"A: Hi.", "script is a bytes"),
    ],
)
def test_what_is_no_line_is_named(script, message: str):
    with pytest.raises(InputError, match=message):
        list(parse_script(script))


def test_speakers_are_found_whatever_their_case():
    assert find_speaker(Line("Alice", "Hi.", 1), ["ALICE", "BOB"]) == "ALICE"
    assert find_speaker(Line("bob", "Hi.", 1), ["ALICE", "BOB", "bob"]) == "bob"


@pytest.mark.parametrize(
    ("name", "cast", "message"),
    [
        ("ALICIA", ["ALICE", "BOB"], "line 7: unknown speaker 'ALICIA'; did you mean 'ALICE'"),
        ("He said", ["ALICE", "BOB"], "Expected one of ALICE, BOB.*indent the line"),
        ("ALICE", [], "nobody has a voice"),
    ],
)
def test_an_unknown_speaker_is_named_with_its_line(name: str, cast: list[str], message: str):
    with pytest.raises(InputError, match=message):
        find_speaker(Line(name, "Hi.", 7), cast)


NAMES = st.from_regex(r"[A-Z][A-Za-z]{0,10}", fullmatch=True)
SAID = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=40).filter(
    lambda text: not text.startswith("#")
)


@given(st.lists(st.tuples(NAMES, SAID), min_size=1, max_size=20))
def test_what_is_written_is_read(pairs: list[tuple[str, str]]):
    script = "\n".join(f"{name}: {text}" for name, text in pairs)
    found = list(parse_script(script))
    assert [(line.speaker, line.text) for line in found] == pairs
    assert [line.number for line in found] == list(range(1, len(pairs) + 1))
    assert list(parse_script(pairs)) == found
