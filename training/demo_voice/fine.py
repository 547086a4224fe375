"""Stages `fine` and `fine_full`: from two codebooks to eight, each from those before it, a whole window at once."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.models.fine import FineGPT

from .dataset import Utterances
from .layout import CODEBOOK_SIZE, FINE, LAYOUT, N_CODEBOOKS
from .nets import autocast
from .train import Plan, Run, initialize, load_trained, make_optimizers
from .work import Work

SHORT = Plan("fine", steps=10_000, rate=2e-3, test_every=1000)
FULL = Plan("fine_full", steps=6000, rate=2e-3, fall=0.7, test_every=500)
N_GIVEN = LAYOUT.coarse.n_codebooks
WINDOW, MAX_HISTORY = LAYOUT.fine.window, LAYOUT.fine.max_history
PAD = CODEBOOK_SIZE  # the id of a code that is not known yet, and of every code after the clip's end
SHORT_FRAMES, SHORT_BATCH, FULL_BATCH = 256, 10, 3
P_HISTORY = 0.5


def hide(codes: np.ndarray, codebook: int, n_history: int, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The network's input when it fills `codebook`, and its targets.

    Args:
        codes: (window, codebooks) the true codes; those from `n_frames` on are not used.
        n_history: number of first frames whose codes are all known.
        n_frames: number of frames before the padding.
    """
    seen = codes.copy()
    seen[n_history:, codebook:] = PAD
    seen[n_frames:] = PAD
    targets = np.full(len(codes), -100)
    targets[n_history:n_frames] = codes[n_history:n_frames, codebook]
    return seen, targets


class Frames:
    """Random stretches of codes."""

    def __init__(self, work: Work, split: str) -> None:
        self.data = Utterances(work.folder / f"data/{split}", "codes")
        self.codes = self.data.arrays["codes"]

    def stretch(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, codebooks) from anywhere."""
        start = int(rng.integers(len(self.codes) - n))
        return self.codes[start : start + n].astype(np.int64)

    def clip(self, rng: np.random.Generator, most: int) -> np.ndarray:
        """Joined utterances, cut to at most `most` frames."""
        items = [self.data.get("codes", int(i)) for i in rng.integers(len(self.data), size=rng.integers(1, 6))]
        return np.concatenate(items)[:most].astype(np.int64)


def draw_short(frames: Frames, rng: np.random.Generator, codebook: int) -> tuple[np.ndarray, np.ndarray]:
    """A short stretch; sometimes its end is padding, sometimes its beginning is known."""
    codes = frames.stretch(rng, SHORT_FRAMES)
    n_history = int(rng.integers(0, 96)) if rng.random() < 0.3 else 0
    n_frames = int(rng.integers(160, SHORT_FRAMES)) if rng.random() < 0.3 else SHORT_FRAMES
    return hide(codes, codebook, n_history, n_frames)


def draw_full(frames: Frames, rng: np.random.Generator, codebook: int) -> tuple[np.ndarray, np.ndarray]:
    """A window as in generation: with or without a voice's history at the start, padding at the end."""
    past = frames.clip(rng, 4 * MAX_HISTORY)[-MAX_HISTORY:] if rng.random() < P_HISTORY else np.zeros((0, N_CODEBOOKS))
    now = frames.clip(rng, WINDOW - len(past))
    codes = np.full((WINDOW, N_CODEBOOKS), PAD)
    codes[: len(past)] = past
    codes[len(past) : len(past) + len(now)] = now
    return hide(codes, codebook, len(past), len(past) + len(now))


def initialize_positions(model: FineGPT) -> None:
    """Start with sinusoids of many wavelengths, so that near frames have similar embeddings."""
    wpe = model.transformer.wpe.weight
    n = wpe.shape[1] // 2
    with torch.no_grad():
        pace = torch.exp(-np.log(300.0) * torch.arange(n // 2, device=wpe.device) / (n // 2))
        angle = torch.arange(len(wpe), device=wpe.device)[:, None] * pace
        wpe[:, :n] = 0.1 * torch.cat([angle.sin(), angle.cos()], 1)


def initialize_tables(model: FineGPT, books: Tensor, generator: torch.Generator) -> None:
    """Add to each table its codebook's centres, all in the same random projection."""
    projection = torch.randn(books.shape[-1], FINE.n_embd, generator=generator) / books.shape[-1] ** 0.5
    with torch.no_grad():
        for k, table in enumerate(model.transformer.wtes):
            start = books[k] @ projection
            table.weight[:CODEBOOK_SIZE] += (0.04 * start / start.std()).to(table.weight.device)


def run(work: Work, plan: Plan = SHORT) -> dict[str, float]:
    full = plan is FULL
    torch.manual_seed(plan.seed)
    model = FineGPT(FINE).to(work.device)
    initialize(model, FINE.n_layer)
    initialize_positions(model)
    initialize_tables(model, torch.load(work.path("rvq.pt"))["books"], torch.Generator().manual_seed(plan.seed))
    if full:
        load_trained(work, SHORT.name, model)
    train, held_out = Frames(work, "train"), Frames(work, "held_out")
    draw, n = (draw_full, FULL_BATCH) if full else (draw_short, SHORT_BATCH)

    def measure(frames: Frames, rng: np.random.Generator, codebook: int, n: int) -> Tensor:
        seen, targets = (np.stack(rows) for rows in zip(*[draw(frames, rng, codebook) for _ in range(n)], strict=True))
        known = torch.from_numpy(targets).to(work.device)
        with autocast(work.device):
            logits = model(torch.from_numpy(seen).to(work.device), codebook)
        return F.cross_entropy(logits[..., :CODEBOOK_SIZE][known >= 0].float(), known[known >= 0])

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([plan.seed, step])
        codebook = int(rng.integers(N_GIVEN, N_CODEBOOKS))
        value = measure(train, rng, codebook, n)
        return value, {f"ce{codebook + 1}": value.item()}

    def test() -> dict[str, float]:
        rng = np.random.default_rng(0)
        return {f"ce{k + 1}": measure(held_out, rng, k, 12).item() for k in range(N_GIVEN, N_CODEBOOKS)}

    training = Run(work, plan, model, make_optimizers(model, plan.rate, work.device))
    return training.train(loss, test)


run_full = partial(run, plan=FULL)
