"""Stage `units`: text tokens, semantic units and their alignment for every utterance, as flat arrays on disk."""

import json
from pathlib import Path

import numpy as np

from .features import HOP, UNIT_RATE
from .layout import PUNCTUATION, TOKEN_IDS, tokenize
from .units import Segment, encode_units, read_phones, unit_times
from .work import Work, replacing

NO_GUIDE = -1.0
_MARKS = {TOKEN_IDS[mark] for mark in PUNCTUATION if mark != "'"}


class Utterances:
    """The utterances of one split; item i is a slice of memory-mapped flat arrays."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        self.starts = {name: np.load(folder / f"{name}_starts.npy") for name in names}

    def __len__(self) -> int:
        return len(next(iter(self.starts.values()))) - 1

    def get(self, name: str, i: int) -> np.ndarray:
        starts = self.starts[name]
        return np.asarray(self.arrays[name][starts[i] : starts[i + 1]])

    def lengths(self, name: str) -> np.ndarray:
        return np.diff(self.starts[name])


def save_utterances(work: Work, split: str, name: str, items: list[np.ndarray]) -> None:
    """Write one flat array and the starts of its items; open readers keep the old files."""
    starts = np.concatenate([[0], np.cumsum([len(item) for item in items])])
    for file, array in ((name, np.concatenate(items)), (f"{name}_starts", starts)):
        with replacing(work.path(f"data/{split}/{file}.npy")) as partial, open(partial, "wb") as opened:
            np.save(opened, array)


def parts(work: Work, split: str) -> list[tuple[Path, Path]]:
    """Paths of the labels and arrays of the synthesized parts, in order, up to the first missing part."""
    found = []
    while (arrays := work.folder / f"synth/{split}_{len(found):04d}.npz").is_file():
        found.append((arrays.with_suffix(".json"), arrays))
    return found


def read_labels(path: Path) -> list[dict]:
    """A part's labels, phones and words as segments."""
    labels = json.loads(path.read_text())
    for label in labels:
        for kind in ("phones", "words"):
            label[kind] = [Segment(*segment) for segment in label[kind]]
    return labels


def split_array(arrays: dict, name: str, counts: str, scale: int = 1) -> list[np.ndarray]:
    """Split a flat array of a part by utterance."""
    return np.split(arrays[name], np.cumsum(arrays[f"n_{counts}"] * scale)[:-1])


def read_audio(work: Work, split: str, n_parts: int | None = None) -> list[np.ndarray]:
    """Samples of each utterance, int16; only of the first `n_parts` parts if given."""
    opened = (np.load(path) for _, path in parts(work, split)[:n_parts])
    return [audio for arrays in opened for audio in split_array(arrays, "audio", "mel", HOP)]


def align(text: str, phones: list[Segment], words: list[Segment], n_units: int) -> np.ndarray:
    """For each unit the position of the text token that is being spoken, float32; NO_GUIDE if the words do not match.

    Within a word, the letters are assumed to advance evenly with its phones.
    """
    ids, numbers = tokenize(text)
    guide = np.full(n_units, NO_GUIDE, np.float32)
    if len(words) != len(text.split()):
        return guide
    tokens = [[i for i, number in enumerate(numbers) if number == w] for w in range(len(words))]
    letters = [[i for i in group if ids[i] not in _MARKS] for group in tokens]
    times = unit_times(n_units / UNIT_RATE + 1e-6)[:n_units]
    ends = np.array([word.end for word in words])
    owner = np.minimum(np.searchsorted(ends, [(p.start + p.end) / 2 for p in phones], side="right"), len(words) - 1)
    spoken = [[k for k, p in enumerate(phones) if owner[k] == w and p.name != "pau"] for w in range(len(words))]
    which = np.minimum(np.searchsorted([p.end for p in phones], times, side="right"), len(phones) - 1)
    last = 0.0
    for unit, k in enumerate(which):
        phone, w = phones[k], owner[k]
        if phone.name == "pau":
            # A pause belongs to the mark before it, the first pause to the first letter.
            said = [j for j, group in enumerate(spoken) if group and phones[group[-1]].end <= phone.end]
            last = float(tokens[said[-1]][-1]) if said else 0.0
        elif letters[w]:
            done = spoken[w].index(k) + (times[unit] - phone.start) / (phone.end - phone.start)
            last = letters[w][0] + min(1.0, done / len(spoken[w])) * len(letters[w]) - 0.5
        guide[unit] = last
    return guide


def run(work: Work) -> dict[str, float]:
    pitch = np.concatenate([np.load(arrays)["pitch"] for _, arrays in parts(work, "train")[:40]])
    borders = tuple(float(np.log2(border)) for border in np.nanpercentile(pitch, [33, 67]))
    facts: dict[str, float] = {"pitch_low_hz": 2 ** borders[0], "pitch_high_hz": 2 ** borders[1]}
    for split in ("held_out", "held_out_short", "short", "train"):
        text, units, guides, kept = [], [], [], []
        for labels, arrays in parts(work, split):
            pitches = split_array(np.load(arrays), "pitch", "pitch")
            for label, curve in zip(read_labels(labels), pitches, strict=True):
                text.append(np.array(tokenize(label["text"])[0], np.int16))
                units.append(encode_units(label["phones"], curve, borders))
                guides.append(align(label["text"], label["phones"], label["words"], len(units[-1])))
                kept.append({"text": label["text"], "phones": read_phones(units[-1])})
        for name, items in (("text", text), ("units", units), ("guide", guides)):
            save_utterances(work, split, name, items)
        if split.startswith("held_out"):
            work.write_text(f"data/{split}.json", json.dumps(kept, indent=0))
        facts[f"{split}_utterances"] = len(text)
        facts[f"{split}_hours"] = round(sum(map(len, units)) / UNIT_RATE / 3600, 3)
        facts[f"{split}_aligned"] = round(float(np.mean([guide[0] != NO_GUIDE for guide in guides])), 4)
    return facts
