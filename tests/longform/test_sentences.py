"""Sentences: found in every language, with no text lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.errors import InputError
from barkfast.longform import split_sentences
from barkfast.longform.sentences import LANGUAGES, WINDOW, Sentence, language_of
from barkfast.normalize import drop_invisible

# Two sentences in each language; where the language has one, an abbreviation or a mark that ends no sentence.
TEXTS = {
    "en": ["Dr. Smith paid $3.50 for it.", "Did he really?"],
    "de": ["Das kostet z. B. 3,50 Euro.", "Wirklich?"],
    "es": ["El Sr. García llegó tarde.", "¿De verdad?"],
    "fr": ["M. Dupont est en retard.", "Vraiment ?"],
    "hi": ["यह एक वाक्य है।", "यह दूसरा है।"],
    "it": ["Il sig. Rossi è in ritardo.", "Davvero?"],
    "ja": ["今日は雨です。", "本当ですか？"],
    "ko": ["오늘은 비가 옵니다.", "정말요?"],
    "pl": ["Prof. Kowalski się spóźnił.", "Naprawdę?"],
    "pt": ["O Sr. Silva chegou tarde.", "Verdade?"],
    "ru": ["Сегодня идёт дождь.", "Правда?"],
    "tr": ["Bugün hava yağmurlu.", "Gerçekten mi?"],
    "zh": ["今天下雨。", "真的吗？"],
}


def bare(text: str) -> str:
    """A text without its whitespace and invisible characters."""
    return "".join(drop_invisible(text).split())


def texts_of(*args) -> list[str]:
    return [sentence.text for sentence in split_sentences(*args)]


def test_every_language_has_its_example():
    assert sorted(TEXTS) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_two_sentences_are_found_in_every_language(language: str):
    sentences = TEXTS[language]
    space = "" if language in ("ja", "zh") else " "
    assert texts_of(space.join(sentences), language) == sentences


@pytest.mark.parametrize("language", ["hi", "ja", "ko", "ru", "zh"])
def test_the_script_tells_the_language(language: str):
    space = "" if language in ("ja", "zh") else " "
    assert texts_of(space.join(TEXTS[language])) == TEXTS[language]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well... he left.", ["Well... he left."]),
        ("Wait. What?! No!", ["Wait.", "What?!", "No!"]),
        ("One line\nand its end.", ["One line and its end."]),
        ("Heading\n\nText.", ["Heading", "Text."]),
        ("A.\r\n\r\nB.", ["A.", "B."]),
        ("...", ["..."]),
        ("— — —", ["— — —"]),
        ("1984", ["1984"]),
        ("[laughs]", ["[laughs]"]),
        ("1. Apples are red. 2. Pears are green.", ["1. Apples are red.", "2. Pears are green."]),
        ("exam\u00ada. Next.", ["exama.", "Next."]),
    ],
)
def test_marks_that_end_no_sentence(text: str, expected: list[str]):
    assert texts_of(text, "en") == expected


def test_paragraphs_end_at_blank_lines_alone():
    found = list(split_sentences("A first. A second\nstill it.\n \nA third.\n\n\n\nA fourth."))
    assert [(s.text, s.ends_paragraph) for s in found] == [
        ("A first.", False),
        ("A second still it.", True),
        ("A third.", True),
        ("A fourth.", True),
    ]


INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u2060\ufeff\ufe0f\x1b"
WORDS = st.text(
    st.one_of(
        st.sampled_from(INVISIBLE),
        st.sampled_from(".!?…,;:\"'“”«»()[]—- \n\r\t。！？、「」।¿¡"),
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFG"),
    ),
    max_size=300,
)


@given(text=WORDS, language=st.sampled_from([None, *LANGUAGES]), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_nothing_is_lost_however_the_text_comes(text: str, language: str | None, cuts: list[int]):
    edges = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    found = list(split_sentences(parts, language))
    assert bare("".join(s.text for s in found)) == bare(text)
    assert all(s.text == " ".join(s.text.split()) and s.text for s in found)
    assert found == list(split_sentences([text], language))


@given(
    blocks=st.lists(
        st.one_of(
            WORDS, st.sampled_from(["\r", "\n", "\r\n", "\n\n", "- x\n", "1. X", " " * 500, "Word. " * 90, "y" * 900])
        ),
        max_size=20,
    ),
    cuts=st.lists(st.integers(0, 9000), max_size=8),
)
def test_sentences_do_not_depend_on_how_the_text_is_cut(blocks: list[str], cuts: list[int]):
    text = "".join(blocks)
    edges = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    found = list(split_sentences([text], "en"))
    assert list(split_sentences(parts, "en")) == found
    assert list(split_sentences(iter(text), "en")) == found
    assert bare("".join(s.text for s in found)) == bare(text)


LETTERS = st.text("abcdefgABC.!? \n-1", max_size=120)


@given(text=LETTERS, places=st.lists(st.tuples(st.integers(0, 120), st.sampled_from(INVISIBLE)), max_size=20))
def test_invisible_characters_change_nothing(text: str, places: list[tuple[int, str]]):
    marked = text
    for place, character in places:
        # A soft hyphen before a line end joins the lines.
        if not (character == "\u00ad" and marked[place:].lstrip(INVISIBLE)[:1] == "\n"):
            marked = marked[:place] + character + marked[place:]
    assert list(split_sentences([marked], "en")) == list(split_sentences([text], "en"))


@given(text=WORDS, times=st.integers(10, 30))
def test_nothing_is_lost_where_a_text_is_cut_into_windows(text: str, times: int):
    # Without a blank line, so that windows end inside of the paragraph.
    text = " ".join((drop_invisible(text) * times).split())
    if text:
        found = list(split_sentences(text, "en"))
        assert bare("".join(s.text for s in found)) == bare(text)
        assert found[-1].ends_paragraph and not any(s.ends_paragraph for s in found[:-1])


def test_a_paragraph_ends_wherever_its_last_line_was_cut():
    for length in range(WINDOW - 2, WINDOW + 3):
        for space in ("", " ", " " * WINDOW, " " * 2 * WINDOW):
            found = list(split_sentences(["x" * length + space + "\n", "\n", "Next."], "en"))
            assert found[-1] == Sentence("Next.", "paragraph") and found[-2].ends_paragraph


def test_line_ends_come_in_parts():
    assert texts_of(["It rained and\r", "\nwe stayed."], "en") == ["It rained and we stayed."]
    assert texts_of(["Heading\r", "\r", "Text."], "en") == ["Heading", "Text."]
    assert texts_of("Heading\u2029Text.", "en") == ["Heading", "Text."]


def test_full_stops_after_letters_with_signs_end_sentences():
    # A vowel sign precedes the last letter, so the letter is not taken for an initial.
    assert texts_of("वे लोग. हम आए.", "hi") == ["वे लोग.", "हम आए."]


def test_words_are_not_torn_at_the_seams_of_windows():
    sentence = "The quick brown fox jumps over the lazy dog. "
    assert set(texts_of(sentence * 200, "en")) == {sentence.strip()}
    # Nor where there are no sentences at all.
    words = "".join(texts_of("word " * 2000, "en")).replace("word", "")
    assert not words.strip()


def test_sentences_come_before_the_text_has_ended():
    read = []

    def lines():
        for number in itertools.count():
            read.append(number)
            yield f"This is line {number} of a book without an end.\n"

    first = list(itertools.islice(split_sentences(lines(), "en"), 100))
    assert first[99].text == "This is line 99 of a book without an end."
    assert len(read) < 100 + 2 * WINDOW / 40


def test_what_breaks_the_library_breaks_nothing_else(monkeypatch: pytest.MonkeyPatch):
    class PanicException(BaseException):
        pass

    def panic(language, text):
        raise PanicException("index out of bounds")

    monkeypatch.setattr("sentencex.segment", panic)
    assert texts_of("A first. A second.", "en") == ["A first. A second."]
    monkeypatch.setattr("sentencex.segment", lambda language, text: [text[:3]])
    assert texts_of("A first. A second.", "en") == ["A first. A second."]

    def interrupt(language, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("sentencex.segment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        texts_of("A first.", "en")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "nothing to say"), (" \n", "nothing to say"), (b"bytes", "a bytes"), (7, "a int"), (None, "a NoneType")],
)
def test_what_is_no_text_is_refused_at_once(text, message: str):
    with pytest.raises(InputError, match=message):
        split_sentences(text)


def test_bad_parts_and_languages_are_named():
    with pytest.raises(InputError, match="'xx'"):
        split_sentences("Hello.", "xx")
    with pytest.raises(InputError, match="a part of the text is a bytes"):
        list(split_sentences([b"Hello."]))
    with pytest.raises(InputError, match="UTF-8"):
        list(split_sentences("Hello \udcff."))


def test_voices_name_their_language():
    assert language_of("v2/de_speaker_3") == "de"
    assert language_of("zh_speaker_0") == "zh"
    assert language_of("announcer") is None
    assert language_of("mine/de_speaker_3") is None
    assert language_of({"semantic_prompt": None}) is None
