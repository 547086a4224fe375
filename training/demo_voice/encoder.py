"""Stage `encoder`: sound to codes, so that the exported codec is complete; speaking does not need it.

EnCodec's encoder, regressed on the latents of the corpus' codes. It sees only the past, but the frames that it should
predict reach half a window into the future, so its codes are only approximate.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barkfast.models import encodec_encoder

from .decoder import Clips
from .layout import CODEC
from .nets import autocast
from .rvq import decode
from .train import Plan, Run
from .work import Work

PLAN = Plan("encoder", steps=4000, rate=2e-3, fall=0.7, log_every=100, test_every=1000)
BATCH, N_FRAMES = 8, 60


class StridedConv1d(nn.Module):
    """A convolution that sees only the past and keeps one of `stride` samples."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time) -> (batch, n_out, time / stride)."""
        return self.conv(F.pad(x, (self.conv.stride[0], 0), mode="reflect"))


class Encoder(encodec_encoder.Encoder):
    """EnCodec's layers, numbered as in transformers' EncodecModel, for whole frames."""

    down = StridedConv1d


def run(work: Work) -> dict[str, float]:
    torch.manual_seed(PLAN.seed)
    device = work.device
    books = torch.load(work.path("rvq.pt"))["books"].to(device)
    encoder = Encoder(CODEC).to(device)
    train, held_out = Clips(work, "train"), Clips(work, "held_out")

    def distance(clips: Clips, rng: np.random.Generator, n: int) -> Tensor:
        codes, audio = clips.draw(rng, n, N_FRAMES)
        with autocast(device):
            latent = encoder(audio[:, None].to(device))
        true = decode(codes.to(device), books).transpose(1, 2)
        return ((latent.float() - true)[..., 2:] ** 2).sum(1).mean()

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        value = distance(train, np.random.default_rng([PLAN.seed, step]), BATCH)
        return value, {"loss": value.item()}

    def test() -> dict[str, float]:
        return {"loss": distance(held_out, np.random.default_rng(0), 64).item()}

    optimizer = torch.optim.AdamW(encoder.parameters(), lr=PLAN.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    return Run(work, PLAN, encoder, [optimizer]).train(loss, test)
