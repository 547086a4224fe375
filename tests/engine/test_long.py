"""Long texts and dialogues: in order, in the right voices, with errors that name their piece, in constant memory."""

import itertools
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.engine.segments import Piece
from barkfast.errors import EngineError, InputError, VoiceError
from engine.fake_model import FakeBark, assert_memory_is_bounded, generation, speak_long, speak_script
from longform.sounds import RATE
from longform.test_sentences import bare

SENTENCES = [f"This is sentence number {word} of the text that is said here." for word in "abcdefghijklmnop"]
TEXT = " ".join(SENTENCES)


def speak(bark: FakeBark, text=TEXT, voice="speaker_500", **options) -> list[Piece]:
    """Generate the whole text. Returns: its pieces."""
    pieces: list[Piece] = []
    options = {"each_sentence": True, **options}
    for samples in speak_long(bark, text, voice, on_piece=pieces.append, **options):
        assert samples.dtype == np.float32 and len(samples)
    return pieces


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_pieces_are_said_side_by_side_and_come_in_order(at_once: int):
    bark = FakeBark()
    pieces = speak(bark, at_once=at_once)
    assert [piece.text for piece in pieces] == SENTENCES
    assert [piece.number for piece in pieces] == list(range(len(SENTENCES)))
    assert bark.said == SENTENCES
    assert at_once <= bark.most <= 2 * at_once
    (scheduler,) = bark.schedulers
    assert scheduler.n_slots == at_once and not scheduler.cancelled and not bark.open


def test_the_sound_is_that_of_the_pieces_in_order():
    bark = FakeBark()
    sounds = list(speak_long(bark, TEXT, "speaker_1", each_sentence=True, trim=False))
    whole = np.concatenate(sounds)
    n = len(generation(0).audio)
    gap = round(0.35 * RATE)
    assert len(whole) == 16 * n + 15 * gap
    for number in range(16):
        middle = whole[number * (n + gap) :][600 : n - 600]
        np.testing.assert_array_equal(middle, generation(number).audio[600 : n - 600])


def test_no_more_slots_than_pieces():
    bark = FakeBark()
    speak(bark, "One sentence.")
    assert bark.schedulers[0].n_slots == 1


def test_every_piece_has_the_voice_it_was_given():
    bark = FakeBark()
    speak(bark)
    assert {int(request.voice["semantic_prompt"][0]) for request in bark.asked} == {500}


def test_without_a_voice_the_first_one_stays():
    bark = FakeBark()
    speak(bark, voice=None)
    assert bark.asked[0].voice is None
    # No other piece was requested before the first was done.
    assert {int(request.voice["semantic_prompt"][0]) for request in bark.asked[1:]} == {0}
    assert bark.most > 1
    bark = FakeBark()
    speak(bark, voice=None, steady=False)
    assert all(request.voice is None for request in bark.asked)


def test_chained_pieces_go_on_from_the_one_before():
    bark = FakeBark()
    speak(bark, chained=True)
    voices = [int(request.voice["semantic_prompt"][0]) for request in bark.asked]
    assert voices == [500, *range(15)]
    assert bark.most == 1
    bark = FakeBark()
    speak(bark, voice=None, chained=True)
    assert bark.asked[0].voice is None
    assert [int(request.voice["semantic_prompt"][0]) for request in bark.asked[1:]] == list(range(15))


def test_what_is_too_short_for_a_voice_is_none():
    # One token and two frames: a ratio of 2.0, not 1.5.
    bark = FakeBark(lambda request, number: generation(number, 1 if number % 2 else 40))
    speak(bark, chained=True)
    voices = [int(request.voice["semantic_prompt"][0]) for request in bark.asked]
    assert voices == [500, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14]


def test_seeds_differ_from_piece_to_piece_and_follow_from_one():
    bark = FakeBark()
    speak(bark, seed=7)
    seeds = [request.options["seed"] for request in bark.asked]
    assert seeds[0] == 7 and len(set(seeds)) == len(seeds)
    bark = FakeBark()
    speak(bark, seed=7, at_once=2)
    assert [request.options["seed"] for request in bark.asked] == seeds
    bark = FakeBark()
    speak(bark)
    assert {request.options["seed"] for request in bark.asked} == {None}
    bark = FakeBark()
    speak(bark, seed=2**63 - 1)
    assert all(0 <= request.options["seed"] < 2**63 for request in bark.asked)


def test_options_are_handed_on_and_nothing_is_cut_silently():
    bark = FakeBark()
    speak(bark, text_temp=0.5, max_duration_s=2.0, priority=3)
    given = {"seed": None, "overflow": "error", "text_temp": 0.5, "max_duration_s": 2.0, "priority": 3}
    assert bark.asked[0].options.items() >= given.items()


def test_a_piece_that_ran_out_of_time_is_said_in_halves(caplog):
    full = 768

    def outcome(request, number):
        return generation(number, full if len(request.text) > 40 else 40)

    for voice, chained in (("speaker_500", False), (None, False), ("speaker_500", True)):
        bark = FakeBark(outcome)
        pieces = speak(bark, voice=voice, chained=chained, seed=1)
        assert bare("".join(piece.text for piece in pieces)) == bare(TEXT)
        assert max(len(piece.text) for piece in pieces) <= 40
        assert [piece.number for piece in pieces] == sorted(piece.number for piece in pieces)
        assert len({request.options["seed"] for request in bark.asked}) == len(bark.asked)
        if chained:
            assert bark.most == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_piece_that_never_ends_is_kept_and_said_so(caplog):
    bark = FakeBark(lambda request, number: generation(number, 768))
    pieces = speak(bark, " ".join(SENTENCES[:2]))
    assert bare("".join(piece.text for piece in pieces)) == bare(" ".join(SENTENCES[:2]))
    assert "may be cut off" in caplog.text
    caplog.clear()
    # No retry where the caller sets `max_duration_s`, or `retries=0`.
    for options in ({"max_duration_s": 15.0}, {"retries": 0}):
        bark = FakeBark(lambda request, number: generation(number, 768))
        assert len(speak(bark, " ".join(SENTENCES[:2]), **options)) == 2
        assert len(bark.asked) == 2


def test_a_piece_that_came_to_nothing_is_drawn_again():
    def outcome(request, number):
        return InputError("semantic tokens are empty") if number == 3 else generation(number)

    bark = FakeBark(outcome)
    assert [piece.text for piece in speak(bark, seed=1)] == SENTENCES
    assert len(bark.asked) == 17 and bark.said.count(SENTENCES[3]) == 2
    assert len({request.options["seed"] for request in bark.asked}) == 17


def test_a_failure_names_its_piece_after_all_before_it_came():
    def outcome(request, number):
        return EngineError("logits are not finite") if request.text == SENTENCES[5] else generation(number)

    bark = FakeBark(outcome)
    pieces = []
    with pytest.raises(EngineError, match="piece 6 of the text .'This is sentence number f.*not finite"):
        list(speak_long(bark, TEXT, "speaker_1", at_once=2, each_sentence=True, on_piece=pieces.append))
    assert [piece.text for piece in pieces] == SENTENCES[:5]
    assert not bark.open
    # Later pieces in progress are cancelled.
    assert bark.schedulers[0].cancelled and not bark.schedulers[0].waiting


def test_whoever_stops_listening_stops_the_work():
    bark = FakeBark()
    sounds = speak_long(bark, TEXT, "speaker_1", each_sentence=True, at_once=4)
    for _ in range(3):
        next(sounds)
    (scheduler,) = bark.schedulers
    assert scheduler.waiting
    sounds.close()
    assert not bark.open and len(bark.asked) < 16
    assert scheduler.cancelled and not scheduler.waiting


def test_marks_with_nothing_to_pronounce_are_pauses():
    bark = FakeBark()
    # Too many marks to stay in one piece with the sentence before them.
    pieces = speak(bark, "He left.\n\n" + "* " * 400 + "\n\nShe stayed.", each_sentence=False)
    assert all(any(c.isalpha() for c in text) for text in bark.said)
    assert any(not piece.seconds for piece in pieces)
    assert bare("".join(piece.text for piece in pieces)) == "Heleft." + "*" * 400 + "Shestayed."


@pytest.mark.parametrize("text", ["...", "* * *", "\n\n", [], [" ", "\n"], "—" * 3000])
def test_a_text_without_a_letter_is_refused(text):
    with pytest.raises(InputError, match="nothing to"):
        speak(FakeBark(), text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_once": 0}, "at_once is 0"),
        ({"at_once": 1.5}, "at_once is 1.5"),
        ({"seconds": 0}, "seconds is 0; expected up to 15.4"),
        ({"seconds": 16}, "seconds is 16"),
        ({"retries": -1}, "retries is -1"),
        ({"seed": "7"}, "seed is '7'"),
        ({"language": "xx"}, "language is 'xx'"),
        ({"text": 7}, "text is a int"),
    ],
)
def test_bad_arguments_are_refused_at_once(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        speak_long(FakeBark(), **{"text": TEXT, **options})


@given(
    sentences=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12),
    at_once=st.integers(1, 5),
    chained=st.booleans(),
    voice=st.sampled_from([None, "speaker_3"]),
    cut=st.sets(st.integers(0, 20)),
)
def test_no_sentence_is_lost_or_repeated(sentences, at_once, chained, voice, cut):
    bark = FakeBark(lambda request, number: generation(number, 768 if number in cut else 40))
    pieces = speak(bark, " ".join(sentences), voice, at_once=at_once, chained=chained)
    assert bare("".join(piece.text for piece in pieces)) == bare("".join(sentences))
    assert not bark.open


def test_a_book_needs_no_more_memory_than_a_page():
    read = 0

    def book():
        nonlocal read
        for number in itertools.count():
            read += 1
            yield f"This is line {number} of a book of many lines. It has two sentences.\n\n"

    bark = FakeBark()
    assert_memory_is_bounded(speak_long(bark, book(), "speaker_1", at_once=4), bark, chunks=250)
    assert 1000 < read < 4000


PLAY = "ALICE: Who is there?\nBOB: It is me.\nALICE: Come in, then.\nBOB: I am in.\n"


def test_every_speaker_has_a_voice():
    bark, pieces = FakeBark(), []
    voices = {"ALICE": "speaker_1", "BOB": "speaker_2"}
    sounds = list(speak_script(bark, PLAY, voices, on_piece=pieces.append))
    assert len(np.concatenate(sounds)) > 4 * 2000
    assert [(piece.speaker, piece.text) for piece in pieces] == [
        ("ALICE", "Who is there?"),
        ("BOB", "It is me."),
        ("ALICE", "Come in, then."),
        ("BOB", "I am in."),
    ]
    assert [int(request.voice["semantic_prompt"][0]) for request in bark.asked] == [1, 2, 1, 2]
    assert bark.most == 4


def test_drawn_voices_stay_with_their_speaker():
    bark = FakeBark()
    list(speak_script(bark, PLAY, {"ALICE": None, "BOB": None}))
    by_text = {request.text: request.voice for request in bark.asked}
    assert by_text["Who is there?"] is None and by_text["It is me."] is None
    # Both first lines were in progress together, and each speaker kept the voice of their own line.
    assert int(by_text["Come in, then."]["semantic_prompt"][0]) == bark.said.index("Who is there?")
    assert int(by_text["I am in."]["semantic_prompt"][0]) == bark.said.index("It is me.")


def test_chained_speakers_go_on_from_their_own_line():
    bark = FakeBark()
    list(speak_script(bark, PLAY, {"ALICE": "speaker_1", "BOB": "speaker_2"}, chained=True))
    assert [int(request.voice["semantic_prompt"][0]) for request in bark.asked] == [1, 2, 0, 1]


def test_an_unknown_speaker_is_refused_before_anything_is_said():
    bark = FakeBark()
    with pytest.raises(InputError, match="line 2: unknown speaker 'BOB'"):
        speak_script(bark, PLAY, {"ALICE": None})
    with pytest.raises(InputError, match="line 2: unknown speaker 'BOB'"):
        list(speak_script(bark, iter(PLAY.splitlines()), {"ALICE": None}))
    assert not bark.asked or bark.said == ["Who is there?"]


@pytest.mark.parametrize("voices", [{}, None, ["ALICE"], "ALICE"])
def test_a_cast_is_a_dict(voices):
    with pytest.raises(InputError, match="voices is"):
        speak_script(FakeBark(), PLAY, voices)


def test_a_bad_voice_names_its_speaker():
    class Picky(FakeBark):
        def load_voice(self, voice):
            raise VoiceError(f"voice {voice!r} is unknown")

    with pytest.raises(VoiceError, match="the voice of ALICE: voice 'nobody' is unknown"):
        speak_script(Picky(), PLAY, {"ALICE": "nobody", "BOB": None})
