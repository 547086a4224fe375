"""Dropping invisible characters changes no token of BERT's tokenizer."""

from hypothesis import given
from hypothesis import strategies as st

from barkfast.normalize import drop_invisible
from barkfast.text import Tokenizer

LETTERS = "abcمیروक्ष"
DROPPED = "\u00ad\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202e\u2060\u2063\u206f\ufeff\ufff9\U000e0061\0\x1b\x7f"
TOKENIZER = Tokenizer.from_vocabulary(["[UNK]", ".", "🔥", *LETTERS, "##🔥", *(f"##{letter}" for letter in LETTERS)])


@given(st.text(LETTERS + DROPPED + " .🔥", max_size=40))
def test_invisible_characters_have_no_tokens(text: str):
    assert TOKENIZER.encode(text) == TOKENIZER.encode(drop_invisible(text))


def test_variation_selectors_would_be_unknown_words():
    assert TOKENIZER.encode("🔥\ufe0f") != TOKENIZER.encode("🔥") == TOKENIZER.encode(drop_invisible("🔥\ufe0f"))
