"""How often the watermark is missed, and found where there is none: clips of the demo voice, changed in many ways.

    python -m benchmarks.watermark --clips 200

Prints the table of docs/watermark.md. It needs the extras `watermark` and `bench`, and takes some minutes.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random

import numpy as np
import soundfile

from barkfast import Bark
from barkfast.bench.machine import describe_machine
from barkfast.bench.serve import make_text
from barkfast.watermark import MARKED, detect, mark, require_watermark
from benchmarks.tables import make_table

RATE, OTHERS = 24_000, 30
# What happens to a sound: samples and a random number generator to samples and their rate.
Change = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, int]]


def encode(
    x: np.ndarray, _: np.random.Generator, kind: str, subtype: str | None = None, rate: int = RATE, level: float = 0.0
) -> tuple[np.ndarray, int]:
    """To a format and back. Args: level: of compression, 0 (best) to 1 (smallest), where the format has one."""
    buffer = io.BytesIO()
    how = {"compression_level": level} if kind in ("MP3", "OGG") else {}
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=kind, **how) as file:
        file.write(x if rate == RATE else resample(x, rate))
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")


def resample(x: np.ndarray, rate: int) -> np.ndarray:
    """(n,) samples at RATE to another rate, by the spectrum."""
    n = round(len(x) * rate / RATE)
    return (np.fft.irfft(np.fft.rfft(x)[: n // 2 + 1], n) * (n / len(x))).astype(np.float32)


def cut(x: np.ndarray, random: np.random.Generator, seconds: float) -> tuple[np.ndarray, int]:
    """A part from anywhere."""
    n = min(len(x), round(seconds * RATE))
    start = random.integers(0, len(x) - n + 1)
    return x[start : start + n], RATE


def add_noise(x: np.ndarray, random: np.random.Generator, decibels: float) -> tuple[np.ndarray, int]:
    """White noise, so many dB below the sound."""
    level = np.sqrt(np.mean(x**2)) * 10 ** (-decibels / 20)
    return x + random.normal(0, level, len(x)).astype(np.float32), RATE


def add_speech(x: np.ndarray, random: np.random.Generator, others: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Another clip at the same time, as loud, that is not marked."""
    other = np.resize(others[random.integers(len(others))], len(x))
    return x + other * float(np.sqrt(np.mean(x**2) / np.mean(other**2))), RATE


def filter_band(x: np.ndarray, _: np.random.Generator, lowest: float, highest: float) -> tuple[np.ndarray, int]:
    """Only frequencies of a band, in Hz."""
    spectrum = np.fft.rfft(x)
    frequencies = np.fft.rfftfreq(len(x), 1 / RATE)
    spectrum[(frequencies < lowest) | (frequencies > highest)] = 0
    return np.fft.irfft(spectrum, len(x)).astype(np.float32), RATE


def echo(x: np.ndarray, random: np.random.Generator, seconds: float) -> tuple[np.ndarray, int]:
    """A room whose echo falls by 60 dB in so many seconds, as loud as the sound itself."""
    n = round(seconds * RATE)
    tail = random.normal(0, 1, n) * 10 ** (-3 * np.arange(n) / n)
    room = np.concatenate([[1.0], tail / np.sqrt(np.sum(tail**2))])
    size = len(x) + n
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(room, size), size)[: len(x)].astype(np.float32), RATE


def bury(x: np.ndarray, random: np.random.Generator, others: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Between two other clips that are not marked."""
    before, after = (others[i] for i in random.integers(0, len(others), 2))
    return np.concatenate([before, x, after]), RATE


def make_changes(others: list[np.ndarray]) -> dict[str, Change]:
    """Every change by its name."""
    return {
        "nothing": lambda x, _: (x, RATE),
        "wav, 16 bits": partial(encode, kind="WAV", subtype="PCM_16"),
        "flac": partial(encode, kind="FLAC"),
        "mp3": partial(encode, kind="MP3"),
        "mp3, smallest": partial(encode, kind="MP3", level=0.9),
        "opus": partial(encode, kind="OGG", subtype="OPUS"),
        "opus, smallest": partial(encode, kind="OGG", subtype="OPUS", level=0.9),
        "vorbis": partial(encode, kind="OGG", subtype="VORBIS"),
        "telephone, 8 kHz mu-law": partial(encode, kind="WAV", subtype="ULAW", rate=8000),
        "cut to 1 s": partial(cut, seconds=1.0),
        "cut to 0.5 s": partial(cut, seconds=0.5),
        "cut to 0.2 s": partial(cut, seconds=0.2),
        "between two other clips": partial(bury, others=others),
        "resampled to 16 kHz": lambda x, _: (resample(x, 16_000), 16_000),
        "resampled to 44.1 kHz": lambda x, _: (resample(x, 44_100), 44_100),
        "40 dB quieter": lambda x, _: (x * np.float32(0.01), RATE),
        "white noise, 30 dB below": partial(add_noise, decibels=30),
        "white noise, 20 dB below": partial(add_noise, decibels=20),
        "white noise, 10 dB below": partial(add_noise, decibels=10),
        "white noise, as loud": partial(add_noise, decibels=0),
        "echo of 0.3 s": partial(echo, seconds=0.3),
        "another clip, as loud": partial(add_speech, others=others),
        "5 % faster and higher": lambda x, _: (resample(x, round(RATE / 1.05)), RATE),
        "20 % faster and higher": lambda x, _: (resample(x, round(RATE / 1.2)), RATE),
        "only from 300 to 3400 Hz": partial(filter_band, lowest=300, highest=3400),
        "only above 1 kHz": partial(filter_band, lowest=1000, highest=12_000),
        "only above 2 kHz": partial(filter_band, lowest=2000, highest=12_000),
        "marked twice": lambda x, _: (mark(x, RATE), RATE),
    }


def make_clips(n: int) -> list[np.ndarray]:
    """Short clips of the demo voice, all different."""
    texts = Random("texts")
    bark = Bark("demo", device="cpu")
    requests = [{"text": make_text(texts, texts.randint(2, 6)), "seed": seed} for seed in range(n)]
    return [generation.audio for generation in bark.generate_batch(requests)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--only", default="", help="changes with this in their name")
    args = parser.parse_args()
    n = args.clips
    require_watermark()
    clips = make_clips(n + OTHERS)
    # Those that are added to others are none of those that are judged.
    clips, others = clips[:n], clips[n:]
    begin = time.process_time()
    marked = [mark(clip, RATE) for clip in clips]
    seconds = sum(map(len, clips)) / RATE
    cost = (time.process_time() - begin) / seconds
    noise = [10 * np.log10(np.sum(x**2) / np.sum((y - x) ** 2)) for x, y in zip(clips, marked, strict=True)]
    machine = describe_machine("cpu")
    print(f"{n} clips of {seconds / n:.1f} s on average; {machine['device']['name']}, {machine['date']}")
    print(f"CPU time: {cost:.3f} s for a second of sound; the mark is {np.median(noise):.1f} dB below it\n")
    rows = []
    for name, change in make_changes(others).items():
        if args.only not in name:
            continue
        scores = []
        for sounds in [marked, clips] if name != "marked twice" else [marked]:
            random = np.random.default_rng(1)
            scores.append(np.array([detect(*change(sound, random)) for sound in sounds]))
        found, plain = scores[0], scores[-1]
        cells = [name, int(np.sum(found < MARKED)), int(np.sum(plain >= MARKED))]
        cells += [f"{found.min():.2f}, {np.median(found):.2f}", f"{np.median(plain):.2f}, {plain.max():.2f}"]
        if name == "marked twice":
            cells[2], cells[4] = "", ""
        rows.append(cells)
        # It takes half an hour.
        print(*cells, sep="  ", file=sys.stderr, flush=True)
    head = ["changed by", "missed", "false alarms", "marked: lowest, median", "not marked: median, highest"]
    print("\n".join(make_table(head, rows)))


if __name__ == "__main__":
    main()
