"""How far apart two engines are: their logits, the tokens these lead to, and what comes out of the loudspeaker."""

from collections.abc import Sequence

import numpy as np
import torch

from barkfast.errors import InputError

# The spectrogram that log_mel_distance compares: samples per window and from one window to the next, bands.
WINDOW, HOP, BANDS = 1024, 256, 80
# Whatever is this much quieter than the loudest band is silence, in dB.
SILENCE_DB = 80.0


def rms_ratio(expected: np.ndarray, actual: np.ndarray) -> float:
    """Root mean square of the error over that of what is expected; both of the same shape."""
    wanted, found = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    if wanted.shape != found.shape:
        raise InputError(f"an array of shape {found.shape} was compared with one of {wanted.shape}; expected the same")
    size = float(np.linalg.norm(wanted))
    error = float(np.linalg.norm(found - wanted))
    return error / size if size else float(error != 0)


def pooled_rms_ratio(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The same over several arrays, as if they were one."""
    return rms_ratio(*(np.concatenate([np.ravel(a) for a in arrays]) for arrays in (expected, actual)))


def kl(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """Divergence of what the actual logits would draw from what the expected ones would, at temperature 1.

    Args:
        expected, actual: the logits of each position, (n,) each; positions may differ in n.
    Returns the mean over positions, in nats: 0 where both draw alike.
    """
    divergences = []
    for pair in zip(expected, actual, strict=True):
        p, q = (torch.from_numpy(np.asarray(logits, np.float64)).log_softmax(0) for logits in pair)
        divergences.append(float(torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)))
    # A sum of rounded terms may end just below zero.
    return max(0.0, float(np.mean(divergences)))


def count_equal(expected: np.ndarray, actual: np.ndarray) -> int:
    """How many tokens agree in their places; one that only one side has agrees with nothing."""
    shared = min(len(expected), len(actual))
    return int((np.asarray(expected)[:shared] == np.asarray(actual)[:shared]).sum())


def log_mel_distance(expected: np.ndarray, actual: np.ndarray, rate: int) -> float:
    """How different two sounds are: the root mean square difference of their log-mel spectrograms, in dB.

    About 0.1 dB cannot be heard; 10 dB are different sounds. What is SILENCE_DB below the loudest band of what is
    expected counts as silence. The shorter sound is followed by silence.

    Args:
        expected, actual: (samples,) float.
        rate: samples per second.
    """
    length = max(len(expected), len(actual), WINDOW)
    wanted, found = (_mel_power(audio, rate, length) for audio in (expected, actual))
    floor = max(float(wanted.max()), 1e-12) * 10 ** (-SILENCE_DB / 10)
    decibels = [10 * torch.log10(power.clamp(min=floor)) for power in (wanted, found)]
    return float((decibels[1] - decibels[0]).square().mean().sqrt())


def _mel_power(audio: np.ndarray, rate: int, length: int) -> torch.Tensor:
    """(bands, windows) of power, of the sound made `length` samples long by silence."""
    samples = torch.zeros(length, dtype=torch.float64)
    samples[: len(audio)] = torch.from_numpy(np.asarray(audio, np.float64))
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    spectrum = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True)
    return mel_filters(rate) @ spectrum.abs().square()


def mel_filters(rate: int) -> torch.Tensor:
    """(bands, WINDOW / 2 + 1) float64: triangles, evenly wide on the mel scale from 0 Hz to half the rate."""
    # Mel is about linear below 1 kHz and logarithmic above (O'Shaughnessy 1987).
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, WINDOW // 2 + 1)
    low, centre, high = (edges[i : BANDS + i, None] for i in range(3))
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return torch.from_numpy(np.maximum(0, np.minimum(rising, falling)))
