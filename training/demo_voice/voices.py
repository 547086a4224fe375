"""Stage `voices`: three presets for `save_voice`, each a few utterances of the training voice in one manner.

One voice spoke the whole corpus. The presets differ in pitch, and a clip continues with the pitch of its preset.
"""

import numpy as np

from barkfast.voices import save_voice

from .dataset import Utterances
from .export import FOLDER
from .units import TABLE, VOICED
from .work import Work

SEED = 2023
LONGEST = 330  # units; the semantic stage sees the last 256, the coarse stage 209, the fine stage 512 frames
# Name -> the range of the utterances, sorted by mean pitch, from which it is drawn.
MANNERS = {"calm": (0.0, 0.03), "plain": (0.45, 0.55), "lively": (0.97, 1.0)}


def mean_level(units: np.ndarray) -> float:
    """Mean pitch level of the voiced units, 0 to 2."""
    levels = [TABLE[i].level for i in units if TABLE[i].phone in VOICED]
    return float(np.mean(levels)) if levels else 1.0


def run(work: Work) -> dict[str, float]:
    data = Utterances(work.folder / "data/train", "units", "codes")
    rng = np.random.default_rng(SEED)
    lengths = data.lengths("units")
    candidates = rng.permutation(np.flatnonzero((lengths > 90) & (lengths < 160)))[:2000]
    candidates = candidates[np.argsort([mean_level(data.get("units", int(i))) for i in candidates], kind="stable")]
    facts = {}
    for name, (low, high) in MANNERS.items():
        among = rng.permutation(candidates[int(low * len(candidates)) : int(high * len(candidates))])
        picked: list[int] = []
        while sum(lengths[picked]) + lengths[among[0]] <= LONGEST:
            picked.append(int(among[0]))
            among = among[1:]
        units = np.concatenate([data.get("units", i) for i in picked]).astype(np.int64)
        codes = np.concatenate([data.get("codes", i) for i in picked]).T.astype(np.int32)
        path = work.path(f"{FOLDER}/voices/{name}.npz")
        save_voice(path, {"semantic_prompt": units, "coarse_prompt": codes[:2], "fine_prompt": codes})
        facts[f"{name}_level"] = round(mean_level(units), 2)
    return facts
