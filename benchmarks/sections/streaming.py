"""A stream within a sentence against the same speech offline: how far its fine codes and its sound are off.

Of the demo voice, whose weights are trained. The fine stage of a stream sees less: windows with some frames of the past
and of what comes next. How soon a stream begins is in the section `serving`.
"""

import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from barkfast.bark import Bark
from barkfast.bench.compare import log_mel_distance
from barkfast.config import Sampling
from barkfast.runtime.sampling import Randomness
from barkfast.stages.fine import HOP, LOOK_AHEAD, MAX_HOP, PAST, LiveFineWindows
from benchmarks.plan import Plan
from benchmarks.process import ROOT
from benchmarks.record import NotRun, Recorder
from training.demo_voice.recognizer import make_recognizer

SAMPLING = Sampling(0.5)
TEXTS = (
    "Hello, my name is Bark, the weather is nice today, and the train leaves in ten minutes.",
    "Every morning it listened to the rain, and every evening it counted from one to ten.",
    "She opened the door and said good morning to the old man with the little dog.",
    "We walked along the river until the sun went down behind the hills.",
    "The machine was very happy, and answered in a clear voice.",
    "I would like a cup of tea, please, and two pieces of bread with butter.",
)
# Sentences that training never saw, and how many of them a recognizer hears.
HELD_OUT, N_HEARD = ROOT / "tests" / "demo" / "held_out.json", 48
# Frames of the past and ahead; 75 are a second. Those of a stream by default first.
LENGTHS = (
    (PAST, LOOK_AHEAD),
    (0, LOOK_AHEAD),
    (16, LOOK_AHEAD),
    (64, LOOK_AHEAD),
    (512, LOOK_AHEAD),
    (PAST, 0),
    (PAST, 75),
)
# Coarse codes (2, frames) to fine codes (8, frames), frames computed, and windows.
Fill = Callable[[np.ndarray], tuple[np.ndarray, int, int]]


def run(plan: Plan, record: Recorder) -> None:
    """What chance alone makes of the fine codes first, as a scale for the rest."""
    bark = Bark("demo", device="cpu", engine="cpu")
    texts = TEXTS[:1] if plan.smoke else TEXTS
    clips = [bark.generate(text, seed=3) for text in texts]

    def compare(fill: Fill) -> dict[str, Any]:
        said = [fill(clip.coarse) for clip in clips]
        pairs = [(clip, codes) for clip, (codes, _, _) in zip(clips, said, strict=True)]
        distances = [log_mel_distance(clip.audio, bark.decode(codes), bark.sample_rate) for clip, codes in pairs]
        equal = [(codes[len(clip.coarse) :] == clip.fine[len(clip.coarse) :]).mean() for clip, codes in pairs]
        return {
            "size": "demo",
            "threads": plan.threads,
            "windows": sum(windows for _, _, windows in said),
            "computed_per_frame": round(sum(n for _, n, _ in said) / sum(clip.coarse.shape[1] for clip in clips), 2),
            "equal_share": round(float(np.mean(equal)), 4),
            "log_mel_db": round(float(np.mean(distances)), 3),
        }

    draw_again, live = partial(fill_offline, bark), partial(fill_live, bark, PAST, LOOK_AHEAD)
    record.measure("demo voice, offline, drawn with another seed", lambda: compare(draw_again))
    heard = partial(count_phone_errors, plan, bark)
    record.measure("demo voice, phones heard offline", lambda: heard(None))
    record.measure("demo voice, phones heard offline, another seed", lambda: heard(draw_again))
    record.measure("demo voice, phones heard of the stream", lambda: heard(live))
    for past, look_ahead in LENGTHS:
        name = f"demo voice, {past} frames of the past, {look_ahead} ahead"
        record.measure(name, partial(compare, partial(fill_live, bark, past, look_ahead)))


def fill_offline(bark: Bark, coarse: np.ndarray) -> tuple[np.ndarray, int, int]:
    """All codes at once, drawn with another seed."""
    return bark.generate_fine(coarse, seed=4), bark.layout.fine.window, 1


def fill_live(bark: Bark, past: int, look_ahead: int, coarse: np.ndarray) -> tuple[np.ndarray, int, int]:
    """As a stream fills them, window by window."""
    refiner = bark.components.network("fine")
    lengths = {"past": past, "look_ahead": look_ahead, "hop": HOP, "max_hop": MAX_HOP}
    windows = LiveFineWindows(bark.layout, SAMPLING, random=Randomness(3), **lengths)
    windows.grow(coarse, final=True)
    computed = count = 0
    while (job := windows.next_job()) is not None:
        windows.append(refiner.refine(job))
        computed, count = computed + len(job.window), count + 1
    return windows.codes(), computed, count


def count_phone_errors(plan: Plan, bark: Bark, fill: Fill | None) -> dict[str, Any]:
    """What a recognizer of phones, that knows neither text nor voice, hears wrong of sentences that training never saw.

    Args:
        fill: makes fine codes of coarse ones; None for those of the clip itself.

    Raises: NotRun without pocketsphinx.
    """
    recognize = phone_recognizer(bark.sample_rate)
    # It needs scipy, and only this row does.
    from training.demo_voice.units import edit_distance

    sentences = json.loads(HELD_OUT.read_text(encoding="utf-8"))["sentences"][: 2 if plan.smoke else N_HEARD]
    errors = length = 0
    for number, sentence in enumerate(sentences):
        clip = bark.generate(sentence["text"], seed=number)
        audio = clip.audio if fill is None else bark.decode(fill(clip.coarse)[0])
        right = sentence["phones"].replace("ax", "ah").split()
        errors, length = errors + edit_distance(recognize(audio), right), length + len(right)
    same = {"size": "demo", "threads": plan.threads, "sentences": len(sentences), "phones": length}
    return same | {"phone_errors": round(errors / length, 4)}


@cache
def phone_recognizer(sample_rate: int) -> Callable[[np.ndarray], list[str]]:
    """A function from samples to the phones of CMU's dictionary."""
    try:
        return make_recognizer(sample_rate, phones=True)
    except ImportError as error:
        raise NotRun(f"{error.name} is not installed (the extras `wer` and `reference`)") from error
