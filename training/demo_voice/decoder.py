"""Stages `decoder` and `decoder_tune`: codes to sound, by the engine's own decoder, with a loss on several spectra.

The second stage also trains on codes that the fine stage predicts, because generation decodes only such codes.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from barkfast.models.encodec import Decoder

from .dataset import Utterances
from .features import HOP
from .layout import CODEC, N_CODEBOOKS
from .nets import autocast
from .rvq import decode
from .train import Plan, Run, load_trained
from .work import Work

FIRST = Plan("decoder", steps=10_000, rate=1.5e-3, fall=0.6, log_every=100, test_every=1000)
TUNE = Plan("decoder_tune", steps=5000, rate=8e-4, fall=0.8, log_every=100, test_every=1000)
BATCH = 8
N_FRAMES = 60
N_BEFORE = 8  # frames at the start of a clip without their past: decoded, but not part of the loss
P_BEGIN = 0.25  # share of batches in which every clip begins with an utterance, and all frames count
MIN_CODEBOOKS = 3  # the last codebooks are left out at random, because the fine stage predicts them roughly
P_TRUE = 0.3  # share of batches with true codes in the stage decoder_tune
WINDOWS = (128, 256, 512, 1024, 2048)
FLOOR = 1e-2  # of a magnitude: the codes hold nothing quieter


class SpectralLoss(nn.Module):
    """Distance of spectra at five window lengths: of log magnitudes plus of magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        for n in WINDOWS:
            self.register_buffer(f"window_{n}", torch.hann_window(n), persistent=False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """(batch, samples) both -> scalar."""
        total = made.new_zeros(())
        for n in WINDOWS:
            window = self.get_buffer(f"window_{n}")
            a, b = (torch.stft(x, n, n // 4, window=window, return_complex=True).abs() for x in (made, true))
            logs = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean()
            total = total + logs + 0.5 * (a - b).norm() / (b.norm() + 1e-3)
        return total / len(WINDOWS)


class Clips:
    """Random stretches of audio and their codes: the true codes, or those that the fine stage predicts."""

    def __init__(self, work: Work, split: str, kind: str = "codes") -> None:
        data = Utterances(work.folder / f"data/{split}", "codes", "audio")
        self.audio = data.arrays["audio"]
        codes = data.arrays["codes"] if kind == "codes" else np.load(work.folder / f"data/{split}/{kind}.npy", "r")
        self.n_frames = min(len(codes), len(self.audio) // HOP)
        self.codes = codes[: self.n_frames]
        firsts = data.starts["codes"]
        self.firsts = firsts[firsts < self.n_frames - 500]

    def draw(self, rng: np.random.Generator, n: int, n_frames: int, begin: bool = False) -> tuple[Tensor, Tensor]:
        """(n, frames, codebooks) codes and (n, frames * HOP) samples, from anywhere or from utterance starts."""
        starts = rng.choice(self.firsts, n) if begin else rng.integers(self.n_frames - n_frames, size=n)
        codes = np.stack([self.codes[s : s + n_frames] for s in starts]).astype(np.int64)
        audio = np.stack([self.audio[s * HOP : (s + n_frames) * HOP] for s in starts])
        return torch.from_numpy(codes), torch.from_numpy(audio.astype(np.float32) / 32767)


def run(work: Work, plan: Plan = FIRST) -> dict[str, float]:
    torch.manual_seed(plan.seed)
    device = work.device
    books = torch.load(work.path("rvq.pt"))["books"].to(device)
    decoder, spectra = Decoder(CODEC).to(device), SpectralLoss().to(device)
    kinds = ("codes",)
    if plan is TUNE:
        load_trained(work, FIRST.name, decoder)
        kinds = ("codes", "predicted")
    train, held_out = ({kind: Clips(work, split, kind) for kind in kinds} for split in ("train", "held_out"))

    def distance(clips: Clips, rng: np.random.Generator, n_codebooks: int, n: int, begin: bool = False) -> Tensor:
        codes, audio = clips.draw(rng, n, N_FRAMES, begin)
        latent = decode(codes[..., :n_codebooks].to(device), books).transpose(1, 2)
        with autocast(device):
            made = decoder(latent)
        first = 0 if begin else N_BEFORE * HOP
        return spectra(made[:, 0, first:].float(), audio[:, first:].to(device))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([plan.seed, step])
        predicted = plan is TUNE and rng.random() >= P_TRUE
        n_codebooks = N_CODEBOOKS if predicted else int(rng.integers(MIN_CODEBOOKS, N_CODEBOOKS + 1))
        clips = train["predicted" if predicted else "codes"]
        value = distance(clips, rng, n_codebooks, BATCH, begin=rng.random() < P_BEGIN)
        return value, {"loss": value.item()}

    def test() -> dict[str, float]:
        found = {f"{n}_codes": distance(held_out["codes"], np.random.default_rng(0), n, 32).item() for n in (2, 4, 8)}
        if plan is TUNE:
            found["predicted"] = distance(held_out["predicted"], np.random.default_rng(0), N_CODEBOOKS, 32).item()
        return found

    optimizer = torch.optim.AdamW(decoder.parameters(), lr=plan.rate, betas=(0.8, 0.99), weight_decay=1e-4, fused=True)
    return Run(work, plan, decoder, [optimizer]).train(loss, test)


run_tune = partial(run, plan=TUNE)
