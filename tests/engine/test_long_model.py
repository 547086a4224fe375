"""Long texts on a real model: the audio equals that of each piece from a single `generate`."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from barkfast import Bark, InputError
from barkfast.bench.workload import vocabulary
from barkfast.engine.segments import Piece
from engine.fake_model import speak_long, speak_script

TEXT = "It rained all day. We stayed at home and played cards. Then the lamp went out! Nobody minded."
SHORT = {"max_duration_s": 0.3}


@pytest.fixture(scope="module")
def bark() -> Bark:
    return Bark("random:demo", device="cpu", dtype="float32")


def test_one_piece_is_what_generate_says(bark: Bark):
    spoken = bark.generate("It rained all day.", seed=5, **SHORT)
    sounds = speak_long(bark.model, "It rained all day.", seed=5, trim=False, **SHORT)
    np.testing.assert_array_equal(np.concatenate(list(sounds)), spoken.audio)


def test_pieces_are_what_generate_says_one_by_one(bark: Bark):
    voice = bark.generate("A voice.", seed=1, max_duration_s=0.6).prompt
    options = {"each_sentence": True, "seed": 5, "trim": False, "pauses": False, "at_once": 4, **SHORT}
    pieces = []
    whole = np.concatenate(list(speak_long(bark.model, TEXT, voice, on_piece=pieces.append, **options)))
    assert "".join(piece.text for piece in pieces).replace(" ", "") == TEXT.replace(" ", "")
    assert len(pieces) == 4
    single = [bark.generate(piece.text, voice, seed=5 + piece.number, **SHORT).audio for piece in pieces]
    assert [round(piece.seconds * bark.sample_rate) for piece in pieces] == [len(audio) for audio in single]
    fade = round(0.02 * bark.sample_rate)
    assert len(whole) == sum(map(len, single)) - 3 * fade
    start = 0
    for audio in single:
        inner = slice(fade, len(audio) - fade)
        np.testing.assert_allclose(whole[start:][inner], audio[inner], atol=1e-6)
        start += len(audio) - fade


def test_chained_pieces_go_on_from_the_one_before(bark: Bark):
    options = {"each_sentence": True, "seed": 5, "trim": False, "pauses": False, "max_duration_s": 0.6}
    pieces = []
    whole = np.concatenate(list(speak_long(bark.model, TEXT, chained=True, on_piece=pieces.append, **options)))
    voice, length = None, 0
    for piece in pieces:
        spoken = bark.generate(piece.text, voice, seed=5 + piece.number, max_duration_s=0.6)
        voice, length = spoken.prompt, length + len(spoken.audio)
    assert len(whole) == length - (len(pieces) - 1) * round(0.02 * bark.sample_rate)


def test_options_that_no_request_takes_are_refused_at_once(bark: Bark):
    with pytest.raises(InputError, match="text_temp is -1"):
        speak_long(bark.model, TEXT, text_temp=-1)
    with pytest.raises(TypeError, match="volume"):
        speak_script(bark.model, [("A", "Hi.")], {"A": None}, volume=11)


def test_two_texts_can_be_spoken_in_turns(bark: Bark):
    options = {"each_sentence": True, "trim": False, **SHORT}
    single = [np.concatenate(list(speak_long(bark.model, TEXT, seed=seed, **options))) for seed in (1, 2)]
    both = [speak_long(bark.model, TEXT, seed=seed, **options) for seed in (1, 2)]
    received: list[list[np.ndarray]] = [[], []]
    for pieces in itertools.zip_longest(*both):
        for index, piece in enumerate(pieces):
            if piece is not None:
                received[index].append(piece)
    for together, apart in zip(received, single, strict=True):
        np.testing.assert_array_equal(np.concatenate(together), apart)


def test_a_dialogue_is_spoken(bark: Bark):
    voice = bark.generate("A voice.", seed=1, max_duration_s=0.6).prompt
    pieces = []
    script = [("ALICE", "Who is there?"), ("BOB", "It is me."), ("ALICE", "Come in.")]
    sounds = speak_script(bark.model, script, {"ALICE": voice, "BOB": None}, seed=3, on_piece=pieces.append, **SHORT)
    whole = np.concatenate(list(sounds))
    assert [piece.speaker for piece in pieces] == ["ALICE", "BOB", "ALICE"]
    assert np.isfinite(whole).all() and len(whole) > bark.sample_rate // 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_a_book_is_read_in_constant_memory(tmp_path: Path):
    nano = Bark("random:nano", device="cpu", dtype="float32", tokenizer=vocabulary(tmp_path))
    pieces: list[Piece] = []
    megabytes: list[float] = []

    def book():
        for _ in range(200):
            yield "They walked to the old river again, and sat there until it was dark.\n\n"

    def note(piece: Piece) -> None:
        pieces.append(piece)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    n_samples = sum(len(sound) for sound in speak_long(nano.model, book(), seed=1, on_piece=note, max_duration_s=0.1))
    assert sum(len(piece.text.split()) for piece in pieces) == 200 * 14
    assert n_samples > 0.1 * len(pieces) * nano.sample_rate
    third = len(pieces) // 3
    assert max(megabytes[third:]) < max(megabytes[:third]) + 3
