"""Items of a text-to-semantic batch: utterances, several of them joined, and what a voice said before."""

import numpy as np

from .dataset import NO_GUIDE, Utterances
from .layout import LAYOUT, TOKEN_IDS

P_JOINED = 0.12  # share of batches whose items are two to four joined utterances
MOST_SHORT = 6  # short sentences in one text
P_AGAIN = 0.08  # share of short sentences that repeat the one before them
P_LONG = 0.08  # share of the sentences of such a text that are utterances of any length
SEMANTIC = LAYOUT.semantic
_FULL_STOP = TOKEN_IDS["."]
_ENDS = {TOKEN_IDS[mark] for mark in ".?!"}

Item = tuple[np.ndarray, np.ndarray, np.ndarray]  # text ids, units, and the text position of each unit


def read_item(data: Utterances, i: int) -> Item:
    """Text ids, units and guide of one utterance."""
    return data.get("text", i).astype(np.int64), data.get("units", i).astype(np.int64), data.get("guide", i)


def join(items: list[Item]) -> Item:
    """Join utterances to one text; one without a closing mark gets a full stop before the next."""
    text, units, guide, n_text = [], [], [], 0
    for number, (ids, said, positions) in enumerate(items):
        if number + 1 < len(items) and ids[-1] not in _ENDS:
            ids = np.append(ids, _FULL_STOP)
        guide.append(np.where(positions == NO_GUIDE, NO_GUIDE, positions + n_text))
        text.append(ids)
        units.append(said)
        n_text += len(ids)
    return np.concatenate(text), np.concatenate(units), np.concatenate(guide)


def fit(items: list[Item]) -> list[Item]:
    """As many of the first items as slots and positions allow, at least one."""
    n_text = np.cumsum([len(text) + 1 for text, _, _ in items])
    n_units = np.cumsum([len(units) for _, units, _ in items])
    fitting = (n_text <= SEMANTIC.n_slots) & (n_units < SEMANTIC.max_steps)
    return items[: max(1, int(fitting.sum()))]


def draw_items(data: Utterances, picked: np.ndarray, rng: np.random.Generator) -> list[Item]:
    """The picked utterances, sometimes joined by twos to fours, as far as slots and positions allow.

    All items of a batch join the same number: one long item among short ones would make these mostly padding.
    """
    n = int(rng.integers(2, 5)) if rng.random() < P_JOINED else 1
    picked = rng.permutation(picked)
    groups = [picked[at : at + n] for at in range(0, len(picked), n)]
    return [join(fit([read_item(data, int(i)) for i in group])) for group in groups]


def draw_short_texts(short: Utterances, data: Utterances, budget: float, rng: np.random.Generator) -> list[Item]:
    """Texts of one to six short sentences, about `budget` units in all.

    All texts of a batch have the same number of sentences. Some sentences repeat, and some are utterances of `data`.
    """
    n = int(rng.integers(1, MOST_SHORT + 1))
    n_texts = max(1, int(budget // (n * short.lengths("units").mean())))
    texts = []
    for _ in range(n_texts):
        sentences: list[Item] = []
        while len(sentences) < n:
            kind = rng.random()
            if sentences and kind < P_AGAIN:
                sentences.append(sentences[-1])
            else:
                source = data if kind > 1 - P_LONG else short
                sentences.append(read_item(source, int(rng.integers(len(source)))))
        texts.append(join(fit(sentences)))
    return texts


def draw_history(data: Utterances, rng: np.random.Generator) -> np.ndarray:
    """What a voice said before: units of one to four utterances, sometimes cut short."""
    past = np.concatenate([data.get("units", int(j)) for j in rng.integers(len(data), size=rng.integers(1, 5))])
    if rng.random() < 0.2:
        past = past[: rng.integers(len(past) // 2, len(past)) + 1]
    return past
