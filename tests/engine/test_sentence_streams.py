"""Streams of several sentences in the caller's thread: their audio, joined, with one sentence prefetched."""

import itertools
from typing import Any

import numpy as np
import pytest

from barkfast import Bark, InputError
from barkfast.bench.workload import full_voice
from barkfast.engine.results import AudioChunk, Done, Failed
from barkfast.engine.segments import Piece
from barkfast.errors import BarkfastError, EngineError, VoiceError
from engine.fake_model import (
    FakeBark,
    FakeScheduler,
    assert_memory_is_bounded,
    generation,
    speak_long,
    stream_sentences,
)
from longform.sounds import RATE

SENTENCES = ["It rained all day.", "Did we stay at home?", "Then the lamp went out."]
TEXT = " ".join(SENTENCES)
FADE = round(0.02 * RATE)


# --- with a model


SHORT = {"seed": 11, "max_duration_s": 0.6, "min_eos_p": None}


@pytest.mark.parametrize("with_voice", [True, False])
def test_exact_is_the_long_text_sentence_by_sentence(bark: Bark, with_voice: bool) -> None:
    voice = full_voice(bark.layout) if with_voice else None
    expected = list(bark.generate_long(TEXT, voice, each_sentence=True, trim=False, **SHORT))
    chunks = list(bark.stream(TEXT, voice, **SHORT))
    np.testing.assert_array_equal(np.concatenate(chunks), np.concatenate(expected))
    assert len(chunks) > len(expected) and all(chunk.dtype == np.float32 and chunk.size for chunk in chunks)


@pytest.mark.parametrize("with_voice", [True, False])
def test_each_sentence_sounds_as_it_does_alone(bark: Bark, with_voice: bool) -> None:
    voice = full_voice(bark.layout) if with_voice else None
    pieces: list[Piece] = []
    whole = np.concatenate(list(bark.stream(TEXT, voice, on_piece=pieces.append, **SHORT)))
    assert [(piece.number, piece.text) for piece in pieces] == list(enumerate(SENTENCES))
    start = 0
    for number, text in enumerate(SENTENCES):
        single = bark.generate(text, voice, **SHORT | {"seed": 11 + number})
        if voice is None:
            voice = single.prompt
        # Compare all but the seams. Random networks do not end quietly, so the whole pause is inserted as silence.
        first, last = FADE if number else 0, FADE if number < 2 else 0
        inner = slice(first, len(single.audio) - last)
        np.testing.assert_array_equal(whole[start:][inner], single.audio[inner])
        start += len(single.audio)
        if number < 2:
            pause = round((0.35, 0.45)[number] * RATE)
            silent = len(whole[start:]) - len(np.trim_zeros(whole[start:], "f"))
            assert 0 < silent <= pause + 1
            start += silent
    assert start == len(whole)


@pytest.mark.parametrize("mode", ["exact", "low_latency"])
def test_seams_do_not_click(bark: Bark, mode: Any) -> None:
    whole = np.concatenate(list(bark.stream(TEXT, full_voice(bark.layout), mode=mode, **SHORT)))
    single = [
        np.concatenate(list(bark.stream(text, full_voice(bark.layout), mode=mode, **SHORT | {"seed": 11 + i})))
        for i, text in enumerate(SENTENCES)
    ]
    assert np.abs(np.diff(whole)).max() <= max(np.abs(np.diff(audio)).max() for audio in single)
    # The audio fades into the pauses and out of them.
    quiet = np.concatenate(([False], np.convolve(whole == 0, np.ones(200), "same") == 200, [False]))
    edges = [(begin - 100, end + 98) for begin, end in np.flatnonzero(np.diff(quiet.astype(int))).reshape(-1, 2)]
    assert len(edges) == 2
    for begin, end in edges:
        assert not whole[begin + 1 : end].any()
        assert max(abs(whole[begin - 1]), abs(whole[end + 1])) < 0.02 * np.abs(whole).max()


def test_low_latency_is_the_same_every_time_and_as_long(bark: Bark) -> None:
    voice = full_voice(bark.layout)
    streams = [list(bark.stream(TEXT, voice, mode="low_latency", **SHORT)) for _ in range(2)]
    np.testing.assert_array_equal(*map(np.concatenate, streams))
    single = [
        len(bark.generate(text, voice, **SHORT | {"seed": 11 + number}).audio) for number, text in enumerate(SENTENCES)
    ]
    assert sum(single) < len(np.concatenate(streams[0])) <= sum(single) + round(0.8 * RATE)


def test_a_text_of_one_sentence_is_one_utterance(bark: Bark) -> None:
    for text in ("It rained all day.", "  It rained\nall day. ...", "it rained"):
        expected = bark.generate(text, **SHORT)
        for mode in ("exact", "low_latency"):
            one, same = (list(bark.stream(text, mode=mode, each_sentence=each, **SHORT)) for each in (True, False))
            assert [len(chunk) for chunk in one] == [len(chunk) for chunk in same]
            np.testing.assert_array_equal(np.concatenate(one), np.concatenate(same))
            if mode == "exact":
                np.testing.assert_array_equal(np.concatenate(one), expected.audio)


def test_one_utterance_where_that_is_wanted(bark: Bark) -> None:
    expected = bark.generate(TEXT, **SHORT)
    np.testing.assert_array_equal(np.concatenate(list(bark.stream(TEXT, each_sentence=False, **SHORT))), expected.audio)
    tokens = list(bark.stream(semantic=expected.semantic, **SHORT))
    np.testing.assert_array_equal(np.concatenate(tokens), expected.audio)


def test_a_text_may_be_any_that_yields_it(bark: Bark) -> None:
    expected = np.concatenate(list(bark.stream(TEXT, **SHORT)))
    parts = iter([TEXT[:20], TEXT[20:]])
    np.testing.assert_array_equal(np.concatenate(list(bark.stream(parts, **SHORT))), expected)


def test_who_stops_listening_has_the_networks_again(bark: Bark) -> None:
    stream = bark.stream(TEXT, full_voice(bark.layout), **SHORT)
    next(stream)
    assert bark.model.shared.busy
    stream.close()
    assert not bark.model.shared.busy
    assert bark.generate("Again.", **SHORT).audio.size


def test_what_cannot_be_spoken_is_refused_at_once(bark: Bark) -> None:
    for text, options, error, message in (
        ("...", {}, InputError, "text is '...': the text has nothing to pronounce"),
        ("* " * 5000, {}, InputError, "nothing to pronounce"),
        (" ", {}, InputError, "nothing to say"),
        ("\ud800", {}, InputError, "not valid UTF-8"),
        (5, {}, InputError, "text is a int"),
        (None, {}, InputError, "text is a NoneType"),
        (TEXT, {"mode": "off"}, InputError, "mode is 'off'"),
        (TEXT, {"language": "xx"}, InputError, "language is 'xx'"),
        (TEXT, {"seed": "lucky"}, InputError, "seed is 'lucky'"),
        (TEXT, {"text_temp": -1}, InputError, "text_temp is -1"),
        (TEXT, {"voice": "v2/en_speaker_66"}, VoiceError, "v2/en_speaker_6"),
    ):
        with pytest.raises(error, match=message):
            bark.stream(text, **options)
    with pytest.raises(TypeError, match="volume"):
        bark.stream(TEXT, volume=11)
    with pytest.raises(InputError, match="nothing to pronounce"):
        next(bark.stream(iter(["...", "* *"])))


# --- with a fake model that records its requests


class LiveScheduler(FakeScheduler):
    """Serves the utterances round robin: three chunks of each, then its end."""

    def __init__(self, bark: FakeBark, n_slots: int) -> None:
        super().__init__(bark, n_slots)
        self.spoken: dict[Any, int] = {}

    def round(self) -> list[Any]:
        utterance = self.waiting[0]
        self.waiting.rotate(-1)
        result = self.bark.outcome(utterance.request, utterance.number)
        self.spoken[utterance] = self.spoken.get(utterance, 0) + 1
        empty = isinstance(result, InputError)
        if self.spoken[utterance] <= 3 and not empty and "stream" in utterance.request.options:
            audio = generation(utterance.number).audio
            return [AudioChunk(utterance, np.array_split(audio, 3)[self.spoken[utterance] - 1])]
        self.waiting.remove(utterance)
        del self.spoken[utterance]
        return [Failed(utterance, result) if isinstance(result, BarkfastError) else Done(utterance, result)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBark:
    monkeypatch.setattr("engine.fake_model.FakeScheduler", LiveScheduler)
    return FakeBark()


MANY = " ".join(f"This is sentence {word} of it." for word in "abcdefghijklmnop")


def test_one_sentence_is_spoken_ahead_once_one_is_heard(fake: FakeBark) -> None:
    stream = stream_sentences(fake, MANY, "speaker_1", seed=3)
    next(stream)
    assert len(fake.asked) == 1
    next(stream)
    assert fake.said == ["This is sentence a of it.", "This is sentence b of it."]
    assert sum(map(len, stream)) > 14 * 0.1 * RATE
    assert fake.most == 2 and len(fake.asked) == 16 and not fake.open
    assert [request.options["seed"] for request in fake.asked] == list(range(3, 19))
    assert {request.options["stream"] for request in fake.asked} == {"exact"}
    assert {int(request.voice["semantic_prompt"][0]) for request in fake.asked} == {1}
    assert fake.schedulers[0].n_slots == 2


def test_without_a_voice_the_first_one_stays(fake: FakeBark) -> None:
    for _ in stream_sentences(fake, MANY):
        pass
    assert fake.asked[0].voice is None
    assert {int(request.voice["semantic_prompt"][0]) for request in fake.asked[1:]} == {0}


def test_chained_sentences_go_on_from_the_one_before(fake: FakeBark) -> None:
    for _ in stream_sentences(fake, MANY, "speaker_500", chained=True):
        pass
    voices = [int(request.voice["semantic_prompt"][0]) for request in fake.asked]
    assert voices == [500, *range(15)] and fake.most == 1


def test_closing_early_cancels_everything(fake: FakeBark) -> None:
    stream = stream_sentences(fake, MANY, "speaker_1")
    for _ in range(2):
        next(stream)
    stream.close()
    assert not fake.open and len(fake.schedulers[0].cancelled) == 2


def test_an_error_comes_at_its_place_and_names_its_sentence(fake: FakeBark) -> None:
    fake.outcome = lambda request, number: (
        EngineError("logits are not finite") if "sentence c" in request.text else generation(number)
    )
    received: list[np.ndarray] = []
    with pytest.raises(EngineError, match="piece 3 of the text .'This is sentence c.*not finite"):
        for chunk in stream_sentences(fake, MANY, "speaker_1"):
            received.append(chunk)
    assert sum(map(len, received)) > 2 * 0.1 * RATE and not fake.open
    fake.outcome = lambda *_: EngineError("logits are not finite")
    with pytest.raises(EngineError, match="^logits"):
        list(stream_sentences(fake, MANY, "speaker_1"))


def test_a_sentence_that_came_to_nothing_is_drawn_again(fake: FakeBark) -> None:
    fake.outcome = lambda request, number: (
        InputError("semantic tokens are empty") if number == 2 else generation(number)
    )
    for _ in stream_sentences(fake, MANY, "speaker_1", seed=1):
        pass
    assert len(fake.asked) == 17 and fake.said.count("This is sentence c of it.") == 2
    assert len({request.options["seed"] for request in fake.asked}) == 17


@pytest.mark.parametrize("between", ["", "* " * 400, "* " * 400 + "\n\n" + "- " * 300])
def test_marks_without_a_letter_are_pauses_as_in_long_texts(fake: FakeBark, between: str) -> None:
    for text in (f"He left.\n\n{between}\n\nShe stayed.", f"He left, {between} and she stayed.\n\n{between}"):
        received = np.concatenate(list(stream_sentences(fake, text, "speaker_1")))
        fake.asked.clear()
        expected = list(speak_long(fake, text, "speaker_1", each_sentence=True, trim=False))
        fake.asked.clear()
        np.testing.assert_array_equal(received, np.concatenate(expected))


def test_a_long_sentence_is_cut_as_in_long_texts(fake: FakeBark) -> None:
    text = "and then, " * 60 + "the end."
    pieces: list[Piece] = []
    for _ in stream_sentences(fake, text, "speaker_1", on_piece=pieces.append):
        pass
    assert len(pieces) > 1 and " ".join(piece.text for piece in pieces) == text


def test_a_book_needs_no_more_memory_than_a_page(fake: FakeBark) -> None:
    book = (f"This is line {number} of a book of many lines. It has two sentences.\n\n" for number in itertools.count())
    stream = stream_sentences(fake, book, "speaker_1")
    assert_memory_is_bounded(stream, fake, chunks=1000)
