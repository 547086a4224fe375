"""Chunks: they fit the limits, hold whole sentences where possible, and together give the text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.bench.comparison import PROMPTS
from barkfast.errors import InputError
from barkfast.longform import Chunk, split_chunks
from barkfast.longform.chunks import SECONDS, glue, split_long
from barkfast.longform.joining import PAUSES, pause_after
from barkfast.longform.rates import CHARACTERS_PER_SECOND, estimate_seconds, guess_language
from barkfast.longform.sentences import LANGUAGES
from longform.test_sentences import TEXTS, WORDS, bare

PARAGRAPH = "It rained. We stayed at home and played cards until the lamp went out. Then we told stories. "


def texts_of(*args, **options) -> list[str]:
    return [chunk.text for chunk in split_chunks(*args, **options)]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.code)
def test_a_sentence_takes_about_the_same_time_in_every_language(prompt):
    # The benchmark's sentences have about the same content.
    assert 2.5 < estimate_seconds(prompt.text, prompt.code) < 6.5
    script = guess_language(prompt.text)
    assert script == (prompt.code if prompt.code in ("hi", "ja", "ko", "ru", "zh") else "en")


def test_rates_are_those_of_the_sources():
    assert set(CHARACTERS_PER_SECOND) == set(LANGUAGES)
    assert CHARACTERS_PER_SECOND["en"] == pytest.approx(1_308_674 / (23 * 3600 + 55 * 60 + 17), abs=0.05)
    assert estimate_seconds("a" * 152, "en") == pytest.approx(10)
    assert estimate_seconds("语" * 42, "zh") == pytest.approx(10)
    # A foreign script has its own rate, and digits count as words.
    assert estimate_seconds("语" * 42, "en") == pytest.approx(10)
    assert estimate_seconds("a" * 152, "zh") == pytest.approx(10)
    assert estimate_seconds("1" * 30, "ja") == pytest.approx(30 * 5 / 15.2)
    assert estimate_seconds("", "en") == 0


def is_text(said: str, text: str) -> bool:
    """Whether `said` is `text`, except for full stops that were added between its lines."""
    said, text, n_stops = bare(said), bare(text), 0
    for character in said:
        if text[:1] == character:
            text = text[1:]
        elif character in ".。।":
            n_stops += 1
        else:
            return False
    return not text


def test_sentences_are_packed_until_a_chunk_is_full():
    chunks = list(split_chunks(PARAGRAPH * 6, "en"))
    assert all(estimate_seconds(chunk.text, "en") <= SECONDS for chunk in chunks)
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert len(chunks) < 6
    assert [chunk.ending for chunk in chunks] == ["sentence"] * (len(chunks) - 1) + ["paragraph"]


def test_each_sentence_can_have_its_own():
    assert texts_of("It rained. We stayed. Good!", "en", each_sentence=True) == ["It rained.", "We stayed.", "Good!"]


def test_a_paragraph_ends_a_chunk():
    half = PARAGRAPH + "And slept."
    assert len(texts_of(f"{half}\n\n{half}", "en")) == 2
    # However short it is: silence exists only between chunks.
    assert texts_of("Yes.\n\nNo.\n\nPerhaps.", "en") == ["Yes.", "No.", "Perhaps."]


HEADINGS = "Introduction\n\nHello there.\n\nConclusion\n\nBye."


@pytest.mark.parametrize("each_sentence", [False, True])
def test_headings_are_sentences_with_a_pause(each_sentence: bool):
    chunks = list(split_chunks(HEADINGS, "en", each_sentence=each_sentence))
    assert [chunk.text for chunk in chunks] == ["Introduction", "Hello there.", "Conclusion", "Bye."]
    assert [pause_after(chunk) for chunk in chunks] == [PAUSES["paragraph"]] * 4


LIST = "We need:\n- apples\n- green pears\n\n1. wash\n2) cut\n\nRoses are red\nViolets are blue"


def test_lines_are_sentences_with_a_pause():
    chunks = list(split_chunks(LIST, "en", each_sentence=True))
    lines = [line for line in LIST.split("\n") if line]
    assert [chunk.text for chunk in chunks] == lines
    assert all(pause_after(chunk) >= PAUSES["sentence"] for chunk in chunks[1:])
    # Lines in one chunk get full stops between them, at which the model pauses; none is added at a chunk's end.
    together = ["We need: - apples. - green pears", "1. wash. 2) cut", "Roses are red. Violets are blue"]
    assert texts_of(LIST, "en") == together
    assert texts_of("Roses are red", "en") == ["Roses are red"]
    assert texts_of("सूची\nदूध\nचाय\n\n買い物\n・牛乳\n・お茶") == ["सूची। दूध। चाय", "買い物。・牛乳。・お茶"]


def test_tags_and_parts_of_sentences_get_no_full_stop():
    assert texts_of("♪ In the jungle ♪\n♪ The lion sleeps ♪\n[laughs]\nYes", "en") == [
        "♪ In the jungle ♪ ♪ The lion sleeps ♪ [laughs] Yes"
    ]
    assert "." not in "".join(texts_of("word " * 3000 + "\nAnd more", "en"))


def test_markdown_is_read_on_the_way():
    markdown = "# A *title*\n\nSee [the page](https://example.com/a.b) [1] [laughs].\n- one\n- two\n"
    expected = ["A title.", "See the page [1] [laughs].", "one. two."]
    assert texts_of(markdown, "en", markup="markdown") == expected
    assert texts_of(iter(markdown), "en", markup="markdown") == expected
    assert texts_of(markdown, "en", markup="plain") == texts_of(markdown, "en") != expected
    with pytest.raises(InputError, match="markup is 'html'"):
        split_chunks("a", markup="html")


def test_long_sentences_are_cut_at_the_best_places():
    quoted = "“" + "We went to the river and sat there for an hour. " * 6 + "” she said."
    assert all(text.rstrip("” ").endswith(("hour.", "said.")) for text in texts_of(quoted, "en"))
    clauses = "we went to the river and sat there for an hour, " * 6 + "and then we went home."
    chunks = list(split_chunks(clauses, "en"))
    assert len(chunks) > 1
    assert all(chunk.text.endswith(",") and chunk.ending == "clause" for chunk in chunks[:-1])
    assert chunks[-1].ending == "paragraph"
    words = list(split_chunks("word " * 100, "en"))
    assert set(" ".join(chunk.text for chunk in words).split()) == {"word"}
    assert {chunk.ending for chunk in words[:-1]} == {"word"}
    spaceless = texts_of("字" * 500, "zh")
    assert "".join(spaceless) == "字" * 500 and all(len(text) <= 54 for text in spaceless)


def test_parts_of_a_long_sentence_are_about_equal():
    lengths = [len(text) for text in texts_of("word " * 50, "en")]
    assert len(lengths) == 2 and min(lengths) > 0.8 * max(lengths)


def test_tags_and_marked_letters_stay_whole():
    assert all("[clears throat]" in text or "[" not in text for text in texts_of("so [clears throat] " * 60, "en"))
    # A letter with its accent, written as two characters.
    for text in texts_of("e\u0301" * 400, "en"):
        assert text[0] == "e"


def test_a_chunk_fits_the_models_text_slots():
    chunks = texts_of("a b c d e f g h. " * 50, "en", count_tokens=lambda text: len(text.split()), max_tokens=20)
    assert all(len(text.split()) <= 20 for text in chunks)
    # Text that cannot be cut is passed on; the model refuses it.
    assert texts_of("ab", "en", count_tokens=lambda text: 9 * len(text), max_tokens=5) == ["a", "b"]


def test_marks_without_a_letter_stay_with_the_sentence_before():
    assert texts_of("He left.\n\n* * *\n\nShe stayed.", "en", each_sentence=True) == ["He left. * * *", "She stayed."]
    (alone,) = split_chunks("* * *", "en")
    assert not alone.speakable
    for text in ("a", "7", "♪", "[laughs]", "字", "ह"):
        assert Chunk(text).speakable


def test_languages_without_spaces_get_none():
    assert glue("今日は雨です。", "本当？") == "今日は雨です。本当？"
    assert glue("비가 옵니다.", "정말요?") == "비가 옵니다. 정말요?"
    assert glue("다", "다") == "다 다"
    assert glue("", "a") == glue("a", "") == "a"
    for language in ("ja", "zh"):
        assert texts_of("".join(TEXTS[language]), language) == ["".join(TEXTS[language])]


@given(
    text=WORDS,
    times=st.integers(1, 8),
    language=st.sampled_from([None, *LANGUAGES]),
    seconds=st.floats(1, 15),
    each_sentence=st.booleans(),
)
def test_nothing_is_lost_and_all_fits(text, times, language, seconds, each_sentence):
    text = text * times
    if not bare(text):
        return
    chunks = list(split_chunks(text, language, seconds=seconds, each_sentence=each_sentence))
    assert is_text("".join(chunk.text for chunk in chunks), text)
    assert chunks[-1].ending == "paragraph"
    for chunk in chunks:
        spoken = estimate_seconds(chunk.text, language or guess_language(chunk.text))
        # One character with many marks may take longer.
        assert spoken <= seconds or len(chunk.text.split()) == 1
        assert chunk.text


@given(words=st.lists(WORDS.map(lambda text: "".join(text.split()) or "a"), min_size=2))
def test_halves_are_the_whole(words: list[str]):
    text = " ".join(words)
    parts = split_long(text, lambda part: 2 * len(part) / (len(text) + 1), "sentence")
    assert bare("".join(part.text for part in parts)) == bare(text)
    assert len(parts) > 1 and parts[-1].ending == "sentence"


def test_chunks_of_a_book_come_before_it_has_ended():
    read = []

    def book():
        for number in itertools.count():
            read.append(number)
            yield f"This is line {number} of a book without an end. "

    for _ in itertools.islice(split_chunks(book(), "en"), 50):
        pass
    assert len(read) < 500


@pytest.mark.parametrize("options", [{"seconds": 0}, {"seconds": float("nan")}, {"max_tokens": 0}])
def test_limits_below_anything_are_refused(options: dict):
    (name,) = options
    with pytest.raises(InputError, match=name):
        split_chunks("Hello.", **options)
