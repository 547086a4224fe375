"""A mark in the sound that `detect` finds: PerTh's networks, with its weights.

The weights are in the wheel of `resemble-perth` (MIT). Its code is not used, see docs/watermark.md: the mark is
computed here, so that it can be added to a stream, at any sample rate. The encoder sees the magnitudes below 2 kHz of
frames of 64 ms, every 10 ms, and says by how much each one is raised or lowered; the decoder sees the same and says
whether they were.
"""

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from barkfast.audio import read_windows
from barkfast.checks import check_number
from barkfast.errors import InputError
from barkfast.weights.files import load_pickle

WEIGHTS = ("perth_net", "pretrained", "implicit", "perth_net_250000.pth.tar")
# The networks were trained on frames of 2048 samples every 320 at 32 kHz, and see the lowest 128 frequencies.
TRAINED_RATE, TRAINED_WINDOW, TRAINED_HOP, N_BINS = 32_000, 2048, 320, 128
# Magnitudes in dB become numbers from 0 (LEAST_DB) to 1 (HIGHEST_DB).
LEAST_DB, HIGHEST_DB = -180.0, 15.0
# Seven layers of convolutions, five of them over 7 frames: a frame's mark depends on 15 frames on each side.
N_LAYERS, CONTEXT = 7, 15
# Frames that are seen together. They do not depend on how the samples arrive, so neither do the results. A stream's
# first chunk, of 0.32 s, has four blocks.
BLOCK = 7
# The decoder judges windows of this many seconds, each beginning in the middle of the one before: it says how much of
# what it sees is marked, so a longer one would miss a short clip among other sound.
JUDGED_S = 1.0
# Frames whose magnitudes add up to less than this share of the loudest one's are silence.
SILENT = 0.05
LOWEST_RATE = 8000
# Sound whose frequencies below 1 kHz are this much weaker than those from 1 to 2 kHz is none that the decoder knows: it
# would call all of it marked.
THIN_DB = 15.0
# From here on sound counts as marked.
MARKED = 0.5


def require_watermark() -> Path:
    """The file with the networks' weights. Raises: InputError if `resemble-perth` is not installed."""
    spec = find_spec("perth")
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        if (path := Path(folder).joinpath(*WEIGHTS)).is_file():
            return path
    raise InputError("watermarks need resemble-perth, which is not installed; run: pip install 'barkfast[watermark]'")


@lru_cache(maxsize=1)
def _load(path: Path) -> dict[str, Tensor]:
    """The weights, by PerTh's names."""
    return load_pickle(path)["model"]


class Frames:
    """How sound of a sample rate is cut into frames. Raises: InputError for a rate that has too little to mark."""

    def __init__(self, sample_rate: int) -> None:
        rate = check_number("sample_rate", sample_rate, f"at least {LOWEST_RATE} samples per second", least=LOWEST_RATE)
        # Even, so that a frame has a middle.
        self.window_size = 2 * round(TRAINED_WINDOW / TRAINED_RATE * rate / 2)
        self.hop = round(TRAINED_HOP / TRAINED_RATE * rate)
        self.half = self.window_size // 2
        self.window = torch.hann_window(self.window_size)

    def transform(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) samples to the (frequencies, frames) spectrum of all whole frames, and to what the networks see of it.

        That of the same sound at 32 kHz, but for what is above the frequencies of this rate.
        """
        spectrum = torch.stft(
            samples, self.window_size, self.hop, window=self.window, center=False, return_complex=True
        )
        magnitude = spectrum.abs() * (TRAINED_WINDOW / self.window_size)
        decibels = 20 * torch.log10(magnitude.clamp(min=10 ** (LEAST_DB / 20)))
        return spectrum, (decibels - LEAST_DB) / (HIGHEST_DB - LEAST_DB)


def _convolve(weights: dict[str, Tensor], name: str, x: Tensor, before: list[Tensor] | None = None) -> Tensor:
    """The layers of one network.

    Args:
        x: (channels, frames).
        before: what each layer saw last, which is replaced: x continues it, and the result is CONTEXT frames behind.
            None where x is all there is.

    Returns: (channels, frames).
    """
    for layer in range(N_LAYERS):
        weight, bias = (weights[f"{name}.{layer}.conv.{kind}"] for kind in ("weight", "bias"))
        n_out, _, width = weight.shape
        if before is None:
            x = F.conv1d(x, weight, bias, padding=width // 2)
        else:
            x = torch.cat([before[layer], x], dim=1)
            before[layer] = x[:, x.shape[1] - (width - 1) :]
            # Of so few frames: a convolution would take most of its time to rearrange the weights.
            rows = x.unfold(1, width, 1).transpose(0, 1).reshape(-1, weight[0].numel())
            x = F.linear(rows, weight.reshape(n_out, -1), bias).T
        if layer < N_LAYERS - 1:
            x = F.leaky_relu(x)
    return x


class Marker:
    """Marks samples as they come. What comes out is as long as what goes in, and about 0.25 s later.

    The mark is a sound of its own that is added, made of overlapping frames: it has no seams, and does not depend on
    how the samples are split into chunks.

    Args:
        sample_rate: samples per second.

    Raises:
        InputError: `resemble-perth` is not installed, or the rate is too low.
    """

    def __init__(self, sample_rate: int) -> None:
        self._weights = _load(require_watermark())
        self._frames = frames = Frames(sample_rate)
        shapes = [self._weights[f"encoder.layers.{layer}.conv.weight"].shape for layer in range(N_LAYERS)]
        self._before = [torch.zeros(shape[1], shape[2] - 1) for shape in shapes]
        # Spectra of the frames that the encoder has seen and not answered yet.
        self._spectra = torch.zeros(N_BINS, CONTEXT, dtype=torch.complex64)
        self._n_in = self._n_out = self._n_seen = 0
        # Samples from `start` on: what comes out next, or what the next frame begins with; silence before the sound.
        self._start = -frames.half
        self._samples = torch.zeros(frames.half)
        # The mark from sample n_out on, as far as frames reach, and the sum of their squared windows.
        self._mark, self._weight = torch.zeros(0), torch.zeros(0)

    @torch.inference_mode()
    def add(self, samples: np.ndarray) -> np.ndarray:
        """Take (n,) samples; return those that are marked by now, (m,) float32, maybe none."""
        self._samples = torch.cat([self._samples, torch.from_numpy(np.array(samples, dtype=np.float32))])
        self._n_in += len(samples)
        while self._reach() <= self._n_in:
            self._mark_block()
        # A frame to come begins half a window before its middle.
        return self._take((self._n_seen - CONTEXT) * self._frames.hop - self._frames.half)

    @torch.inference_mode()
    def finish(self) -> np.ndarray:
        """The samples that are left, (m,) float32. Nothing can be added afterwards."""
        while (self._n_seen - CONTEXT) * self._frames.hop <= self._n_in:
            missing = max(0, self._reach() - self._start - len(self._samples))
            self._samples = F.pad(self._samples, (0, missing))
            self._mark_block()
        return self._take(self._n_in)

    def _reach(self) -> int:
        """The end of the samples that the next block of frames has."""
        return (self._n_seen + BLOCK - 1) * self._frames.hop + self._frames.half

    def _mark_block(self) -> None:
        """See a block of frames, and mark the one that is CONTEXT frames older."""
        frames, first = self._frames, self._n_seen - CONTEXT
        begin = self._n_seen * frames.hop - frames.half
        spectrum, levels = frames.transform(self._samples[begin - self._start : self._reach() - self._start])
        change = _convolve(self._weights, "encoder.layers", levels[:N_BINS], self._before)
        spectra = torch.cat([self._spectra, spectrum[:N_BINS]], dim=1)
        marks = spectra[:, :BLOCK] * (10 ** (change * (HIGHEST_DB - LEAST_DB) / 20) - 1)
        pieces = torch.fft.irfft(marks, n=frames.window_size, dim=0) * frames.window[:, None]
        end = (first + BLOCK - 1) * frames.hop + frames.half - self._n_out
        longer = max(0, end - len(self._mark))
        self._mark, self._weight = F.pad(self._mark, (0, longer)), F.pad(self._weight, (0, longer))
        squared = frames.window.square()
        for i in range(BLOCK):
            # A frame whose middle is before the sound or beyond its end has nothing to mark.
            if 0 <= (first + i) * frames.hop <= self._n_in:
                at = (first + i) * frames.hop - frames.half - self._n_out
                # Of the first frames half is before the sound.
                skip, at = max(0, -at), max(0, at)
                piece = pieces[skip:, i]
                self._mark[at : at + len(piece)] += piece
                self._weight[at : at + len(piece)] += squared[skip:]
        self._spectra = spectra[:, BLOCK:]
        self._n_seen += BLOCK

    def _take(self, end: int) -> np.ndarray:
        """The marked samples up to `end`."""
        n = max(0, end - self._n_out)
        begin = self._n_out - self._start
        mark = self._mark[:n] / self._weight[:n].clamp(min=1e-8)
        marked = self._samples[begin : begin + n] + mark
        self._mark, self._weight, self._n_out = self._mark[n:], self._weight[n:], self._n_out + n
        needed = min(self._n_out, self._n_seen * self._frames.hop - self._frames.half)
        self._samples, self._start = self._samples[needed - self._start :], needed
        return marked.numpy()


def mark(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mark (n,) samples; returns (n,) float32. Raises: InputError, as `Marker`."""
    marker = Marker(sample_rate)
    return np.concatenate([marker.add(samples), marker.finish()])


def detect(samples: np.ndarray, sample_rate: int) -> float:
    """How sure the network is that some of (n,) samples are marked, from 0 to 1.

    The sound is judged in windows of a second, with 0.5 s between; the surest counts.

    Raises:
        InputError: `resemble-perth` is not installed, or the rate is too low.
    """
    size = round(JUDGED_S * sample_rate)
    starts = range(0, max(1, len(samples) - size // 2), size // 2)
    return max(judge(samples[start : start + size], sample_rate) for start in starts)


def detect_file(path: str | os.PathLike[str]) -> float:
    """`detect` for a sound file, read window by window. Raises: InputError, also where it cannot be read."""
    require_watermark()
    return max((judge(samples, rate) for samples, rate in read_windows(path, JUDGED_S)), default=0.0)


@torch.inference_mode()
def judge(samples: np.ndarray, sample_rate: int) -> float:
    """The decoder's answer for one window, from 0 to 1; 0 for silence, and for sound without low frequencies."""
    weights, frames = _load(require_watermark()), Frames(sample_rate)
    sound = F.pad(torch.from_numpy(np.array(samples, dtype=np.float32)), (frames.half, frames.half))
    _, levels = frames.transform(sound)
    total = levels.sum(dim=0)
    loud = (total > SILENT * total.max()).float()[None, None]
    if not loud.any():
        return 0.0
    seen, n = levels[None, :N_BINS], levels.shape[1]
    low, high = (seen[0, :, loud[0, 0] > 0].mean(dim=1) * (HIGHEST_DB - LEAST_DB)).split(N_BINS // 2)
    if low.mean() < high.mean() - THIN_DB:
        return 0.0
    answers, attention = [], []
    for name, stretch in (("slow", 1.25), ("normal", 1.0), ("fast", 0.75)):
        size = max(1, int(n * stretch))
        scaled = F.interpolate(seen, size=size, mode="linear", align_corners=True) if stretch != 1 else seen
        keep = F.interpolate(loud, size=size, mode="nearest")[0, 0]
        out = _convolve(weights, f"decoder.{name}_layers", scaled[0])
        attend, answer = (out * keep).sum(dim=1) / keep.sum().clamp(min=1)
        answers.append(answer)
        attention.append(attend)
    sure = torch.stack(answers) @ torch.softmax(torch.stack(attention), dim=0)
    return float(sure.clamp(0, 1))
