"""The fine stage while coarse codes are still arriving: its windows, and the samples of a stream."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barkfast import Bark
from barkfast.bench.compare import log_mel_distance
from barkfast.bench.workload import full_voice
from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.jobs import FineJob
from barkfast.runtime.sampling import Randomness
from barkfast.stages.fine import HOP, LOOK_AHEAD, MAX_HOP, PAST, FineWindows, LiveFineWindows

LAYOUT, SAMPLING = Layout(), Sampling(0.5)
PAD = LAYOUT.codebook_size


def draw_codes(n_frames: int, n_codebooks: int = 2) -> np.ndarray:
    return np.random.default_rng(n_frames).integers(0, PAD, (n_codebooks, n_frames)).astype(np.int32)


def fill(job: FineJob) -> np.ndarray:
    """A fake fine network: its codes depend on the whole window and on their position, and are never the pad id."""
    window = job.window.copy()
    seen = int((window.astype(np.int64) * np.arange(1, window.size + 1).reshape(window.shape)).sum())
    rows = np.arange(job.first_frame, len(window))[:, None]
    books = np.arange(job.first_codebook, window.shape[1])
    window[job.first_frame :, job.first_codebook :] = (seen + rows * 31 + books * 7) % PAD
    return window


def run(windows: LiveFineWindows, codes: np.ndarray, sizes: list[int]) -> tuple[list[FineJob], list[np.ndarray]]:
    """Feed the codes in pieces and run every job that is ready. Returns: the jobs, and the codes each finalized."""
    jobs: list[FineJob] = []
    settled: list[np.ndarray] = []
    start = 0
    for index, size in enumerate([*sizes, codes.shape[1]]):
        piece = codes[:, start : start + size]
        start += piece.shape[1]
        windows.grow(piece, final=index == len(sizes))
        while (job := windows.next_job()) is not None:
            jobs.append(job)
            settled.append(windows.append(fill(job)))
    return jobs, settled


@settings(max_examples=150)
@given(
    n_frames=st.integers(0, 1500),
    n_history=st.none() | st.integers(0, 700),
    look_ahead=st.integers(0, 60),
    hop=st.integers(1, 80),
    growth=st.integers(0, 100),
    past=st.integers(0, 1500),
    sizes=st.lists(st.integers(0, 300), max_size=12),
    others=st.lists(st.integers(0, 300), max_size=12),
)
def test_every_frame_is_settled_once(
    n_frames: int,
    n_history: int | None,
    look_ahead: int,
    hop: int,
    growth: int,
    past: int,
    sizes: list[int],
    others: list[int],
) -> None:
    codes = draw_codes(n_frames)
    history = None if n_history is None else draw_codes(n_history, 8)

    def live() -> LiveFineWindows:
        return LiveFineWindows(
            LAYOUT, SAMPLING, history, look_ahead=look_ahead, hop=hop, max_hop=hop + growth, past=past
        )

    windows = live()
    jobs, settled = run(windows, codes, sizes)
    seen_most = hop + growth + look_ahead
    assert windows.done and windows.n_final == n_frames and windows.next_job() is None
    whole = np.concatenate(settled, axis=1) if settled else np.zeros((8, 0), np.int32)
    assert whole.dtype == np.int32
    np.testing.assert_array_equal(whole, windows.codes())
    np.testing.assert_array_equal(whole[:2], codes)
    assert whole.size == 0 or whole.max() < PAD
    for job, own in zip(jobs, settled, strict=True):
        whole_window = len(jobs) == 1 and n_frames <= hop + look_ahead
        assert job.window.dtype == np.int32 and job.window.shape[1] == 8
        assert len(job.window) == 1024 if whole_window else len(job.window) <= min(1024, job.first_frame + seen_most)
        assert job.first_frame <= (512 if whole_window else past)
        assert (job.first_codebook, job.codebook_size) == (2, PAD)
        # The codes to predict are pads, and at least as many frames are visible as are finalized.
        assert (job.window[job.first_frame :, 2:] == PAD).all()
        seen = (job.window[job.first_frame :, 0] != PAD).sum()
        assert own.shape[1] <= seen <= seen_most
    # Windows do not depend on the pieces in which codes arrive: they are the same single and batched.
    again, same = run(live(), codes, others)
    assert len(jobs) == len(again)
    for job, other in zip(jobs, again, strict=True):
        np.testing.assert_array_equal(job.window, other.window)
        assert job.first_frame == other.first_frame
    assert all((a == b).all() for a, b in zip(settled, same, strict=True))


def test_windows_one_by_one() -> None:
    windows = LiveFineWindows(LAYOUT, SAMPLING, draw_codes(30, 8), look_ahead=3, hop=5, max_hop=15, past=20)
    assert windows.n_history == 30
    settled, begins = [], []
    for _ in range(60):
        windows.grow(draw_codes(60)[:, :1])
        while (job := windows.next_job()) is not None:
            begins.append((windows.n_known, job.first_frame, len(job.window)))
            settled.append(windows.append(fill(job)).shape[1])
    # A window is ready once one frame more than it covers is known, and is not padded.
    assert settled == [5, 10, 15, 15]
    assert begins == [(9, 20, 28), (19, 20, 33), (34, 20, 38), (49, 20, 38)]
    windows.grow(draw_codes(0), final=True)
    job = windows.next_job()
    assert job is not None and len(job.window) == 35 and windows.append(fill(job)).shape[1] == 15
    assert windows.done and windows.next_job() is None


def test_a_window_holds_no_more_than_the_network_sees() -> None:
    windows = LiveFineWindows(LAYOUT, SAMPLING, draw_codes(512, 8), look_ahead=100, hop=500, past=5000)
    windows.grow(draw_codes(601))
    job = windows.next_job()
    assert job is not None and (len(job.window), job.first_frame) == (1024, 424)


def test_a_job_is_the_same_until_it_is_answered() -> None:
    windows = LiveFineWindows(LAYOUT, SAMPLING, look_ahead=4, hop=6)
    windows.grow(draw_codes(11))
    first = windows.next_job()
    windows.grow(draw_codes(40), final=True)
    second = windows.next_job()
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.window, second.window)
    assert windows.append(fill(second)).shape == (8, 6)


@pytest.mark.parametrize("n_history", [None, 100, 512, 700])
def test_what_fits_one_window_is_as_offline(n_history: int | None) -> None:
    codes = draw_codes(400)
    history = None if n_history is None else draw_codes(n_history, 8)
    offline = FineWindows(codes, LAYOUT, SAMPLING, history=history)
    live = LiveFineWindows(LAYOUT, SAMPLING, history, look_ahead=15, hop=400)
    live.grow(codes, final=True)
    expected, job = offline.next_job(), live.next_job()
    assert expected is not None and job is not None
    np.testing.assert_array_equal(job.window, expected.window)
    assert job.first_frame == expected.first_frame
    offline.append(fill(expected))
    np.testing.assert_array_equal(live.append(fill(job)), offline.codes())
    assert live.done


@settings(max_examples=80)
@given(n_frames=st.integers(1, 2500), n_history=st.none() | st.integers(1, 700))
def test_final_frames_of_the_offline_stage_never_change(n_frames: int, n_history: int | None) -> None:
    history = None if n_history is None else draw_codes(n_history, 8)
    windows = FineWindows(draw_codes(n_frames), LAYOUT, SAMPLING, history=history)
    assert windows.n_final == 0
    final_codes = np.zeros((8, 0), np.int32)
    while (job := windows.next_job()) is not None:
        windows.append(fill(job))
        assert windows.n_final >= final_codes.shape[1]
        final_codes = np.concatenate([final_codes, windows.codes()[:, final_codes.shape[1] : windows.n_final]], axis=1)
    assert windows.n_final == n_frames
    np.testing.assert_array_equal(final_codes, windows.codes())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hop": 0}, "hop is 0"),
        ({"hop": 20, "max_hop": 10}, "max_hop 10"),
        ({"look_ahead": -1}, "look_ahead is -1"),
        ({"hop": 1000, "look_ahead": 25}, "expected 0 to 24"),
        ({"past": -1}, "past is -1"),
    ],
)
def test_lengths_that_do_not_fit(options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LiveFineWindows(LAYOUT, SAMPLING, **options)


def test_refuses_codes() -> None:
    windows = LiveFineWindows(LAYOUT, SAMPLING)
    for codes in (draw_codes(5, 3), np.zeros(5, np.int32)):
        with pytest.raises(InputError, match=r"expected \(2, frames\)"):
            windows.grow(codes)
    with pytest.raises(InputError, match="without a job"):
        windows.append(np.zeros((1024, 8), np.int32))
    windows.grow(draw_codes(5), final=True)
    with pytest.raises(InputError, match="the last"):
        windows.grow(draw_codes(5))


def test_no_frames() -> None:
    windows = LiveFineWindows(LAYOUT, SAMPLING)
    windows.grow(draw_codes(0), final=True)
    assert windows.done and windows.next_job() is None and windows.codes().shape == (8, 0)


def speak_live(
    bark: Bark, coarse: np.ndarray, sizes: list[int], sampling: Sampling = SAMPLING, **options: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fine codes and samples of a stream whose coarse codes arrive in pieces."""
    windows = LiveFineWindows(bark.layout, sampling, random=Randomness(3), **options)
    refiner, stream = bark.components.load("fine"), bark.components.load("codec").stream()
    samples, start = [], 0
    for size in sizes:
        windows.grow(coarse[:, start : start + size], final=start + size >= coarse.shape[1])
        start += size
        while (job := windows.next_job()) is not None:
            samples.append(stream.push(windows.append(refiner.refine(job))))
    samples.append(stream.finish())
    assert windows.done
    return windows.codes(), np.concatenate(samples)


def test_the_stream_is_the_sound_of_its_codes(bark: Bark) -> None:
    coarse = draw_codes(90)
    options = {"look_ahead": LOOK_AHEAD, "hop": HOP, "max_hop": MAX_HOP, "past": PAST}
    codes, audio = speak_live(bark, coarse, [30, 30, 30], **options)
    np.testing.assert_array_equal(audio, bark.decode(codes))
    # Codes and samples do not depend on when coarse codes arrive.
    again, sound = speak_live(bark, coarse, [1] * 90, **options)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(sound, audio)


def test_everything_at_once_is_exact(bark: Bark) -> None:
    coarse = draw_codes(90)
    expected = bark.generate_fine(coarse, None, SAMPLING, seed=3)
    codes, audio = speak_live(bark, coarse, [90], look_ahead=0, hop=90)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(audio, bark.decode(expected))


def test_the_difference_to_offline_is_one_of_fine_codes_only(bark: Bark) -> None:
    """The coarse codebooks, which carry most of the sound, are the same; the rest differs in part."""
    coarse = draw_codes(90)
    expected = bark.generate_fine(coarse, None, Sampling(0), seed=3)
    codes, audio = speak_live(bark, coarse, [30, 30, 30], Sampling(0), look_ahead=15, hop=15)
    np.testing.assert_array_equal(codes[:2], expected[:2])
    assert 0 < log_mel_distance(bark.decode(expected), audio, bark.sample_rate) < 20


def test_a_voice_stands_in_front(bark: Bark) -> None:
    voice = full_voice(bark.layout)
    windows = LiveFineWindows(bark.layout, SAMPLING, voice["fine_prompt"], random=Randomness(0), look_ahead=0, hop=40)
    windows.grow(draw_codes(40), final=True)
    job = windows.next_job()
    assert job is not None and job.first_frame == 512
    np.testing.assert_array_equal(job.window[:512], voice["fine_prompt"][:, -512:].T)
    expected = bark.generate_fine(draw_codes(40), voice, SAMPLING, seed=0)
    np.testing.assert_array_equal(windows.append(bark.components.load("fine").refine(job)), expected)
