"""Stage `synth`: festival speaks the text list; stores audio, log-mel frames, pitch, and phones and words with times.

The work is split into parts of PART utterances, one file each, which are distributed among several workers.
"""

import json
import subprocess
import tempfile
import time
from multiprocessing import Process
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from .features import HOP, SAMPLE_RATE, UNIT_RATE, log_mel, measure_pitch
from .units import Segment, unit_times
from .work import Work

PART = 250
N_TRAIN = 36_000
PAUSE_BEFORE, PAUSE_AFTER = 0.1, 0.2  # seconds of silence that a clip keeps
# festival's schwas and flaps are rare and sound like these phones.
SAME_PHONE = {"dx": "d", "hv": "hh", "axr": "er", "el": "l", "em": "m", "en": "n", "ssil": "pau", "h#": "pau"}
SCHEME = """
(voice_cmu_us_slt_arctic_hts)
(define (say id text)
  (let ((u (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.save.wave u (string-append "{folder}/" id ".wav"))
    (utt.save.segs u (string-append "{folder}/" id ".seg"))
    (utt.save.words u (string-append "{folder}/" id ".wrd"))))
"""


def read_labels(path: Path) -> list[Segment]:
    """The lines of an xlabel file; each holds an end time, a colour and a name."""
    segments: list[Segment] = []
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) == 3:
            start = segments[-1].end if segments else 0.0
            segments.append(Segment(start, float(fields[0]), fields[2]))
    return segments


def trim(samples: np.ndarray, phones: list[Segment], words: list[Segment]) -> tuple[np.ndarray, list, list]:
    """Cut the silence at both ends to PAUSE_BEFORE and PAUSE_AFTER, and shift the times accordingly."""
    start, end = 0.0, phones[-1].end
    if phones[0].name == "pau":
        start = max(0.0, phones[0].end - PAUSE_BEFORE)
    if phones[-1].name == "pau":
        end = min(end, phones[-1].start + PAUSE_AFTER)

    def shift(segments: list[Segment]) -> list[Segment]:
        moved = (Segment(max(s.start, start) - start, min(s.end, end) - start, s.name) for s in segments)
        return [segment for segment in moved if segment.end > segment.start]

    return samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)], shift(phones), shift(words)


def read_utterance(folder: Path, name: str) -> dict[str, Any]:
    """The stored data of one utterance."""
    rate, pcm = wavfile.read(folder / f"{name}.wav")
    samples = resample_poly(pcm.astype(np.float32) / 32768, SAMPLE_RATE // 8000, rate // 8000).astype(np.float32)
    phones = [s for s in read_labels(folder / f"{name}.seg") if s.end > s.start]
    phones = [Segment(s.start, s.end, SAME_PHONE.get(s.name, s.name)) for s in phones]
    samples, phones, words = trim(samples, phones, join_clitics(read_labels(folder / f"{name}.wrd")))
    samples = samples[: len(samples) // HOP * HOP]
    times = unit_times(min(phones[-1].end, len(samples) / SAMPLE_RATE))
    # As many frames as the coarse stage computes for these units.
    n_frames = int(len(times) * SAMPLE_RATE / HOP / UNIT_RATE)
    audio = np.round(np.clip(samples[: n_frames * HOP], -1, 1) * 32767).astype(np.int16)
    return {
        "audio": audio,
        "mel": log_mel(audio.astype(np.float32) / 32767).astype(np.float16),
        "pitch": measure_pitch(samples, times).astype(np.float32),
        "phones": phones,
        "words": words,
    }


def join_clitics(words: list[Segment]) -> list[Segment]:
    """Join words such as `cat's` again: festival splits them in two, the second without its own time."""
    joined: list[Segment] = []
    for word in words:
        if word.name.startswith("'") and joined:
            joined[-1] = Segment(joined[-1].start, max(joined[-1].end, word.end), joined[-1].name + word.name)
        else:
            start = joined[-1].end if joined else 0.0
            joined.append(Segment(start, word.end, word.name))
    return joined


def speak(texts: list[str]) -> list[dict[str, Any]]:
    """Synthesize each text with festival."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        script = folder / "say.scm"
        says = "\n".join(f'(say "{i:04d}" "{text}")' for i, text in enumerate(texts))
        script.write_text(SCHEME.format(folder=folder) + says, encoding="ascii")
        subprocess.run(["festival", "-b", str(script)], check=True, stdout=subprocess.DEVNULL)
        return [read_utterance(folder, f"{i:04d}") for i in range(len(texts))]


def speak_part(work: Work, split: str, part: int, texts: list[str]) -> None:
    """Synthesize one part and write its file."""
    items = speak(texts)
    labels = [
        {"index": part * PART + i, "text": texts[i], "phones": item["phones"], "words": item["words"]}
        for i, item in enumerate(items)
    ]
    work.write_text(f"synth/{split}_{part:04d}.json", json.dumps(labels))
    work.save_arrays(
        f"synth/{split}_{part:04d}.npz",
        {name: np.concatenate([item[name] for item in items]) for name in ("audio", "mel", "pitch")}
        | {f"n_{name}": np.array([len(item[name]) for item in items]) for name in ("mel", "pitch")},
    )


def _worker(work: Work, jobs: list[tuple[str, int, list[str]]]) -> None:
    import torch

    torch.set_num_threads(1)
    for split, part, texts in jobs:
        if not (work.folder / f"synth/{split}_{part:04d}.npz").is_file():
            start = time.time()
            speak_part(work, split, part, texts)
            print(f"{split} part {part}: {len(texts) / (time.time() - start):.1f} utterances a second", flush=True)


def run(work: Work, n_workers: int = 2) -> dict[str, int]:
    corpus = work.read_json("corpus.json")
    splits = corpus | {"train": corpus["train"][:N_TRAIN]}
    texts = {split: [item["text"] for item in items] for split, items in splits.items()}
    jobs = [(split, at // PART, t[at : at + PART]) for split, t in texts.items() for at in range(0, len(t), PART)]
    workers = [Process(target=_worker, args=(work, jobs[i::n_workers])) for i in range(n_workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed; its message is above. Start the stage again to go on")
    return {split: len(t) for split, t in texts.items()}
