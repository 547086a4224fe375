"""Coarse windows whose semantic tokens are still arriving: the same jobs as with all tokens, as early as possible."""

import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.jobs import Job
from barkfast.stages.coarse import CoarseWindows

LAYOUT = Layout()
Voice = tuple[np.ndarray, np.ndarray]


def make_voice(n_semantic: int) -> Voice:
    """A voice whose tokens show their position."""
    frames = round(n_semantic * LAYOUT.coarse_per_semantic / 2)
    return np.arange(n_semantic) % 9_000, np.stack([np.arange(frames) % 1024, np.arange(frames) * 3 % 1024])


def draw(job: Job) -> np.ndarray:
    """Tokens that depend on the whole prompt."""
    number = zlib.crc32(job.prompt.tobytes())
    slices = [job.slices[i % len(job.slices)] for i in range(job.steps)]
    return np.array([first + (number + i * 31) % (end - first) for i, (first, end) in enumerate(slices)], np.int32)


def take_all(windows: CoarseWindows, jobs: list[Job]) -> None:
    """Draw the tokens of every window that is ready, and append its job to `jobs`."""
    while (job := windows.next_job()) is not None:
        jobs.append(job)
        windows.append(draw(job))


def assert_same_jobs(jobs: list[Job], expected: list[Job]) -> None:
    assert len(jobs) == len(expected)
    for i, (job, same) in enumerate(zip(jobs, expected, strict=True)):
        np.testing.assert_array_equal(job.prompt, same.prompt)
        assert (job.steps, job.slices) == (same.steps, same.slices)
        assert (job.continues_from is None) == (same.continues_from is None)
        assert job.continues_from is None or job.continues_from is jobs[i - 1]


@st.composite
def window_settings(draw: st.DrawFn) -> tuple[int, int]:
    """Any valid (tokens per window, tokens of history); the usual ones often."""
    history = draw(st.one_of(st.sampled_from([60, 333, 630]), st.integers(60, 630)))
    room = 1024 - 256 - history
    return draw(st.one_of(st.just(min(60, room)), st.integers(1, room))), history


@settings(max_examples=200)
@given(
    n_semantic=st.integers(1, 768),
    n_voice=st.none() | st.integers(2, 300),
    window=window_settings(),
    seconds=st.none() | st.floats(0.1, 16),
    pieces=st.lists(st.integers(0, 90), max_size=40),
    told_at_the_end=st.booleans(),
)
@example(n_semantic=768, n_voice=None, window=(60, 630), seconds=None, pieces=[1] * 40, told_at_the_end=True)
@example(n_semantic=768, n_voice=256, window=(60, 630), seconds=None, pieces=[40] * 40, told_at_the_end=False)
@example(n_semantic=1, n_voice=256, window=(60, 630), seconds=None, pieces=[], told_at_the_end=True)
def test_tokens_that_come_late_change_no_window(
    n_semantic: int,
    n_voice: int | None,
    window: tuple[int, int],
    seconds: float | None,
    pieces: list[int],
    told_at_the_end: bool,
) -> None:
    semantic = np.random.default_rng(n_semantic).integers(0, 10_000, n_semantic)
    options = {
        "history": None if n_voice is None else make_voice(n_voice),
        "sliding_window": window[0],
        "max_history": window[1],
        "max_duration_s": seconds,
    }
    whole, expected = CoarseWindows(semantic, LAYOUT, Sampling(), **options), []
    take_all(whole, expected)
    assert whole.done
    growing, jobs = CoarseWindows(semantic[:0], LAYOUT, Sampling(), final=False, **options), []
    start = 0
    for piece in pieces:
        growing.grow(semantic[start : start + piece])
        start += piece
        take_all(growing, jobs)
        assert not growing.done
    growing.grow(semantic[start:], final=not told_at_the_end)
    if told_at_the_end:
        take_all(growing, jobs)
        growing.grow(semantic[:0], final=True)
    take_all(growing, jobs)
    assert growing.done
    assert_same_jobs(jobs, expected)
    np.testing.assert_array_equal(growing.codes(), whole.codes())
    assert (growing.n_steps, growing.n_windows) == (whole.n_steps, whole.n_windows)


@pytest.mark.parametrize(("n_voice", "needed"), [(256, [47, 67, 87]), (None, [256, 256, 256])])
def test_a_window_waits_for_what_it_sees_and_no_longer(n_voice: int | None, needed: list[int]) -> None:
    """With a voice that fills the history: 47 tokens, then 20 more per window. Without: 256 for the first windows."""
    windows = CoarseWindows(
        np.zeros(0, int),
        LAYOUT,
        Sampling(),
        history=None if n_voice is None else make_voice(n_voice),
        final=False,
    )
    known: list[int] = []
    for n in range(1, 300):
        windows.grow(np.array([n]))
        while len(known) < len(needed) and (job := windows.next_job()) is not None:
            known.append(n)
            windows.append(draw(job))
    assert known == needed


def test_there_is_no_end_before_it_is_said() -> None:
    windows, jobs = CoarseWindows(np.arange(300), LAYOUT, Sampling(), final=False), []
    take_all(windows, jobs)
    assert jobs and not windows.done
    windows.grow(np.zeros(0, int), final=True)
    take_all(windows, jobs)
    assert windows.done
    with pytest.raises(InputError, match="said to be the last"):
        windows.grow(np.arange(3))


def test_too_few_tokens_are_refused_when_all_are_there() -> None:
    windows = CoarseWindows(np.zeros(0, int), LAYOUT, Sampling(), max_duration_s=0.001, final=False)
    windows.grow(np.arange(5))
    assert windows.next_job() is None
    with pytest.raises(InputError, match="5 semantic tokens and max_gen_duration_s=0.001 leave no audio frame"):
        windows.grow(np.arange(0), final=True)
