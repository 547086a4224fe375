"""Stage `evaluate`: quality of the exported model, run by the engine that users run.

The phone error rate is read from the semantic units, so it needs no recognizer. If pocketsphinx is installed, it gives
word error rates of the model's sound and of the training voice's.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import torch

from barkfast import Bark
from barkfast.config import Sampling
from barkfast.runtime import select

from .dataset import Utterances, read_audio
from .export import FOLDER
from .features import SAMPLE_RATE, measure_pitch
from .recognizer import make_recognizer
from .sentences import make_texts
from .units import IDS, TABLE, edit_distance, read_phones, sentences_said, unit_times
from .voices import MANNERS
from .work import Work

N_WORDNET, N_TEMPLATES, N_PITCH = 150, 50, 50
N_SEEDS = 3  # for each text of short sentences
# What the recognizer writes for words that the text list spells out.
WRITTEN = {"dr": "doctor", "mr": "mister", "mrs": "missus"}


def make_listener() -> Callable[[np.ndarray], list[str]] | None:
    """A function from samples to words, or None without a recognizer."""
    try:
        recognize = make_recognizer(SAMPLE_RATE)
    except ImportError:
        return None
    return lambda samples: [WRITTEN.get(word, word) for word in recognize(samples)]


def words_of(text: str) -> list[str]:
    return [word.strip(".,?!") for word in text.split()]


class Tally:
    """Error rate over several sentences."""

    def __init__(self) -> None:
        self.errors = self.length = 0

    def add(self, said: list[str], right: list[str]) -> None:
        self.errors += edit_distance(said, right)
        self.length += len(right)

    @property
    def rate(self) -> float:
        return round(self.errors / max(1, self.length), 4)


def speak(bark: Bark, texts: list[dict], voice: str | None, listen: Callable | None, original: list) -> dict:
    """Figures of one list of held-out sentences with one voice."""
    phones, heard, heard_original = Tally(), Tally(), Tally()
    ended, peaks, seconds, ratios, work = 0, [], 0.0, [], 0.0
    for number, item in enumerate(texts):
        made = bark.generate(item["text"], voice, seed=number)
        phones.add(read_phones(made.semantic), item["phones"])
        ended += len(made.semantic) < bark.layout.semantic.max_steps
        peaks.append(float(np.abs(made.audio).max()))
        seconds, work = seconds + made.duration, work + sum(made.timings.values())
        ratios.append(made.duration * SAMPLE_RATE / len(original[number]))
        if listen:
            heard.add(listen(made.audio), words_of(item["text"]))
            if voice is None:
                heard_original.add(listen(original[number].astype(np.float32) / 32767), words_of(item["text"]))
    figures = {
        "sentences": len(texts),
        "phone_error_rate": phones.rate,
        "ended": round(ended / len(texts), 4),
        "seconds": round(seconds, 1),
        "real_time_factor": round(work / seconds, 3),
        "loudest": round(max(peaks), 3),
        "softest_clip": round(min(peaks), 3),
        "length_ratio": [round(float(np.percentile(ratios, p)), 2) for p in (0, 5, 50, 95, 100)],
    }
    if listen:
        figures["word_error_rate"] = heard.rate
        if voice is None:
            figures["word_error_rate_of_training_voice"] = heard_original.rate
    return figures


def speak_texts(bark: Bark, texts: list[dict], voice: str | None) -> dict:
    """Figures of texts of several short sentences with one voice, each with N_SEEDS seeds."""
    phones, whole, early, said_sentences, n_sentences = Tally(), 0, 0, 0, 0
    tries = [(text, seed) for text in texts for seed in range(N_SEEDS)]
    for text, seed in tries:
        units = bark.generate_semantic(text["text"], voice, sampling=Sampling(0.7), seed=seed)
        found = sentences_said(said := read_phones(units), text["phones"])
        phones.add(said, [phone for sentence in text["phones"] for phone in sentence])
        whole, early = whole + all(found), early + (not found[-1])
        said_sentences, n_sentences = said_sentences + sum(found), n_sentences + len(found)
    return {
        "texts": len(texts),
        "seeds": N_SEEDS,
        "all_sentences_said": round(whole / len(tries), 4),
        "ended_early": round(early / len(tries), 4),
        "sentences_said": round(said_sentences / n_sentences, 4),
        "phone_error_rate": phones.rate,
    }


def flatten_pitch(units: np.ndarray) -> np.ndarray:
    """The same units, all with the middle pitch level."""
    return np.array([IDS[TABLE[unit]._replace(level=1)] for unit in units])


def pitch_correlation(bark: Bark, spoken: list[tuple[np.ndarray, np.ndarray]], flat: bool) -> float:
    """Correlation of the pitch of sound made from true units with the training voice's, where both have a pitch.

    Args:
        spoken: units and samples of each sentence.
        flat: remove the pitch from the units.
    """
    made, true = [], []
    for number, (units, audio) in enumerate(spoken):
        coarse = bark.generate_coarse(flatten_pitch(units) if flat else units, seed=number)
        sound = bark.decode(bark.generate_fine(coarse, seed=number))
        times = unit_times(min(len(sound), len(audio)) / SAMPLE_RATE)
        made.append(measure_pitch(sound, times))
        true.append(measure_pitch(audio.astype(np.float32) / 32767, times))
    pair = np.log2(np.stack([np.concatenate(made), np.concatenate(true)]))
    return round(float(np.corrcoef(pair[:, ~np.isnan(pair).any(0)])[0, 1]), 3)


def voices(work: Work, kind: str) -> dict[str, str | None]:
    """Names of the figures of one kind of text -> the voice: None, or a preset's file."""
    folder = work.folder / FOLDER / "voices"
    return {kind: None} | {f"{kind}, voice {name}": str(folder / f"{name}.npz") for name in MANNERS}


def run(work: Work) -> dict[str, object]:
    torch.set_num_threads(1)
    bark = Bark(work.folder / FOLDER, device="cpu")
    items = work.read_json("data/held_out.json")
    kinds = [item["kind"] for item in work.read_json("corpus.json")["held_out"]]
    data, audio = Utterances(work.folder / "data/held_out", "units"), read_audio(work, "held_out")
    listen = make_listener()
    engine = select.resolve_engine("auto", "cpu")
    found: dict[str, object] = {"engine": engine, "dtype": select.default_dtype("cpu", engine)}
    found["listener"] = "pocketsphinx" if listen else None
    start = time.time()
    for kind, n in (("wordnet", N_WORDNET), ("template", N_TEMPLATES)):
        picked = [i for i, k in enumerate(kinds) if k == kind][:n]
        for name, path in voices(work, kind).items():
            some = picked if path is None else picked[:40]
            original = [audio[i] for i in some]
            found[name] = speak(bark, [items[i] for i in some], path, listen, original)
            print(name, found[name], flush=True)
    texts = make_texts(work.read_json("data/held_out_short.json"))
    for name, path in voices(work, "short sentences").items():
        found[name] = speak_texts(bark, texts, path)
        print(name, found[name], flush=True)
    spoken = [(data.get("units", i), audio[i]) for i in range(N_PITCH)]
    found["pitch_correlation"] = {
        "sentences": N_PITCH,
        "with_levels": pitch_correlation(bark, spoken, flat=False),
        "without": pitch_correlation(bark, spoken, flat=True),
    }
    found["evaluated_in_seconds"] = round(time.time() - start)
    work.write_text("evaluation.json", json.dumps(found, indent=1) + "\n")
    return found
