"""Stages `t2s` and `t2s_full`: text to semantic units, first with few text slots, then in the layout of generation."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.models.gpt import GPT

from .dataset import NO_GUIDE, Utterances
from .generate import phone_errors, sample_units
from .items import Item, draw_history, draw_items, draw_short_texts, join, read_item
from .layout import LAYOUT, T2S
from .nets import autocast, causal_trunk, embed_positions, guide_loss, to_device
from .sentences import make_texts
from .train import Plan, Run, batches, initialize, load_exported, load_trained, make_optimizers
from .units import read_phones, sentences_said
from .work import Work


@dataclass(frozen=True)
class TextPlan(Plan):
    """A plan with the composition of the batches, and the optimizer of the matrices."""

    p_short: float = 0.3  # share of batches whose items are texts of several short sentences
    p_full: float = 0.0  # share of batches that have all text slots
    budget: int = 24 * 110  # semantic units in a batch
    muon: bool = True
    keep: float = 0.0  # share of the initial weights in the exported weights


# The short layout leaves out text slots that hold only padding: the same positions, a third of the work.
SHORT = TextPlan("t2s", steps=6000, rate=2e-3)
FULL = TextPlan("t2s_full", steps=4500, rate=6e-4, fall=0.8, p_full=1.0, budget=12 * 110)
# Further training of an exported model, which knows both layouts already. It forgets a little of what this training
# does not repeat. Mixed with its initial weights, it speaks other sentences nearly as well as before.
TUNE = replace(FULL, steps=700, rate=4e-4, p_short=0.6, p_full=0.15, budget=8 * 110, muon=False, keep=0.2)
GUIDED_LAYER = 1
GUIDE_WEIGHT = 0.3
P_HISTORY = 0.4  # share of items that continue another utterance
SEMANTIC = LAYOUT.semantic
N_SLOTS = SEMANTIC.n_slots


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
    """Text slots of a batch: all of them, or as many as its longest text and `n_pads` pads need."""
    return N_SLOTS if full else min(N_SLOTS, max(len(text) for text, _, _ in items) + n_pads)


def forward(model: GPT, batch: dict[str, Tensor], guided: bool) -> tuple[Tensor, Tensor]:
    """Logits of every step, and the guide loss (0 unless `guided`)."""
    first, wte = batch["text"].shape[1], model.transformer.wte
    x = torch.cat([wte(batch["text"]) + wte(batch["history"]), wte(batch["units"])], 1)
    x = embed_positions(model, x, batch["positions"])
    hidden, watched = causal_trunk(model, x, GUIDED_LAYER if guided else None)
    guide = guide_loss(*watched, batch["guide"], first) if watched else hidden.new_zeros(())
    return model.lm_head(hidden[:, first:]).float()[..., : SEMANTIC.pad_token + 1], guide


def test_loss(model: GPT, data: Utterances, device: str, full: bool) -> dict[str, float]:
    """Mean cross entropy and share of correct units on the first 200 held-out sentences, without history."""
    total = right = count = 0.0
    for at in range(0, 200, 25):
        items = [read_item(data, i) for i in range(at, at + 25)]
        batch = to_device(lay_out(items, [None] * len(items), slots_needed(items, 3, full)), device)
        logits, _ = forward(model, batch, False)
        known = batch["targets"] >= 0
        total += F.cross_entropy(logits[known], batch["targets"][known], reduction="sum").item()
        right += (logits.argmax(-1) == batch["targets"])[known].sum().item()
        count += known.sum().item()
    return {"ce": total / count, "right": right / count}


def sample(model: GPT, items: list[Item], device: str, full: bool) -> list[tuple[np.ndarray, bool]]:
    """Units for each text at temperature 0.7, and whether each has ended."""
    batch = to_device(lay_out(items, [None] * len(items), slots_needed(items, 3, full)), device)
    return sample_units(model, batch, SEMANTIC.pad_token, 400, 0.7, torch.Generator(device).manual_seed(0))


def test_speech(model: GPT, data: Utterances, phones: list[list[str]], device: str, full: bool) -> dict[str, float]:
    """Phone error rate, share of clips that end, and length relative to the true clips, on 64 sentences."""
    picked = [int(i) for i in np.linspace(0, len(data) - 1, 64)]
    items = [read_item(data, i) for i in picked]
    said = sample(model, items, device, full)
    return {
        "per": phone_errors([units for units, _ in said], [phones[i] for i in picked]),
        "ended": sum(ended for _, ended in said) / len(said),
        "length": sum(len(units) for units, _ in said) / sum(len(units) for _, units, _ in items),
    }


def test_texts(model: GPT, data: Utterances, sentences: list[dict], device: str, full: bool) -> dict[str, float]:
    """Share of 30 texts of held-out short sentences in which all of the sentences were said."""
    texts = make_texts(sentences)[:30]
    ends = np.cumsum([len(text["phones"]) for text in texts])
    items = [
        join([read_item(data, i) for i in range(end - len(text["phones"]), end)])
        for text, end in zip(texts, ends, strict=True)
    ]
    said = sample(model, items, device, full)
    whole = [
        all(sentences_said(read_phones(units), text["phones"])) for (units, _), text in zip(said, texts, strict=True)
    ]
    return {"whole": sum(whole) / len(whole)}


def build(work: Work, plan: TextPlan) -> GPT:
    """The network that a run begins with: new, or with the weights of the short run or of an exported model."""
    torch.manual_seed(plan.seed)
    model = GPT(T2S).to(work.device)
    initialize(model, T2S.n_layer)
    if plan.name != FULL.name:
        return model
    return load_exported(work, "text", model) if work.start else load_trained(work, SHORT.name, model)


def finished(work: Work, name: str) -> GPT:
    """The network to export: the result of run `name`, mixed with the model that the run started from, if any."""
    model = load_trained(work, name, GPT(T2S))
    if name == FULL.name and work.start:
        began = load_exported(work, "text", GPT(T2S)).state_dict()
        mixed = {key: torch.lerp(tensor, began[key], TUNE.keep) for key, tensor in model.state_dict().items()}
        model.load_state_dict(mixed)
    return model


def run(work: Work, plan: TextPlan = SHORT) -> dict[str, float]:
    if plan is FULL and work.start:
        plan = TUNE
    model = build(work, plan)
    data, short, held_out, held_out_short = (
        Utterances(work.folder / f"data/{split}", "text", "units", "guide")
        for split in ("train", "short", "held_out", "held_out_short")
    )
    phones = [item["phones"] for item in work.read_json("data/held_out.json")]
    texts = work.read_json("data/held_out_short.json")
    pick = batches(data.lengths("units"), plan.budget, plan.seed)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([plan.seed, step])
        several, full = rng.random() < plan.p_short, rng.random() < plan.p_full
        items = draw_short_texts(short, data, plan.budget, rng) if several else draw_items(data, pick(step), rng)
        n_slots = slots_needed(items, int(rng.integers(1, 6)), full)
        before = short if several and rng.random() < 0.5 else data
        pasts = [draw_history(before, rng) if rng.random() < P_HISTORY else None for _ in items]
        batch = to_device(lay_out(items, pasts, n_slots), work.device)
        with autocast(work.device):
            logits, guide = forward(model, batch, True)
        ce = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
        parts = {"short_ce" if several else "ce": ce.item(), "guide": guide.item(), "items": float(len(items))}
        return ce + GUIDE_WEIGHT * guide, parts

    training = Run(work, plan, model, make_optimizers(model, plan.rate, work.device, plan.muon))

    def test() -> dict[str, float]:
        full = plan.p_full > 0
        heard = test_speech(model, held_out, phones, work.device, full)
        heard |= test_texts(model, held_out_short, texts, work.device, full)
        return test_loss(model, held_out, work.device, full) | heard

    return training.train(loss, test)


run_full = partial(run, plan=FULL)
