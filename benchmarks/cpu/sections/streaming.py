"""A stream within a sentence against the same speech offline: when it is first heard, and how far it is off."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from barkfast.bark import Bark
from barkfast.bench.compare import log_mel_distance
from barkfast.config import Sampling
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import HOP, LOOK_AHEAD, MAX_HOP, PAST, FineWindows, LiveFineWindows
from barkfast.stages.semantic import count_steps
from benchmarks import inputs
from benchmarks.cpu import networks
from benchmarks.cpu.sizes import model_size
from benchmarks.plan import Plan
from benchmarks.process import ROOT
from benchmarks.record import NotRun, Recorder

# Frames; 75 are a second. Those of a stream by default first.
LOOK_AHEADS = (LOOK_AHEAD, 0, 30, 75)
PASTS = (PAST, 0, 512)
# Greedy, so that what differs is what the network saw, not what was drawn.
GREEDY, DRAWN = Sampling(0), Sampling(0.5)
DTYPE = "int8"
TEXTS = (
    "Hello, my name is Bark, the weather is nice today, and the train leaves in ten minutes.",
    "Every morning it listened to the rain, and every evening it counted from one to ten.",
    "She opened the door and said good morning to the old man with the little dog.",
    "We walked along the river until the sun went down behind the hills.",
    "The machine was very happy, and answered in a clear voice.",
    "I would like a cup of tea, please, and two pieces of bread with butter.",
)
# Sentences that training never saw, and how many of them a recognizer listens to.
HELD_OUT, N_HEARD = ROOT / "tests" / "demo" / "held_out.json", 48
# The default's first.
DEMO_LENGTHS = (
    (PAST, LOOK_AHEAD),
    (0, LOOK_AHEAD),
    (16, LOOK_AHEAD),
    (64, LOOK_AHEAD),
    (512, LOOK_AHEAD),
    (PAST, 0),
    (PAST, 75),
)


@dataclass(frozen=True, slots=True)
class Coarse:
    """Coarse codes, and when they came.

    Args:
        codes: (2, frames).
        arrivals: (frames so far, seconds since the stage began) after each of its windows.
    """

    codes: np.ndarray
    arrivals: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Speech:
    """What came of the coarse codes.

    Args:
        codes: (8, frames).
        audio: (samples,) float32.
        windows, fine_s: of the fine stage.
        first_audio_s: from the first coarse token to the first samples, one thing done after the other.
    """

    codes: np.ndarray
    audio: np.ndarray
    windows: int
    fine_s: float
    first_audio_s: float


def run(plan: Plan, record: Recorder) -> None:
    """What chance alone makes of the fine codes first, as a scale for the rest."""
    networks.use_threads(plan)
    size = model_size(plan, "small")
    record.measure(f"{size} {DTYPE}, offline, drawn with two seeds", partial(compare_draws, plan, size), dtype=DTYPE)
    record.measure(f"{size} {DTYPE}, offline", partial(describe, plan, size, GREEDY, None), dtype=DTYPE)
    for past in PASTS:
        for look_ahead in LOOK_AHEADS if past == PAST else LOOK_AHEADS[:1]:
            name = f"{size} {DTYPE}, {past} frames of the past, {look_ahead} ahead"
            record.measure(name, partial(describe, plan, size, GREEDY, (past, look_ahead)), dtype=DTYPE)
    run_demo(plan, record)


def run_demo(plan: Plan, record: Recorder) -> None:
    """The same of the demo voice, whose weights are trained: six sentences, drawn as users draw them."""
    bark = Bark("demo", device="cpu", engine="cpu")
    clips = [bark.generate(text, seed=3) for text in (TEXTS[:1] if plan.smoke else TEXTS)]
    layout, refiner = bark.layout, bark.components.network("fine")

    def describe_demo(speak: Callable[[np.ndarray], tuple[np.ndarray, int, int]]) -> dict[str, Any]:
        said = [speak(clip.coarse) for clip in clips]
        pairs = [(clip, codes) for clip, (codes, _, _) in zip(clips, said, strict=True)]
        distances = [log_mel_distance(clip.audio, bark.decode(codes), bark.sample_rate) for clip, codes in pairs]
        equal = [(codes[2:] == clip.fine[2:]).mean() for clip, codes in pairs]
        return {
            "size": "demo",
            "threads": plan.threads,
            "windows": sum(windows for _, _, windows in said),
            "computed_per_frame": round(sum(n for _, n, _ in said) / sum(clip.coarse.shape[1] for clip in clips), 2),
            "equal_share": round(float(np.mean(equal)), 4),
            "log_mel_db": round(float(np.mean(distances)), 3),
        }

    def another_draw(coarse: np.ndarray) -> tuple[np.ndarray, int, int]:
        return bark.generate_fine(coarse, seed=4), layout.fine.window, 1

    def live(coarse: np.ndarray, past: int, look_ahead: int) -> tuple[np.ndarray, int, int]:
        windows = LiveFineWindows(
            layout, DRAWN, past=past, look_ahead=look_ahead, hop=HOP, max_hop=MAX_HOP, random=Randomness(3)
        )
        windows.grow(coarse, final=True)
        computed = count = 0
        while (job := windows.next_job()) is not None:
            windows.append(refiner.refine(job))
            computed, count = computed + len(job.window), count + 1
        return windows.codes(), computed, count

    record.measure("demo voice, offline, drawn with another seed", lambda: describe_demo(another_draw))
    heard = partial(count_phone_errors, plan, bark)
    record.measure("demo voice, phones heard offline", lambda: heard(None))
    record.measure("demo voice, phones heard offline, another seed", lambda: heard(another_draw))
    stream = partial(live, past=PAST, look_ahead=LOOK_AHEAD)
    record.measure("demo voice, phones heard of the stream", lambda: heard(stream))
    for past, look_ahead in DEMO_LENGTHS:
        name = f"demo voice, {past} frames of the past, {look_ahead} ahead"
        speak = partial(live, past=past, look_ahead=look_ahead)
        record.measure(name, partial(describe_demo, speak))


def count_phone_errors(
    plan: Plan, bark: Bark, fill: Callable[[np.ndarray], tuple[np.ndarray, int, int]] | None
) -> dict[str, Any]:
    """What a recognizer of phones, that knows neither text nor voice, hears wrong of sentences that training never saw.

    Args:
        fill: makes fine codes of coarse ones; None for those of the clip itself.
    Errors: NotRun without pocketsphinx.
    """
    listen = make_phone_listener(bark.sample_rate)
    # It needs scipy, and only this row does.
    from training.demo_voice.units import edit_distance

    sentences = json.loads(HELD_OUT.read_text(encoding="utf-8"))["sentences"][: 2 if plan.smoke else N_HEARD]
    errors = length = 0
    for number, sentence in enumerate(sentences):
        clip = bark.generate(sentence["text"], seed=number)
        audio = clip.audio if fill is None else bark.decode(fill(clip.coarse)[0])
        right = sentence["phones"].replace("ax", "ah").split()
        errors, length = errors + edit_distance(listen(audio), right), length + len(right)
    same = {"size": "demo", "threads": plan.threads, "sentences": len(sentences), "phones": length}
    return same | {"phone_errors": round(errors / length, 4)}


@lru_cache(maxsize=1)
def make_phone_listener(sample_rate: int) -> Callable[[np.ndarray], list[str]]:
    """A function from samples to the phones of CMU's dictionary."""
    try:
        from pocketsphinx import Decoder, get_model_path
        from scipy.signal import resample_poly
    except ImportError as error:
        raise NotRun(f"{error.name} is not installed (the extras `wer` and `reference`)") from error
    model = get_model_path("en-us/en-us-phone.lm.bin")
    # Normalized over each clip by itself: what it heard before must not matter.
    decoder = Decoder(loglevel="FATAL", cmn="batch", lm=None, allphone=model, beam=1e-20, pbeam=1e-20, lw=2.0)

    def listen(samples: np.ndarray) -> list[str]:
        x = resample_poly(samples, 2, sample_rate // 8000)
        pcm = (x / max(1e-3, np.abs(x).max()) * 0.6 * 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        words = [segment.word for segment in decoder.seg()]
        return [word.lower() for word in words if word != "SIL" and not word.startswith("+")]

    return listen


@lru_cache(maxsize=1)
def speak_coarse(plan: Plan, size: str) -> Coarse:
    """The coarse stage of a clip without a voice, its random semantic tokens all there from the start."""
    decoder = networks.build_decoder(plan, size, DTYPE, "coarse")
    layout = inputs.checkpoint(plan, size).layout
    n = count_steps(plan.clip_s, layout.semantic)
    semantic = np.random.default_rng(0).integers(0, layout.semantic.vocab_size, n)
    windows = CoarseWindows(semantic, layout, Sampling(0.7), random=Randomness(0))
    arrivals = []
    start = time.perf_counter()
    while (job := windows.next_job()) is not None:
        windows.append(decoder.run([job])[0])
        arrivals.append((windows.n_done // layout.coarse.n_codebooks, time.perf_counter() - start))
    return Coarse(windows.codes(), tuple(arrivals))


@lru_cache(maxsize=4)
def speak_offline(plan: Plan, size: str, sampling: Sampling, seed: int = 0) -> Speech:
    """All coarse codes, then all fine ones, then the sound; heard as soon as a fine window has settled some frames."""
    coarse = speak_coarse(plan, size)
    refiner, stream = networks.build_refiner(plan, size, DTYPE), networks.build_codec(plan, size).stream()
    layout = inputs.checkpoint(plan, size).layout
    windows = FineWindows(coarse.codes, layout, sampling, random=Randomness(seed))
    waited = coarse.arrivals[-1][1]
    fine_s, sent, first, samples = 0.0, 0, None, []
    start = time.perf_counter()
    while (job := windows.next_job()) is not None:
        begin = time.perf_counter()
        windows.append(refiner.refine(job))
        fine_s += time.perf_counter() - begin
        samples.append(stream.push(windows.codes()[:, sent : windows.n_final]))
        sent = windows.n_final
        if first is None and samples[-1].size:
            first = waited + time.perf_counter() - start
    samples.append(stream.finish())
    # A clip shorter than the codec's lead-in comes at its end.
    first = waited + time.perf_counter() - start if first is None else first
    return Speech(windows.codes(), np.concatenate(samples), windows.n_windows, fine_s, first)


def speak_live(plan: Plan, size: str, sampling: Sampling, past: int, look_ahead: int) -> Speech:
    """The fine stage in windows while the coarse codes come; each waits for its codes and for the one before."""
    coarse = speak_coarse(plan, size)
    refiner, stream = networks.build_refiner(plan, size, DTYPE), networks.build_codec(plan, size).stream()
    layout = inputs.checkpoint(plan, size).layout
    windows = LiveFineWindows(
        layout,
        sampling,
        look_ahead=look_ahead,
        hop=HOP,
        max_hop=MAX_HOP,
        past=past,
        random=Randomness(0),
    )
    fine_s, busy, count, first, samples = 0.0, 0.0, 0, None, []
    for n_frames, seconds in coarse.arrivals:
        windows.grow(coarse.codes[:, windows.n_known : n_frames], final=n_frames == coarse.codes.shape[1])
        while (job := windows.next_job()) is not None:
            begin = time.perf_counter()
            filled = refiner.refine(job)
            fine_s += time.perf_counter() - begin
            samples.append(stream.push(windows.append(filled)))
            busy += time.perf_counter() - begin
            count += 1
            if first is None and samples[-1].size:
                first = seconds + busy
    samples.append(stream.finish())
    first = coarse.arrivals[-1][1] + busy if first is None else first
    return Speech(windows.codes(), np.concatenate(samples), count, fine_s, first)


def describe(plan: Plan, size: str, sampling: Sampling, live: tuple[int, int] | None) -> dict[str, Any]:
    """A stream's figures, `live` its past and look-ahead; or those of the offline stage."""
    offline = speak_offline(plan, size, sampling)
    speech = offline if live is None else speak_live(plan, size, sampling, *live)
    row = {"size": size, "dtype": DTYPE, "threads": plan.threads}
    row |= {} if live is None else {"past": live[0], "look_ahead": live[1], "hop": HOP, "max_hop": MAX_HOP}
    return row | {
        "audio_s": len(speech.audio) / inputs.checkpoint(plan, size).layout.sample_rate,
        "windows": speech.windows,
        "fine_s": round(speech.fine_s, 3),
        "first_audio_s": round(speech.first_audio_s, 3),
        **distance(plan, size, offline, speech),
    }


def compare_draws(plan: Plan, size: str) -> dict[str, Any]:
    """How far apart two offline runs are whose fine codes were drawn with different random numbers."""
    first, second = (speak_offline(plan, size, DRAWN, seed) for seed in (1, 2))
    return {"size": size, "dtype": DTYPE, "threads": plan.threads, **distance(plan, size, first, second)}


def distance(plan: Plan, size: str, expected: Speech, actual: Speech) -> dict[str, float]:
    """The share of equal codes among those that the fine stage fills, and how different it sounds."""
    layout = inputs.checkpoint(plan, size).layout
    given = layout.coarse.n_codebooks
    return {
        "equal_share": round(float((expected.codes[given:] == actual.codes[given:]).mean()), 4),
        "log_mel_db": round(log_mel_distance(expected.audio, actual.audio, layout.sample_rate), 3),
    }
