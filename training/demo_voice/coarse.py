"""Stages `coarse` and `coarse_full`: semantic units to the first two codebooks, interleaved.

A clip is generated in windows: 256 slots of units, the infer token, up to 630 earlier tokens, then 60 new ones. Until
there are 630 earlier tokens, every window has the same slots from the clip's start; later the slots move with it. The
short stage trains on stretches with few slots, the full stage on windows in the layout of generation.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.models.gpt import GPT
from barkfast.stages.coarse import flatten_codes, max_semantic_history, trim_history

from .dataset import Utterances
from .layout import COARSE, CODEBOOK_SIZE, LAYOUT
from .nets import autocast, causal_trunk, embed_positions, to_device
from .train import Plan, Run, batches, initialize, load_trained, make_optimizers
from .work import Work

SHORT = Plan("coarse", steps=9000, rate=2e-3)
FULL = Plan("coarse_full", steps=2400, rate=6e-4, fall=0.8)
BUDGET = 8 * 110  # semantic units in a batch
P_MIDDLE = 0.3  # share of stretches that begin in the middle of speech
P_HISTORY = 0.5  # share of windows that continue a voice
N_UNHEARD = 8  # tokens at the start of a stretch from the middle, which cannot be predicted
SEMANTIC_PAD, INFER = LAYOUT.coarse.semantic_pad_token, LAYOUT.coarse.infer_token
N_SLOTS, MAX_HISTORY, WINDOW = LAYOUT.coarse.n_slots, LAYOUT.coarse.max_history, LAYOUT.coarse.sliding_window
RATIO = LAYOUT.coarse_per_semantic
FIRST = LAYOUT.semantic.vocab_size

Example = tuple[np.ndarray, np.ndarray, int]  # slots, flat coarse tokens, how many of their first the loss skips


class Speech:
    """Units and first two codebooks of utterances, single or joined."""

    def __init__(self, work: Work, split: str) -> None:
        self.data = Utterances(work.folder / f"data/{split}", "units", "codes")

    def join(self, items: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(n,) units and (2, frames) codes."""
        units = np.concatenate([self.data.get("units", i) for i in items]).astype(np.int64)
        codes = np.concatenate([self.data.get("codes", i)[:, :2] for i in items]).astype(np.int64).T
        return units, codes

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return self.join([int(i) for i in rng.integers(len(self.data), size=n)])


def stretch_from_start(units: np.ndarray, codes: np.ndarray) -> Example:
    """A clip's beginning, while the slots do not move: the tokens of at most 209 units, and one window."""
    n = round(max_semantic_history(MAX_HISTORY, LAYOUT) * RATIO) + WINDOW
    return units[:N_SLOTS], flatten_codes(codes, LAYOUT)[:n], 0


def stretch_from_middle(units: np.ndarray, codes: np.ndarray, n_units: int, rng: np.random.Generator) -> Example:
    """About `n_units` units from anywhere and the units after them, like a window whose slots have moved.

    Rounding in generation shifts tokens by up to one frame, and a window may begin with the second codebook.
    """
    start = int(rng.integers(0, max(1, len(units) - n_units)))
    flat = flatten_codes(codes, LAYOUT)
    at = max(0, round(start * RATIO) + int(rng.integers(-2, 3)))
    n_ahead = int(rng.integers(0, 48))
    return units[start : start + n_units + n_ahead][:N_SLOTS], flat[at : at + round(n_units * RATIO)], N_UNHEARD


def window_of(past: tuple | None, units: np.ndarray, codes: np.ndarray, window: int) -> Example:
    """Window number `window` of a clip in the layout of generation, with its new tokens.

    `past` is a voice's (units, codes), which the clip continues. The same as CoarseWindows.prompt().
    """
    empty = np.zeros(0, np.int64)
    before, history = (empty, empty) if past is None else trim_history(*past, LAYOUT, MAX_HISTORY)
    stream, tokens = np.concatenate([before, units]), np.concatenate([history, flatten_codes(codes, LAYOUT)])
    n_done = window * WINDOW
    start = max(0, len(before) + round(n_done / RATIO) - max_semantic_history(MAX_HISTORY, LAYOUT))
    there = len(history) + n_done
    kept = max(0, there - MAX_HISTORY)
    return stream[start : start + N_SLOTS], tokens[kept : there + WINDOW], N_UNHEARD if kept or past else 0


def lay_out(examples: list[Example], n_slots: int) -> dict[str, Tensor]:
    """Pad examples to one batch: `slots` (batch, n_slots), `coarse` and `targets` (batch, steps), `positions`."""
    n_steps = max(len(tokens) for _, tokens, _ in examples)
    slots = np.full((len(examples), n_slots), SEMANTIC_PAD)
    coarse = np.full((len(examples), n_steps), SEMANTIC_PAD)
    targets = np.full((len(examples), n_steps), -100)
    coarse[:, 0] = INFER
    for row, (units, tokens, n_skipped) in enumerate(examples):
        slots[row, : len(units)] = units
        coarse[row, 1 : len(tokens)] = tokens[:-1]
        targets[row, n_skipped : len(tokens)] = tokens[n_skipped:]
    places = np.concatenate([np.arange(n_slots), N_SLOTS + np.arange(n_steps)])
    arrays = {"slots": slots, "coarse": coarse, "targets": targets, "positions": places}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def losses(model: GPT, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Cross entropy of the first and of the second codebook, each over its own ids only, as in sampling."""
    n_slots = batch["slots"].shape[1]
    x = model.transformer.wte(torch.cat([batch["slots"], batch["coarse"]], 1))
    hidden, _ = causal_trunk(model, embed_positions(model, x, batch["positions"]))
    hidden, targets = hidden[:, n_slots:], batch["targets"]
    found = []
    for k in (0, 1):
        first = FIRST + k * CODEBOOK_SIZE
        here = (targets >= first) & (targets < first + CODEBOOK_SIZE)
        logits = F.linear(hidden[here], model.lm_head.weight[first : first + CODEBOOK_SIZE]).float()
        found.append(F.cross_entropy(logits, targets[here] - first))
    return found[0], found[1]


def initialize_positions(model: GPT) -> None:
    """Give a unit's slot and its coarse tokens similar embeddings (sinusoids), so that attention can match them."""
    wpe = model.transformer.wpe.weight
    n = wpe.shape[1] // 2
    with torch.no_grad():
        place = torch.cat([torch.arange(N_SLOTS), torch.arange(len(wpe) - N_SLOTS) / RATIO]).to(wpe)
        pace = torch.exp(-np.log(300.0) * torch.arange(n // 2, device=wpe.device) / (n // 2)) * 1.5
        angle = place[:, None] * pace
        wpe[:, :n] = 0.1 * torch.cat([angle.sin(), angle.cos()], 1)
        wpe[N_SLOTS:, -1] += 0.1 * (1 + torch.arange(len(wpe) - N_SLOTS, device=wpe.device) % 2)


def draw_short(speech: Speech, i: int, rng: np.random.Generator) -> Example:
    """Utterance i from its start, or a stretch of that length from the middle of several."""
    units, codes = speech.join([i])
    if rng.random() >= P_MIDDLE:
        return stretch_from_start(units, codes)
    n_units = min(len(units), 200)
    return stretch_from_middle(*speech.draw(rng, 3), n_units, rng)


def draw_full(speech: Speech, rng: np.random.Generator) -> Example:
    """A window of generation of one utterance or several, with or without a voice's history."""
    past = speech.draw(rng, int(rng.integers(1, 5))) if rng.random() < P_HISTORY else None
    units, codes = speech.draw(rng, int(rng.choice([1, 1, 2, 4, 6])))
    n_windows = -(-codes.size // WINDOW)
    return window_of(past, units, codes, int(rng.integers(n_windows)))


def run(work: Work, plan: Plan = SHORT) -> dict[str, float]:
    full = plan is FULL
    torch.manual_seed(plan.seed)
    model = GPT(COARSE).to(work.device)
    initialize(model, COARSE.n_layer)
    initialize_positions(model)
    if full:
        load_trained(work, SHORT.name, model)
    speech, held_out = Speech(work, "train"), Speech(work, "held_out")
    pick = batches(speech.data.lengths("units"), BUDGET, plan.seed)

    def measure(examples: list[Example], n_pads: int) -> tuple[Tensor, Tensor]:
        n_slots = N_SLOTS if full else min(N_SLOTS, max(len(units) for units, _, _ in examples) + n_pads)
        batch = to_device(lay_out(examples, n_slots), work.device)
        with autocast(work.device):
            return losses(model, batch)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([plan.seed, step])
        if full:
            examples = [draw_full(speech, rng) for _ in range(6)]
        else:
            examples = [draw_short(speech, int(i), rng) for i in pick(step)]
        first, second = measure(examples, int(rng.integers(1, 5)))
        return (first + second) / 2, {"ce1": first.item(), "ce2": second.item()}

    def test() -> dict[str, float]:
        found = []
        for at in range(0, 200, 10):
            examples = [stretch_from_start(*held_out.join([i])) for i in range(at, at + 10)]
            found.append([value.item() for value in measure(examples, 2)])
        first, second = np.mean(found, 0)
        return {"ce1": float(first), "ce2": float(second)}

    training = Run(work, plan, model, make_optimizers(model, plan.rate, work.device))
    return training.train(loss, test)


run_full = partial(run, plan=FULL)
