"""The window arithmetic against an independent transcription of the reference's index formulas, for all lengths.

The transcription below works on plain lists and integers and shares no code with barkfast.stages. Counters replace the
networks: what a window generates is known in advance, so every slice and every frame can be told apart.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.stages.coarse import CoarseWindows, trim_history
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job

LAYOUT = Layout()
SAMPLING = Sampling()
PAD, INFER, FIRST, SIZE = 12_048, 12_050, 10_000, 1024
RATIO = 75 / 49.9 * 2  # flat coarse tokens per semantic token
# (semantic tokens, frames) of Suno's own voices: the shortest, the longest, and those whose history is odd
VOICES = [(158, 237), (731, 1098), (499, 750), (191, 287), (205, 308), (201, 302), (2, 3), (1, 1), (1, 2)]

thorough = settings(max_examples=500)


@st.composite
def window_settings(draw: st.DrawFn) -> tuple[int, int]:
    """Any legal (tokens per window, tokens of history), with the usual ones drawn often."""
    history = draw(st.one_of(st.sampled_from([60, 333, 630]), st.integers(60, 630)))
    room = 1024 - 256 - history
    return draw(st.one_of(st.sampled_from([min(60, room), room]), st.integers(1, room))), history


def voice_lengths() -> st.SearchStrategy[tuple[int, int]]:
    """(semantic tokens, frames) of a voice: a real one's, or any pair in the ratio that the reference accepts."""
    in_ratio = st.tuples(st.integers(1, 800), st.floats(1.455, 1.545)).map(
        lambda pair: (pair[0], round(pair[0] * pair[1]))
    )
    return st.one_of(st.sampled_from(VOICES), in_ratio)


def numbered_voice(n_semantic: int, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A voice whose tokens encode their positions."""
    semantic = 5000 + np.arange(n_semantic)
    codes = np.stack([np.arange(n_frames) % SIZE, (np.arange(n_frames) * 3 + 1) % SIZE])
    return semantic, codes


def flat_voice(n_frames: int) -> list[int]:
    """The codes of `numbered_voice` in the order and under the ids that the coarse network sees."""
    flat = []
    for frame in range(n_frames):
        flat += [FIRST + frame % SIZE, FIRST + SIZE + (frame * 3 + 1) % SIZE]
    return flat


def generated(step: int) -> int:
    """The coarse token that the fake network generates at `step`."""
    return FIRST + SIZE * (step % 2) + (step * 7) % SIZE


def last(items: list[int], count: int) -> list[int]:
    """Python's items[-count:], where a count of 0 gives everything."""
    return items if count == 0 else items[max(0, len(items) - count) :]


def transcribed_trim(n_semantic: int, n_flat: int, max_history: int) -> tuple[int, int]:
    """How many semantic and flat coarse tokens of a voice are kept, before the last two are dropped."""
    even = n_semantic if n_semantic % 2 == 0 else n_semantic - 1
    keep = min(int(np.floor(max_history / RATIO)), even, int(np.floor(n_flat / RATIO)))
    return keep, int(round(keep * RATIO))


def transcribed_windows(
    n_semantic: int, voice: tuple[int, int] | None, window: int, max_history: int, n_steps: int
) -> list[tuple[list[int], list[int]]]:
    """The prompt of every window, and the steps it generates, by the reference's formulas."""
    past, coarse = [], []
    if voice is not None:
        semantic, flat = list(numbered_voice(*voice)[0]), flat_voice(voice[1])
        keep, keep_coarse = transcribed_trim(len(semantic), len(flat), max_history)
        past, coarse = last(semantic, keep), last(flat, keep_coarse)[:-2]
    whole = past + list(range(n_semantic))
    result = []
    step = 0
    while step < n_steps:
        centre = len(past) + int(round(step / RATIO))
        begin = max(0, centre - int(np.floor(max_history / RATIO)))
        slots = whole[begin : begin + 256]
        prompt = slots + [PAD] * (256 - len(slots)) + [INFER] + coarse[-max_history:]
        steps = list(range(step, min(step + window, n_steps)))
        result.append((prompt, steps))
        coarse = coarse + [generated(i) for i in steps]
        step += window
    return result


@thorough
@given(n_semantic=st.integers(1, 768), window=window_settings(), voice=st.none() | voice_lengths())
@example(n_semantic=768, window=(60, 630), voice=None)
@example(n_semantic=768, window=(60, 630), voice=(731, 1098))
@example(n_semantic=100, window=(47, 333), voice=(205, 308))
@example(n_semantic=40, window=(60, 630), voice=(1, 2))
@example(n_semantic=200, window=(1, 60), voice=(191, 287))
def test_coarse_windows(n_semantic: int, window: tuple[int, int], voice: tuple[int, int] | None) -> None:
    check_coarse_windows(n_semantic, window, voice)


@pytest.mark.parametrize("voice", [None, (499, 750)])
def test_coarse_windows_for_every_length(voice: tuple[int, int] | None) -> None:
    for n_semantic in range(1, 769):
        check_coarse_windows(n_semantic, (60, 630), voice)


def check_coarse_windows(n_semantic: int, window: tuple[int, int], voice: tuple[int, int] | None) -> None:
    """Check every window of one generation: prompt, steps, slices, continues_from; and that each token occurs once."""
    windows = CoarseWindows(
        np.arange(n_semantic),
        LAYOUT,
        SAMPLING,
        history=None if voice is None else numbered_voice(*voice),
        sliding_window=window[0],
        max_history=window[1],
    )
    n_steps = int(round(np.floor(n_semantic * RATIO / 2) * 2))
    expected = transcribed_windows(n_semantic, voice, *window, n_steps)
    assert windows.n_steps == n_steps
    assert windows.n_windows == len(expected)
    before = None
    for prompt, steps in expected:
        job = windows.next_job()
        assert job is not None
        assert job.prompt.dtype == np.int32
        assert job.prompt.tolist() == prompt
        assert job.steps == len(steps)
        allowed = [job.slices[i % len(job.slices)] for i in range(job.steps)]
        assert allowed == [(FIRST + SIZE * (i % 2), FIRST + SIZE * (i % 2 + 1)) for i in steps]
        assert job.stop is None and job.n_merged == 0
        assert len(job.prompt) <= 256 + 1 + window[1] <= 887
        # the last token of a window is never fed back, so the highest position is that of the token before it
        assert len(job.prompt) + job.steps - 2 < 1024
        extends = before is not None and prompt == before[1]
        assert job.continues_from is (before[0] if extends else None)
        tokens = np.array([generated(i) for i in steps], dtype=np.int32)
        before = (job, prompt + tokens.tolist())
        windows.append(tokens)
    assert windows.next_job() is None
    codes = windows.codes()
    assert codes.dtype == np.int32
    assert codes.tolist() == [[i * 7 % SIZE for i in range(first, n_steps, 2)] for first in (0, 1)]


def test_number_of_coarse_steps_for_every_length() -> None:
    """The 768 lengths there are; the last is 15.4 s, 1154 frames."""
    for n_semantic in range(1, 769):
        windows = CoarseWindows(np.zeros(n_semantic, int), LAYOUT, SAMPLING)
        frames = n_semantic * 750 // 499
        assert windows.n_steps == 2 * frames == int(round(np.floor(n_semantic * RATIO / 2) * 2))
        assert windows.n_windows == -(-2 * frames // 60)
    assert windows.n_steps == 2308


@given(n_semantic=st.integers(1, 768), seconds=st.floats(0.02, 20))
@example(n_semantic=768, seconds=0.02)
@example(n_semantic=768, seconds=2.5 / 75)
@example(n_semantic=768, seconds=3.5 / 75)
def test_coarse_duration_limit(n_semantic: int, seconds: float) -> None:
    """At most round(seconds * 75) frames, with halves rounded to even."""
    windows = CoarseWindows(np.zeros(n_semantic, int), LAYOUT, SAMPLING, max_duration_s=seconds)
    unlimited = int(round(np.floor(n_semantic * RATIO / 2) * 2))
    assert windows.n_steps == min(unlimited, int(np.floor(round(seconds * 75)) * 2))


@thorough
@given(voice=voice_lengths(), max_history=st.one_of(st.just(630), st.integers(60, 630)))
@example(voice=(1, 2), max_history=630)
@example(voice=(1, 1), max_history=60)
@example(voice=(731, 1098), max_history=630)
def test_history_is_trimmed_in_time(voice: tuple[int, int], max_history: int) -> None:
    semantic, codes = numbered_voice(*voice)
    kept, flat = trim_history(semantic, codes, LAYOUT, max_history)
    n_semantic, n_coarse = transcribed_trim(voice[0], 2 * voice[1], max_history)
    assert kept.dtype == flat.dtype == np.int32
    assert kept.tolist() == last(semantic.tolist(), n_semantic)
    assert flat.tolist() == last(flat_voice(voice[1]), n_coarse)[:-2]
    if n_semantic:
        assert len(flat) == n_coarse - 2 <= max_history - 2
        assert len(flat) % 2 == 0 or flat[0] >= FIRST + SIZE, "an odd history begins on the second codebook"
    else:
        assert len(kept) == voice[0] and len(flat) == 2 * voice[1] - 2, "nothing to keep keeps everything"


@pytest.mark.parametrize(
    ("voice", "max_history", "n_semantic", "n_coarse"),
    [
        ((499, 750), 630, 209, 626),
        ((158, 237), 630, 157, 470),
        ((191, 287), 630, 190, 569),
        ((205, 308), 630, 204, 611),
        ((201, 302), 630, 200, 599),
        ((731, 1098), 60, 19, 55),
    ],
)
def test_history_of_known_voices(voice: tuple[int, int], max_history: int, n_semantic: int, n_coarse: int) -> None:
    kept, flat = trim_history(*numbered_voice(*voice), LAYOUT, max_history)
    assert (len(kept), len(flat)) == (n_semantic, n_coarse)


@pytest.mark.parametrize(
    ("sliding_window", "max_history"), [(60, 59), (60, 631), (139, 630), (709, 60), (0, 630), (-1, 630)]
)
def test_illegal_windows_are_refused(sliding_window: int, max_history: int) -> None:
    with pytest.raises(InputError, match=r"max_coarse_history|sliding_window_len"):
        CoarseWindows(np.arange(9), LAYOUT, SAMPLING, sliding_window=sliding_window, max_history=max_history)


def test_windows_extend_each_other_until_the_history_slides() -> None:
    """Without a voice windows 1 to 10 begin where their predecessor's cache ends; with a full voice none does."""

    def extended(history: tuple[np.ndarray, np.ndarray] | None) -> list[int]:
        windows = CoarseWindows(np.arange(768), LAYOUT, SAMPLING, history=history)
        found = []
        while (job := windows.next_job()) is not None:
            if job.continues_from is not None:
                found.append(windows.n_done // 60)
            windows.append(np.array([generated(windows.n_done + i) for i in range(job.steps)], np.int32))
        return found

    assert extended(None) == list(range(1, 11))
    assert extended(numbered_voice(731, 1098)) == []


def transcribed_fine(codes: np.ndarray, history: np.ndarray | None) -> tuple[list[tuple[np.ndarray, int]], np.ndarray]:
    """Every input window with its first frame to fill, and the result, by the reference's formulas."""
    n_given, n_frames = codes.shape
    columns = [[*codes[:, t], *[1024] * (8 - n_given)] for t in range(n_frames)]
    past = [] if history is None else [list(column) for column in history.T[-512:]]
    rows = past + columns
    rows += [[1024] * 8 for _ in range(1024 - len(rows))]
    n_loops = max(0, int(np.ceil((n_frames - (1024 - len(past))) / 512))) + 1
    windows = []
    for n in range(n_loops):
        start = min(n * 512, len(rows) - 1024)
        fill = min(len(past) + n * 512, len(rows) - 512)
        windows.append((np.array(rows[start : start + 1024]), fill - start))
        for t in range(fill, start + 1024):
            for codebook in range(n_given, 8):
                rows[t][codebook] = filled(n, t - start, codebook)
    return windows, np.array(rows[len(past) : len(past) + n_frames]).T


def filled(window: int, frame: int, codebook: int) -> int:
    """The code that the fake fine network writes at a frame of a window."""
    return (window * 311 + frame * 5 + codebook) % 1024


@settings(max_examples=120)
@given(
    n_frames=st.one_of(st.integers(1, 1700), st.sampled_from([1, 511, 512, 513, 1023, 1024, 1025, 1154, 1536])),
    n_history=st.none() | st.one_of(st.integers(1, 1100), st.sampled_from([1, 237, 511, 512, 513, 1098])),
    n_given=st.sampled_from([2, 2, 2, 1, 7]),
)
@example(n_frames=1154, n_history=None, n_given=2)
@example(n_frames=1154, n_history=1098, n_given=2)
@example(n_frames=513, n_history=512, n_given=2)
def test_fine_windows(n_frames: int, n_history: int | None, n_given: int) -> None:
    random = np.random.default_rng(n_frames)
    codes = random.integers(0, 1024, (n_given, n_frames))
    history = None if n_history is None else random.integers(0, 1024, (8, n_history))
    expected, result = transcribed_fine(codes, history)
    windows = FineWindows(codes, LAYOUT, SAMPLING, history=history)
    covered = np.zeros(len(windows.frames), bool)
    for n, (window, first_frame) in enumerate(expected):
        job = windows.next_job()
        assert job is not None
        assert job.window.shape == (1024, 8) and job.window.dtype == np.int32
        np.testing.assert_array_equal(job.window, window)
        assert job.first_frame == first_frame
        assert (job.first_codebook, job.codebook_size) == (n_given, 1024)
        answer = job.window.copy()
        for frame in range(first_frame, 1024):
            answer[frame, n_given:] = [filled(n, frame, codebook) for codebook in range(n_given, 8)]
        start, fill = windows.bounds()
        covered[fill : start + 1024] = True
        windows.append(answer)
    assert windows.next_job() is None
    n_past = 0 if n_history is None else min(512, n_history)
    assert covered[n_past:].all() and not covered[:n_past].any(), "every frame is filled, the voice is left alone"
    generated_codes = windows.codes()
    assert generated_codes.dtype == np.int32
    np.testing.assert_array_equal(generated_codes, result)
    np.testing.assert_array_equal(generated_codes[:n_given], codes)


@pytest.mark.parametrize(
    ("n_frames", "n_history", "n_windows"),
    [(300, None, 1), (1024, None, 1), (1025, None, 2), (1154, None, 2), (1154, 464, 3), (1154, 512, 3), (513, 512, 2)],
)
def test_number_of_fine_windows(n_frames: int, n_history: int | None, n_windows: int) -> None:
    history = None if n_history is None else np.zeros((8, n_history), int)
    assert FineWindows(np.zeros((2, n_frames), int), LAYOUT, SAMPLING, history=history).n_windows == n_windows


@given(
    n_text=st.integers(0, 400),
    n_history=st.none() | st.integers(1, 800),
    early_stop=st.booleans(),
    min_eos_p=st.none() | st.floats(0, 1),
)
def test_semantic_prompt(n_text: int, n_history: int | None, early_stop: bool, min_eos_p: float | None) -> None:
    text = np.arange(n_text) * 7
    history = None if n_history is None else np.arange(n_history)
    job = semantic_job(text, LAYOUT, SAMPLING, history=history, min_eos_p=min_eos_p, allow_early_stop=early_stop)
    words = [10_048 + 7 * i for i in range(min(n_text, 256))]
    past = [] if n_history is None else list(range(max(0, n_history - 256), n_history))
    expected = words + [129_595] * (256 - len(words)) + past + [10_000] * (256 - len(past)) + [129_599]
    assert job.prompt.dtype == np.int32
    assert job.prompt.tolist() == expected
    assert (job.n_merged, job.steps, job.slices) == (256, 768, ((0, 10_000),))
    assert len(job.prompt) - job.n_merged + job.steps - 2 < 1024
    if early_stop:
        assert job.stop is not None and (job.stop.token, job.stop.min_p) == (10_000, min_eos_p)
    else:
        assert job.stop is None


@given(
    seconds=st.one_of(
        st.floats(0, 20),
        st.integers(0, 800).map(lambda n: n / 49.9),
        # exactly the sums that the limit is compared with
        st.integers(0, 800).map(lambda n: float(np.cumsum(np.full(n + 1, 1 / 49.9))[-1])),
    )
)
@example(seconds=0.0)
@example(seconds=1.0)
def test_semantic_duration_limit(seconds: float) -> None:
    """The token that passes the limit is kept; durations are summed token by token."""
    expected, duration = 0, 0.0
    while expected < 768:
        expected += 1
        duration += 1 / 49.9
        if duration > seconds:
            break
    assert semantic_job(np.arange(3), LAYOUT, SAMPLING, max_duration_s=seconds).steps == expected


def test_one_second_is_fifty_tokens() -> None:
    assert semantic_job(np.arange(3), LAYOUT, SAMPLING, max_duration_s=1.0).steps == 50
