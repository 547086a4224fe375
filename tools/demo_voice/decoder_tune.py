"""Stage `decoder_tune`: the decoder's last run, on codes as the fine stage predicts them, with a critic listening."""

import numpy as np
import torch
from torch import Tensor, nn

from barkfast.models.encodec import Decoder

from .critic import Critic, critic_loss, maker_losses
from .decoder import HOP, N_BEFORE, N_FRAMES, P_BEGIN, Clips, SpectralLoss
from .layout import CODEC
from .rvq import decode
from .train import Plan, Run, load_trained
from .work import Work

PLAN = Plan("decoder_tune", steps=3000, rate=4e-4, fall=0.7, floor=0.1, test_every=500)
BATCH = 6
P_TRUE = 0.3  # share of batches with true codes
ALONE = 300  # steps before the critic's word counts: it has to learn to tell first
SPECTRA_WEIGHT, JUDGED_WEIGHT, FEATURES_WEIGHT = 3.0, 0.5, 2.0


class Pair(nn.Module):
    """Decoder and critic, so that one checkpoint holds both."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.critic = Decoder(CODEC), Critic()


def run(work: Work) -> dict[str, float]:
    torch.manual_seed(PLAN.seed)
    device = work.device
    books = torch.load(work.path("rvq.pt"))["books"].to(device)
    pair = Pair().to(device)
    load_trained(work, "decoder", pair.decoder)
    spectra = SpectralLoss().to(device)
    clips = {
        (split, kind): Clips(work, split, kind) for split in ("train", "held_out") for kind in ("codes", "predicted")
    }

    def make(some: Clips, rng: np.random.Generator, n: int, begin: bool = False) -> tuple[Tensor, Tensor]:
        """Made and true samples, without what lacks its past."""
        codes, audio = some.draw(rng, n, N_FRAMES, begin)
        with torch.autocast(device, dtype=torch.bfloat16):
            made = pair.decoder(decode(codes.to(device), books).transpose(1, 2))
        first = 0 if begin else N_BEFORE * HOP
        return made[:, 0, first:].float(), audio[:, first:].to(device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([PLAN.seed, step])
        kind = "codes" if rng.random() < P_TRUE else "predicted"
        made, true = make(clips["train", kind], rng, BATCH, begin=rng.random() < P_BEGIN)
        distance = spectra(made, true)
        with torch.autocast(device, dtype=torch.bfloat16):
            told = critic_loss(pair.critic(true), pair.critic(made.detach()))
            pair.critic.requires_grad_(False)
            judged, features = maker_losses(pair.critic(true), pair.critic(made))
            pair.critic.requires_grad_(True)
        weight = 0.0 if step < ALONE else 1.0
        ours = SPECTRA_WEIGHT * distance + weight * (JUDGED_WEIGHT * judged + FEATURES_WEIGHT * features)
        parts = {"spectra": distance, "told": told, "judged": judged, "features": features}
        return ours + told, {name: value.item() for name, value in parts.items()}

    def test() -> dict[str, float]:
        found = {}
        for kind in ("codes", "predicted"):
            made, true = make(clips["held_out", kind], np.random.default_rng(0), 32)
            found[kind] = spectra(made, true).item()
        return found

    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(part.parameters(), lr=PLAN.rate, betas=(0.8, 0.99), weight_decay=1e-4, fused=True)
        for part in (pair.decoder, pair.critic)
    ]
    # Each side has its own gradients, and is clipped by itself.
    return Run(work, PLAN, pair, optimizers, [pair.decoder, pair.critic]).train(loss, test)
