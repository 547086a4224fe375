"""Joining: pauses where they belong, no noise at the ends, no clicks, and no sample changed without need."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkfast.longform import Chunk, Joiner, LiveJoiner, trim_ends
from barkfast.longform.joining import FADE, PAUSES, fade_in, find_sound, join, pause_after
from longform.sounds import RATE, silence, tone


def joined(*sounds: np.ndarray, pause: float = 0.35, **options) -> np.ndarray:
    joiner = Joiner(RATE, **options)
    return np.concatenate([*(joiner.add(sound, pause) for sound in sounds), joiner.finish()])


def steps(audio: np.ndarray) -> float:
    """The largest jump from one sample to the next."""
    return float(np.abs(np.diff(audio)).max())


@pytest.mark.parametrize("seconds", [0.0, 0.001, FADE, 1.0])
def test_one_sound_alone_is_left_as_it_is(seconds: float):
    sound = tone(seconds)
    np.testing.assert_array_equal(joined(sound, trim=False), sound)
    assert joined(trim=False).shape == (0,)


@pytest.mark.parametrize(
    ("text", "ending", "pause"),
    [
        ("He left.", "sentence", 0.35),
        ("He left.", "paragraph", 0.75),
        ("Why?", "sentence", 0.45),
        ("Why?”", "sentence", 0.45),
        ("Well…", "sentence", 0.55),
        ("Well...", "sentence", 0.55),
        ("if he left,", "clause", 0.15),
        ("if he left;", "clause", 0.25),
        ("if he", "word", 0.0),
        ("本当ですか？", "sentence", 0.45),
        ("...", "paragraph", 0.75),
    ],
)
def test_punctuation_tells_the_pause(text: str, ending: str, pause: float):
    assert pause_after(Chunk(text, ending)) == pause


def test_pauses_take_their_time():
    one = tone(1.0)
    for pause in PAUSES.values():
        if pause:
            audio = joined(one, one, pause=pause, trim=False)
            assert len(audio) == 2 * len(one) + round(pause * RATE)
            middle = audio[len(one) : len(one) + round(pause * RATE)]
            assert not middle.any()


def test_silence_that_is_there_counts_as_pause():
    first = np.concatenate((tone(0.5), silence(0.2)))
    second = np.concatenate((silence(0.1), tone(0.5)))
    audio = joined(first, second, pause=0.35, trim=False)
    assert len(audio) == pytest.approx(len(first) + len(second) + 0.15 * RATE, abs=0.01 * RATE)
    # With trimming, the silence left before the second sound counts too: 0.11 s of quiet is kept at both ends.
    between = joined(first, second, pause=0.35) != 0
    assert len(between) == pytest.approx((0.5 + 0.35 + 0.5) * RATE, abs=0.03 * RATE)
    # A longer silence is not shortened: trimming does that.
    long = np.concatenate((tone(0.5), silence(1.0)))
    assert len(joined(long, second, pause=0.35, trim=False)) == len(long) + len(second) - round(FADE * RATE)


def test_seams_do_not_click():
    # Both begin and end at full level.
    one, other = tone(0.5, 200, 0.5), tone(0.5, 330, 0.5)
    for pause in (0.0, 0.15):
        audio = joined(one, other, one, pause=pause, trim=False)
        assert steps(audio) < 1.5 * max(steps(one), steps(other))
    assert steps(np.concatenate((one, silence(0.1)))) > 5 * steps(one)


def test_without_a_pause_sounds_overlap_at_equal_power():
    gains = fade_in(480)
    np.testing.assert_allclose(gains**2 + gains[::-1] ** 2, 1, atol=1e-12)
    noise = [np.random.default_rng(seed).standard_normal(RATE).astype(np.float32) for seed in (1, 2)]
    audio = joined(*noise, pause=0.0, trim=False, pauses=True)
    n = round(FADE * RATE)
    assert len(audio) == 2 * RATE - n
    overlap = audio[RATE - n : RATE]
    assert np.std(overlap) == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(audio[: RATE - n], noise[0][:-n])
    np.testing.assert_array_equal(audio[RATE:], noise[1][n:])


def test_pauses_can_be_left_out():
    one = tone(0.5)
    assert len(joined(one, one, pauses=False, trim=False)) == 2 * len(one) - round(FADE * RATE)


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_quiet_ends_are_trimmed(noise: float):
    sound = np.concatenate((silence(0.4, noise), tone(1.0), silence(0.8, noise)))
    trimmed = trim_ends(sound, RATE)
    assert 1.0 < len(trimmed) / RATE < 1.2
    begin, end = find_sound(sound, RATE)
    assert begin / RATE == pytest.approx(0.4, abs=0.011) and end / RATE == pytest.approx(1.4, abs=0.011)
    # Speech itself is unchanged.
    first = begin - round(0.03 * RATE)
    np.testing.assert_array_equal(trimmed[begin - first : end - first], sound[begin:end])
    assert steps(trimmed) <= steps(sound)


def test_a_faint_burst_after_the_end_is_noise():
    click = tone(0.05, 3000, 0.02)
    sound = np.concatenate((tone(1.0), silence(0.5), click, silence(0.3)))
    assert len(trim_ends(sound, RATE)) / RATE < 1.15
    for kept in (
        # Kept: as loud as speech, as long as a word, or as near to the speech as a word's end.
        np.concatenate((tone(1.0), silence(0.5), tone(0.05), silence(0.3))),
        np.concatenate((tone(1.0), silence(0.5), tone(0.3, 200, 0.02), silence(0.3))),
        np.concatenate((tone(1.0), silence(0.1), click, silence(0.3))),
    ):
        assert len(trim_ends(kept, RATE)) >= len(kept) - 0.25 * RATE


def test_a_steady_hiss_is_no_speech():
    sound = np.concatenate((tone(1.0), np.zeros(0, dtype=np.float32), silence(0.7, 0.005)))
    assert len(trim_ends(sound, RATE)) / RATE < 1.2


def test_silence_and_nothing_stay_as_they_are():
    for sound in (silence(0.5), silence(0.0), tone(0.5)):
        np.testing.assert_array_equal(trim_ends(sound, RATE), sound)


def test_what_is_given_out_is_final_and_the_sounds_are_not_changed():
    one, other = tone(0.5), tone(0.5, 330)
    before = one.copy(), other.copy()
    joiner = Joiner(RATE, trim=False)
    first = joiner.add(one, 0.35)
    given = first.copy()
    joiner.add(other, 0.35)
    np.testing.assert_array_equal(first, given)
    np.testing.assert_array_equal(one, before[0])
    np.testing.assert_array_equal(other, before[1])


def test_a_chunk_with_nothing_to_say_lengthens_the_pause():
    joiner = Joiner(RATE, trim=False)
    pieces = [joiner.add(tone(0.5), 0.35)]
    joiner.rest(0.75)
    pieces += [joiner.add(tone(0.5), 0.35), joiner.finish()]
    assert len(np.concatenate(pieces)) == 2 * round(0.5 * RATE) + round(0.75 * RATE)


@given(
    lengths=st.lists(st.integers(0, 3000), max_size=8),
    pauses=st.lists(st.sampled_from([0.0, 0.15, 0.35]), min_size=8, max_size=8),
    trim=st.booleans(),
)
def test_any_sounds_can_be_joined(lengths: list[int], pauses: list[float], trim: bool):
    joiner = Joiner(RATE, trim=trim)
    pieces = [joiner.add(tone(1.0)[:n], pause) for n, pause in zip(lengths, pauses, strict=False)]
    audio = np.concatenate([*pieces, joiner.finish()])
    assert audio.dtype == np.float32
    assert np.isfinite(audio).all() and np.abs(audio).max(initial=0) < 0.7
    fades = len(lengths) * round(FADE * RATE)
    assert sum(lengths) - fades <= len(audio) <= sum(lengths) + RATE * sum(pauses) or trim


def test_a_join_needs_no_more_than_what_is_there():
    nothing, little = np.zeros(0, dtype=np.float32), tone(0.001)
    assert len(join(nothing, little, 0, 480)) == len(little)
    assert len(join(little, nothing, 10, 480)) == len(little) + 10
    assert len(join(nothing, nothing, 0, 480)) == 0


@given(
    lengths=st.lists(st.integers(0, 3000), max_size=6),
    pauses=st.lists(st.sampled_from([0.0, 0.15, 0.35]), min_size=6, max_size=6),
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    tail=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_sound_that_comes_in_chunks_is_joined_as_the_whole(
    lengths: list[int], pauses: list[float], cuts: list[int], tail: float
):
    sounds = [np.concatenate((tone(1.0)[:n], silence(tail))) for n in lengths]
    joiner, live = Joiner(RATE, trim=False), LiveJoiner(RATE)
    expected, heard = [], []
    for number, (sound, pause) in enumerate(zip(sounds, pauses, strict=False)):
        expected.append(joiner.add(sound, pause))
        last = number == len(sounds) - 1
        start = 0
        for cut in itertools.cycle(cuts):
            if start >= len(sound):
                break
            heard.append(live.push(sound[start : start + cut], last))
            start += cut
        if not last:
            heard.append(live.next(pause))
    nothing = np.zeros(0, dtype=np.float32)
    np.testing.assert_array_equal(
        np.concatenate([nothing, *heard, live.finish()]), np.concatenate([nothing, *expected, joiner.finish()])
    )


def test_of_a_sound_that_comes_no_more_is_held_back_than_a_fade():
    live, sound = LiveJoiner(RATE), tone(0.5)
    n = sum(len(live.push(sound[start : start + 1000])) for start in range(0, len(sound), 1000))
    assert n == len(sound) - round(FADE * RATE)
    # The pause is returned without waiting for the next sound.
    assert len(live.next(0.35)) == round(FADE * RATE) + round(0.35 * RATE)
    assert live.push(sound[:480], last=True)[0] == pytest.approx(0, abs=0.001)
    np.testing.assert_array_equal(live.push(sound[480:], last=True), sound[480:])
    assert not len(live.finish())
