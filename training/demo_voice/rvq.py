"""Stage `rvq`: the codec's codebooks, by k-means on log-mel frames, each on the residual of the ones before it."""

import numpy as np
import torch

from .dataset import parts
from .layout import CODEBOOK_SIZE, N_CODEBOOKS
from .work import Work

SEED = 2023
N_PARTS = 16  # about 600,000 frames; more do not change the result
N_FRAMES = 320_000
N_ITERATIONS = 16
_BLOCK = 65_536


def nearest(x: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(n, d) frames and (k, d) centres -> (n,) the nearest centre of each."""
    squares = (centres * centres).sum(1)[None]
    return torch.cat([torch.addmm(squares, block, centres.T, alpha=-2).argmin(1) for block in x.split(_BLOCK)])


def k_means(x: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """(n, d) -> (k, d) centres; a centre without any frame restarts at a random frame."""
    centres = x[torch.randperm(len(x), generator=generator)[:k]].clone()
    for _ in range(N_ITERATIONS):
        which = nearest(x, centres)
        counts = which.bincount(minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, which, x)
        empty = counts == 0
        centres = sums / counts.clamp(min=1)[:, None]
        n_empty = int(empty.sum())
        centres[empty] = x[torch.randperm(len(x), generator=generator)[:n_empty]]
    return centres


def fit(frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean and scale of (n, mels) log-mel frames, and (codebooks, size, mels) centres of the scaled frames."""
    generator = torch.Generator().manual_seed(SEED)
    mean, scale = frames.mean(0), frames.std()
    rest = (frames - mean) / scale
    books, left = [], [float((rest**2).sum(1).mean())]
    for _ in range(N_CODEBOOKS):
        books.append(k_means(rest, CODEBOOK_SIZE, generator))
        rest = rest - books[-1][nearest(rest, books[-1])]
        left.append(float((rest**2).sum(1).mean()))
        print(f"codebook {len(books)}: {left[-1]:.3f} of {left[0]:.1f} left", flush=True)
    return {"mean": mean, "scale": scale, "books": torch.stack(books), "left": torch.tensor(left)}


def encode(frames: torch.Tensor, rvq: dict[str, torch.Tensor]) -> torch.Tensor:
    """(n, mels) log-mel -> (n, codebooks) codes."""
    rest = (frames - rvq["mean"]) / rvq["scale"]
    codes = []
    for book in rvq["books"]:
        codes.append(nearest(rest, book))
        rest = rest - book[codes[-1]]
    return torch.stack(codes, 1)


def decode(codes: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """(..., n) codes of the first n codebooks -> (..., mels) latents."""
    return sum(books[k][codes[..., k]] for k in range(codes.shape[-1]))


def run(work: Work) -> dict[str, list[float]]:
    device = torch.device(work.device)
    mel = np.concatenate([np.load(arrays)["mel"] for _, arrays in parts(work, "train")[:N_PARTS]])
    picked = np.random.default_rng(SEED).permutation(len(mel))[:N_FRAMES]
    rvq = fit(torch.from_numpy(mel[np.sort(picked)]).float().to(device))
    torch.save({name: value.cpu() for name, value in rvq.items()}, work.path("rvq.pt"))
    return {"left": [round(float(value), 3) for value in rvq["left"]]}
