"""Text spelled out for the demo voice: examples of each kind, and properties that hold for any text."""

import logging
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from barkfast.errors import InputError
from barkfast.normalize import english
from barkfast.normalize.english import check_english, spell_out
from barkfast.normalize.numbers import LARGEST, spell_number, spell_ordinal, spell_time, spell_year
from barkfast.text import Tokenizer, fit_text
from barkfast.weights import demo

SPELLED = {
    # Numbers.
    "0 7 13 21 100 1205": "zero seven thirteen twenty one one hundred one thousand two hundred five",
    "1,234,567 people": "one million two hundred thirty four thousand five hundred sixty seven people",
    "12345 of 7000000": "twelve thousand three hundred forty five of seven million",
    "2 billion, 3,000,000,000.": "two billion, three billion.",
    "3.14, .5 and 10.05": "three point one four, point five and ten point zero five",
    "007": "zero zero seven",
    "3.1415926535897932": "three point one four one five nine two six five three five eight nine seven nine three two",
    "12345678901234567": "one two three four five six seven eight nine zero one two three four five six seven",
    "1st, 2nd, 3rd, 4th, 11th, 21st, 1,000th": ("first, second, third, fourth, eleventh, twenty first, one thousandth"),
    "-5 or +3": "minus five or plus three",
    "1/2, 3/4, 2½ and 1 1/3": "one half, three quarters, two and one half and one and one third",
    "5-10 of 10–15%": "five to ten of ten to fifteen percent",
    "open 24/7": "open twenty four seven",
    "version 1.2.3": "version one point two point three",
    "call 555-1234": "call five five five, one two three four",
    "3 x 4 = 12": "three times four equals twelve",
    "No. 5, p. 7 and #3. No.": "number five, page seven and number three. no.",
    "H100, MP3, GPT-4 and 3D": "h one hundred, m p three, g p t four and three d",
    # Years, dates, times.
    "in 1815": "in eighteen fifteen",
    "1984 was not 2024.": "nineteen eighty four was not twenty twenty four.",
    "the 1980s, '90s": "the nineteen eighties, nineties",
    "1990–1995": "nineteen ninety to nineteen ninety five",
    "March 15, 2024": "march fifteenth, twenty twenty four",
    "the 3rd of June 1815": "the third of june, eighteen fifteen",
    "15 March and Dec. 1st": "the fifteenth of march and december first",
    "2024-03-15 or 3/15/2024": "march fifteenth, twenty twenty four or march fifteenth, twenty twenty four",
    "I may 5 times": "i may five times",
    "7:05, 12:00 and 14:30": "seven oh five, twelve o'clock and fourteen thirty",
    "9am to 5 p.m.": "nine a m to five p m.",
    "7:30 PM sharp": "seven thirty p m sharp",
    # Money and measures.
    "$1, $3.50, $0.99": "one dollar, three dollars and fifty cents, ninety nine cents",
    "£1.01 and 5€": "one pound and one penny and five euros",
    "$2.5 million, $5k": "two point five million dollars, five thousand dollars",
    "$5-10": "five to ten dollars",
    "5 km, 1 kg, 6ft, 60 km/h": "five kilometers, one kilogram, six feet, sixty kilometers per hour",
    "50% at -5°C": "fifty percent at minus five degrees celsius",
    "8 GB at 2.4 GHz": "eight gigabytes at two point four gigahertz",
    # Abbreviations.
    "Mr. Smith, Mrs Jones and Dr. X": "mister smith, missus jones and doctor x",
    "St. Louis, Main St. and 5th St.": "saint louis, main street and fifth street.",
    "e.g. this, i.e. that, etc.": "for example this, that is that, et cetera.",
    "cats vs. dogs": "cats versus dogs",
    "the U.S., the UK and NATO": "the u s, the u k and nato",
    "TV, GPUs, OK": "t v, g p u's, okay",
    "J. R. R. Tolkien": "j r r tolkien",
    "GIVE US TIME": "give us time",
    # Signs.
    "“Quoted” — dashes… ‘n’ it’s": "quoted, dashes. n it's",
    "salt & pepper, AT&T": "salt and pepper, at and t",
    "me@example.com, https://www.example.com": "me at example dot com, w w w dot example dot com",
    "well-known (he said); so: yes": "well known, he said, so, yes",
    "wait... what?! no!!!": "wait. what? no!",
    "[laughs] ♪ la la ♪ 😀": "la la",
    "[MAN] [clears throat] It is so [1], [sic] and [note: see below].": "it is so one, sic and note, see below.",
    "un\u00adbe\u200bliev\u2060able": "unbelievable",
    "dogs' 'tails' don't rock'n'roll": "dogs tails don't rock'n'roll",
    # Letters.
    "Café naïve Straße Øl Łódź ﬁne ２": "cafe naive strasse ol lodz fine two",
    "soooooooo": "soo",
    "": "",
    "?!": "",
    "こんにちは": "",
}


@pytest.mark.parametrize("text", SPELLED)
def test_spelled_out(text: str) -> None:
    assert spell_out(text) == SPELLED[text]


@pytest.mark.parametrize("n", [0, 12, 20, 99, 100, 999, 1000, 10**6, 999_999_999, LARGEST])
def test_numbers_have_no_hyphen_comma_or_and(n: int) -> None:
    assert re.fullmatch("[a-z]+( [a-z]+)*", spell_number(n)) and " and " not in spell_number(n)
    assert spell_ordinal(n).endswith(("th", "first", "second", "third"))


def test_years_and_times() -> None:
    assert spell_year(1900) == "nineteen hundred" and spell_year(1905) == "nineteen oh five"
    assert spell_year(2000) == "two thousand" and spell_year(2010) == "twenty ten"
    assert spell_time(7, 0) == "seven o'clock" and spell_time(23, 59) == "twenty three fifty nine"


# Text that the rules look for, mixed with random text.
PIECES = st.sampled_from(
    [*SPELLED, "Mr", "St", "e.g", "No", "a.m", "$", "%", ".", ",", "'", "-", ":", "/", " ", "½", "é"]
)
TEXTS = st.text() | st.lists(PIECES | st.text(max_size=3) | st.integers(0).map(str), max_size=8).map("".join)


@given(TEXTS)
@example("mr '.")
@example("st!..")
@settings(max_examples=400)
def test_only_what_the_vocabulary_has_comes_out_and_it_stays(text: str) -> None:
    spelled = spell_out(text)
    assert re.fullmatch(r"(?:[a-z]+(?:'[a-z]+)*[,.?!]?(?: |$))*", spelled), spelled
    assert spelled == spelled.strip() and max(map(len, re.findall("[a-z]+", spelled)), default=0) <= 32
    assert spell_out(spelled) == spelled


@given(TEXTS)
@settings(max_examples=200)
def test_nothing_to_say_is_an_error(text: str) -> None:
    try:
        check_english(text)
    except InputError as error:
        assert "\n" not in str(error).replace(repr(text[:80]), "")
    else:
        assert re.search("[a-z]", spell_out(text))


@pytest.mark.parametrize("text", ["Привет, мир", "你好。", "مرحبا", "γειά 123"])
def test_other_scripts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="the demo voice speaks English; use suno/bark"):
        check_english(text)


@pytest.mark.parametrize("text", ["😀", "...", "[laughs]", "♪", "' '", "\u200b"])
def test_text_that_comes_to_nothing_is_named(text: str) -> None:
    with pytest.raises(InputError, match="nothing in it can be said") as caught:
        check_english(text)
    assert repr(text) in str(caught.value)


def test_foreign_letters_are_spoken_with_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(english, "_known", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            check_english("Crème brûlée, Москва")
    assert len(caplog.messages) == 1 and "è û é М о" in caplog.messages[0]
    assert spell_out("Crème brûlée, Москва") == "creme brulee,"


@pytest.mark.parametrize(
    "text", ["1" * 50_000, "1.1" * 20_000, "1-" * 20_000, "a. " * 20_000, "a" * 50_000, "$" * 50_000]
)
def test_long_runs_take_no_time(text: str) -> None:
    start = time.process_time()
    spell_out(text)
    assert time.process_time() - start < 5


def test_long_words_are_cut_into_pieces() -> None:
    assert spell_out("ab" * 20) == " ".join(["ab" * 7, "ab" * 7, "ab" * 6])
    tokenizer = Tokenizer.from_path(demo.FOLDER)
    assert tokenizer.encode("[UNK]") != tokenizer.encode("xy" * 500)
    assert 1 not in tokenizer.encode("xy" * 500)


def test_the_tokenizer_knows_every_character_that_is_left() -> None:
    tokenizer = Tokenizer.from_path(demo.FOLDER)
    for text in SPELLED:
        assert 1 not in tokenizer.encode(text)
        assert tokenizer.encode(text) == tokenizer.encode(spell_out(text))


def test_a_text_is_checked_where_it_is_fitted() -> None:
    tokenizer = Tokenizer.from_path(demo.FOLDER)
    assert len(fit_text("1999", tokenizer, 256)) == len("nineteenninetynine")
    with pytest.raises(InputError, match="speaks English"):
        fit_text("Привет", tokenizer, 256)
