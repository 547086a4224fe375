"""Stage `predict`: the fine stage's codes from the true first two codebooks, to train the decoder on.

In generation the decoder never gets true codes, so its last run trains on predicted ones.
"""

import numpy as np
import torch

from barkfast.models.fine import FineGPT

from .dataset import Utterances
from .export import last_run
from .features import HOP
from .fine import FULL, N_GIVEN, PAD, SHORT, WINDOW
from .layout import CODEBOOK_SIZE, FINE, N_CODEBOOKS
from .nets import autocast
from .train import load_trained
from .work import Work, replacing

SEED = 2023
TEMPERATURE = 0.5  # the fine stage's own
BATCH = 4
N_FRAMES = 600_000  # two hours


@torch.no_grad()
def fill(model: FineGPT, coarse: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(batch, frames, given) codes -> (batch, frames, codebooks), the rest sampled one codebook after the other."""
    batch, n_frames, _ = coarse.shape
    codes = coarse.new_full((batch, n_frames, N_CODEBOOKS), PAD)
    codes[..., :N_GIVEN] = coarse
    for k in range(N_GIVEN, N_CODEBOOKS):
        shares = torch.softmax(model(codes, k)[..., :CODEBOOK_SIZE].float() / TEMPERATURE, -1)
        codes[..., k] = torch.multinomial(shares.flatten(0, 1), 1, generator=generator).view(batch, n_frames)
    return codes


def run(work: Work) -> dict[str, int]:
    model = FineGPT(FINE).to(work.device).eval()
    load_trained(work, last_run(work, FULL.name, SHORT.name), model)
    generator = torch.Generator(work.device).manual_seed(SEED)
    n_frames = 0
    for split in ("held_out", "train"):
        data = Utterances(work.folder / f"data/{split}", "codes", "audio")
        n = min(N_FRAMES, int(data.starts["audio"][-1]) // HOP)
        true = np.asarray(data.arrays["codes"][:n])
        padded = np.full((-(-n // (WINDOW * BATCH)) * WINDOW * BATCH, N_GIVEN), PAD, np.int64)
        padded[:n] = true[:, :N_GIVEN]
        blocks = torch.from_numpy(padded).view(-1, BATCH, WINDOW, N_GIVEN).to(work.device)
        with autocast(work.device):
            filled = torch.cat([fill(model, block, generator).flatten(0, 1).cpu() for block in blocks])
        with replacing(work.path(f"data/{split}/predicted.npy")) as partial, open(partial, "wb") as file:
            np.save(file, filled[:n].to(torch.int16).numpy())
        n_frames += n
    return {"frames": n_frames}
