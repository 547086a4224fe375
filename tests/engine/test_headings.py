"""Headings and list items in long texts and streams: each is an utterance of its own, with silence around it."""

import numpy as np
import pytest

from barkfast import Bark
from barkfast.engine.segments import Piece
from barkfast.errors import InputError
from engine.fake_model import FakeBark, generation, speak_long
from longform.sounds import RATE

TEXT = "Introduction\n\nHello there.\n\nConclusion\n\nBye."
LINES = [line for line in TEXT.split("\n") if line]
SHORT = {"seed": 11, "max_duration_s": 0.3, "min_eos_p": None}


@pytest.mark.parametrize(
    ("text", "pause", "options"),
    [(TEXT, 0.75, {}), (TEXT, 0.75, {"each_sentence": True}), ("- a\n- b\n- c\n- d", 0.35, {"each_sentence": True})],
)
def test_there_is_silence_around_them(text: str, pause: float, options: dict) -> None:
    bark = FakeBark()
    pieces: list[Piece] = []
    whole = np.concatenate(list(speak_long(bark, text, "speaker_1", trim=False, on_piece=pieces.append, **options)))
    assert [piece.text for piece in pieces] == [line for line in text.split("\n") if line]
    assert len(whole) == 4 * len(generation(0).audio) + 3 * round(pause * RATE)


def test_a_stream_says_each_alone(bark: Bark) -> None:
    pieces: list[Piece] = []
    whole = np.concatenate(list(bark.stream(TEXT, on_piece=pieces.append, **SHORT)))
    assert [piece.text for piece in pieces] == LINES
    # A line without punctuation has the tokens of a single `generate`.
    single = bark.generate("Introduction", **SHORT).audio
    np.testing.assert_array_equal(whole[: len(single) - 480], single[: len(single) - 480])


def test_a_text_of_invisible_characters_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="nothing to say"):
        speak_long(FakeBark(), "\u200b\u00ad \ufeff")
