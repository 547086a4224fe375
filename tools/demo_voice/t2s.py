"""Stages `t2s` and `t2s_full`: text to semantic units, first with few text slots, then in the layout of generation."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.models.gpt import GPT

from .dataset import NO_GUIDE, Utterances
from .generate import phone_errors, sample_units
from .layout import LAYOUT, T2S, TOKEN_IDS
from .nets import causal_trunk, embed_positions, guide_loss, to_device
from .train import Plan, Run, batches, initialize, load_trained, make_optimizers
from .work import Work

# The short layout leaves out text slots that hold only padding: the same positions, a third of the work.
SHORT = Plan("t2s", steps=6000, rate=2e-3)
FULL = Plan("t2s_full", steps=4500, rate=6e-4, fall=0.8)
BUDGET = 24 * 110  # semantic units in a batch
GUIDED_LAYER = 1
GUIDE_WEIGHT = 0.3
P_HISTORY = 0.4  # share of items that speak on from another utterance
P_JOINED = 0.12  # share of batches whose items are two to four utterances in a row
SEMANTIC = LAYOUT.semantic
N_SLOTS = SEMANTIC.n_slots
_FULL_STOP = TOKEN_IDS["."]
_ENDS = {TOKEN_IDS[mark] for mark in ".?!"}

Item = tuple[np.ndarray, np.ndarray, np.ndarray]  # text ids, units, and the text position each unit speaks


def join(data: Utterances, items: list[int]) -> Item:
    """Text ids, units and guide of utterances in a row; what lacks a closing mark before the next gets a full stop."""
    text, units, guide, n_text = [], [], [], 0
    for number, i in enumerate(items):
        ids = data.get("text", i).astype(np.int64)
        positions = data.get("guide", i)
        if number + 1 < len(items) and ids[-1] not in _ENDS:
            ids = np.append(ids, _FULL_STOP)
        guide.append(np.where(positions == NO_GUIDE, NO_GUIDE, positions + n_text))
        text.append(ids)
        units.append(data.get("units", i).astype(np.int64))
        n_text += len(ids)
    return np.concatenate(text), np.concatenate(units), np.concatenate(guide)


def draw_items(data: Utterances, picked: np.ndarray, rng: np.random.Generator) -> list[Item]:
    """The picked utterances, now and then by twos to fours in a row, as far as slots and positions allow.

    All of a batch alike: one long item among short ones would be mostly padding.
    """
    n = int(rng.integers(2, 5)) if rng.random() < P_JOINED else 1
    picked = rng.permutation(picked)
    groups = [[int(i) for i in picked[at : at + n]] for at in range(0, len(picked), n)]
    items = []
    for group in groups:
        while len(group) > 1 and (
            sum(len(data.get("text", i)) + 1 for i in group) > N_SLOTS
            or sum(len(data.get("units", i)) for i in group) >= SEMANTIC.max_steps
        ):
            group.pop()
        items.append(join(data, group))
    return items


def draw_history(data: Utterances, rng: np.random.Generator) -> np.ndarray:
    """What a voice said before: units of one to four utterances, now and then cut short."""
    past = np.concatenate([data.get("units", int(j)) for j in rng.integers(len(data), size=rng.integers(1, 5))])
    if rng.random() < 0.2:
        past = past[: rng.integers(len(past) // 2, len(past)) + 1]
    return past


def lay_out(items: list[Item], histories: list[np.ndarray | None], n_slots: int) -> dict[str, Tensor]:
    """Pad items to one batch in Bark's layout: text and history share the slots, then the infer token, then units.

    Returns `text` and `history` (batch, slots), `units` and `targets` (batch, steps), `guide` (batch, steps) and
    `positions` (slots + steps,).
    """
    n_steps = max(len(units) for _, units, _ in items) + 1
    slots, steps = (len(items), n_slots), (len(items), n_steps)
    text = np.full(slots, SEMANTIC.text_pad_token)
    history = np.full(slots, SEMANTIC.pad_token)
    units = np.full(steps, SEMANTIC.pad_token)
    targets = np.full(steps, -100)
    guide = np.full(steps, NO_GUIDE, np.float32)
    units[:, 0] = SEMANTIC.infer_token
    for row, (ids, said, positions) in enumerate(items):
        text[row, : len(ids)] = ids + SEMANTIC.text_offset
        units[row, 1 : len(said) + 1] = said
        targets[row, : len(said)] = said
        targets[row, len(said)] = SEMANTIC.pad_token
        guide[row, : len(said)] = positions
        past = histories[row]
        if past is not None:
            history[row, : len(past[-n_slots:])] = past[-n_slots:]
    places = np.concatenate([np.arange(n_slots), N_SLOTS + np.arange(n_steps)])
    arrays = {"text": text, "history": history, "units": units, "targets": targets, "guide": guide, "positions": places}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def slots_needed(items: list[Item], n_pads: int, full: bool) -> int:
    """Text slots of a batch: all of them, or as many as its longest text and a few pads take."""
    return N_SLOTS if full else min(N_SLOTS, max(len(text) for text, _, _ in items) + n_pads)


def forward(model: GPT, batch: dict[str, Tensor], guided: bool) -> tuple[Tensor, Tensor]:
    """Logits of every step, and the guide's loss (0 unless `guided`)."""
    first, wte = batch["text"].shape[1], model.transformer.wte
    x = torch.cat([wte(batch["text"]) + wte(batch["history"]), wte(batch["units"])], 1)
    x = embed_positions(model, x, batch["positions"])
    hidden, watched = causal_trunk(model, x, GUIDED_LAYER if guided else None)
    guide = guide_loss(*watched, batch["guide"], first) if watched else hidden.new_zeros(())
    return model.lm_head(hidden[:, first:]).float()[..., : SEMANTIC.pad_token + 1], guide


def test_loss(model: GPT, data: Utterances, device: str, full: bool) -> dict[str, float]:
    """Mean cross entropy and share of right units on the first 200 held-out sentences, without history."""
    total = right = count = 0.0
    for at in range(0, 200, 25):
        items = [join(data, [i]) for i in range(at, at + 25)]
        batch = to_device(lay_out(items, [None] * len(items), slots_needed(items, 3, full)), device)
        logits, _ = forward(model, batch, False)
        known = batch["targets"] >= 0
        total += F.cross_entropy(logits[known], batch["targets"][known], reduction="sum").item()
        right += (logits.argmax(-1) == batch["targets"])[known].sum().item()
        count += known.sum().item()
    return {"ce": total / count, "right": right / count}


def test_speech(model: GPT, data: Utterances, phones: list[list[str]], device: str, full: bool) -> dict[str, float]:
    """Phone error rate at temperature 0.7, share of clips that end, and length over the true one's, on 64 sentences."""
    picked = [int(i) for i in np.linspace(0, len(data) - 1, 64)]
    items = [join(data, [i]) for i in picked]
    batch = to_device(lay_out(items, [None] * len(items), slots_needed(items, 3, full)), device)
    generator = torch.Generator(device).manual_seed(0)
    said = sample_units(model, batch, SEMANTIC.pad_token, 400, 0.7, generator)
    return {
        "per": phone_errors([units for units, _ in said], [phones[i] for i in picked]),
        "ended": sum(ended for _, ended in said) / len(said),
        "length": sum(len(units) for units, _ in said) / sum(len(units) for _, units, _ in items),
    }


def run(work: Work, plan: Plan = SHORT) -> dict[str, float]:
    full = plan is FULL
    torch.manual_seed(plan.seed)
    model = GPT(T2S).to(work.device)
    initialize(model, T2S.n_layer)
    if full:
        load_trained(work, SHORT.name, model)
    data = Utterances(work.folder / "data/train", "text", "units", "guide")
    held_out = Utterances(work.folder / "data/held_out", "text", "units", "guide")
    phones = [item["phones"] for item in work.read_json("data/held_out.json")]
    pick = batches(data.lengths("units"), BUDGET // 2 if full else BUDGET, plan.seed)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([plan.seed, step])
        items = draw_items(data, pick(step), rng)
        n_slots = slots_needed(items, int(rng.integers(1, 6)), full)
        pasts = [draw_history(data, rng) if rng.random() < P_HISTORY else None for _ in items]
        batch = to_device(lay_out(items, pasts, n_slots), work.device)
        with torch.autocast(work.device, dtype=torch.bfloat16):
            logits, guide = forward(model, batch, True)
        ce = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
        return ce + GUIDE_WEIGHT * guide, {"ce": ce.item(), "guide": guide.item(), "items": float(len(items))}

    training = Run(work, plan, model, make_optimizers(model, plan.rate, work.device))

    def test() -> dict[str, float]:
        heard = test_speech(model, held_out, phones, work.device, full)
        return test_loss(model, held_out, work.device, full) | heard

    return training.train(loss, test)


run_full = partial(run, plan=FULL)
