"""A text as long as a book, spoken piece by piece: what of it stays in memory."""

import gc
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

from barkfast.bark import Bark
from barkfast.bench.comparison import PROMPTS
from barkfast.bench.machine import read_peaks
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.record import Recorder

SIZE, DTYPE = "nano", "float32"
WORDS, SMOKE_WORDS = 20_000, 600
# Of each piece, in seconds: random weights do not stop by themselves.
LENGTH = 0.5
# Memory is looked at behind this share of the words, and at the end.
WARM = 0.1


def run(plan: Plan, record: Recorder) -> None:
    bark = networks.open_bark(plan, SIZE, DTYPE)
    words = SMOKE_WORDS if plan.smoke else WORDS
    name = f"{SIZE} {DTYPE}, {words} words, {plan.threads} threads"
    record.measure(name, partial(read_aloud, bark, words, plan.threads), dtype=DTYPE)


def write_book(words: int) -> Iterator[str]:
    """Paragraphs of a few sentences in languages with spaces, `words` words in all."""
    prompts = cycle(prompt for prompt in PROMPTS if " " in prompt.text)
    while words > 0:
        paragraph = " ".join(next(prompts).text for _ in range(4)).split()[:words]
        words -= len(paragraph)
        yield " ".join(paragraph) + "\n\n"


def read_aloud(bark: Bark, words: int, threads: int) -> dict[str, Any]:
    """Speak the book and keep nothing: how much more memory is in use at the end than early on."""
    pieces = samples = said = 0
    early: tuple[int, int] | None = None

    def count(piece: Any) -> None:
        nonlocal pieces, said
        pieces += 1
        said += len(piece.text.split())

    tracemalloc.start()
    start = time.perf_counter()
    try:
        for sound in bark.generate_long(write_book(words), seed=1, max_duration_s=LENGTH, on_piece=count):
            samples += len(sound)
            if early is None and said >= WARM * words:
                early = measure()
        end = measure()
    finally:
        tracemalloc.stop()
    assert early is not None
    if said != words:
        raise RuntimeError(f"{said} words were said of {words}")
    return {
        "size": SIZE,
        "dtype": DTYPE,
        "threads": threads,
        "words": said,
        "pieces": pieces,
        "audio_s": round(samples / bark.sample_rate, 3),
        "seconds": round(time.perf_counter() - start, 3),
        "early_mb": round(early[0] / 1e6, 3),
        "end_mb": round(end[0] / 1e6, 3),
        "peak_grown_mb": round((end[1] - early[1]) / 1e6, 3),
    }


def measure() -> tuple[int, int]:
    """Bytes that Python and numpy hold, and the most that were resident so far."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0], read_peaks()["rss_bytes"]
