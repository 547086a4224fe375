"""Features of a waveform: log-mel frames for the codec, and the pitch for the semantic units."""

import math

import numpy as np
import torch
from scipy.signal import resample_poly

SAMPLE_RATE = 24_000
HOP = 320  # 75 frames a second
N_FFT = 1024
N_MELS = 80
UNIT_RATE = 49.9

PITCH_RATE = 8000  # sample rate for the pitch: harmonics above 4 kHz add nothing
PITCH_WINDOW = 400  # 50 ms, three periods of the lowest pitch
PITCH_LOW, PITCH_HIGH = 90.0, 400.0  # Hz


def mel_filters() -> torch.Tensor:
    """(N_MELS, N_FFT // 2 + 1) triangles of unit sum, 40 Hz to 12 kHz, none narrower than a bin of the transform."""
    width = SAMPLE_RATE / N_FFT
    mels = np.linspace(*(2595 * math.log10(1 + hz / 700) for hz in (40, SAMPLE_RATE / 2)), N_MELS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(N_FFT // 2 + 1) * width
    left, centre, right = (edges[i : i + N_MELS, None] for i in range(3))
    rise = 1 - (centre - bins) / np.maximum(width, centre - left)
    fall = 1 - (bins - centre) / np.maximum(width, right - centre)
    filters = np.clip(np.minimum(rise, fall), 0, 1)
    return torch.from_numpy((filters / filters.sum(1, keepdims=True)).astype(np.float32))


_FILTERS = mel_filters()
_WINDOW = torch.hann_window(N_FFT)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """(samples,) float32 -> (samples // HOP, N_MELS); frame i is centred on its own samples i*HOP .. (i+1)*HOP."""
    n = len(samples) // HOP
    before = (N_FFT - HOP) // 2
    padded = torch.nn.functional.pad(torch.from_numpy(samples[: n * HOP]), (before, N_FFT - HOP - before))
    spectrum = torch.stft(padded, N_FFT, HOP, window=_WINDOW, center=False, return_complex=True).abs()
    return torch.log(torch.clamp(_FILTERS @ spectrum, min=1e-2)).T.numpy()


def measure_pitch(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Pitch in Hz around each of `times` (seconds), by autocorrelation; nan where no pitch is clear."""
    x = resample_poly(samples, 1, SAMPLE_RATE // PITCH_RATE)
    half = PITCH_WINDOW // 2
    starts = np.round(times * PITCH_RATE).astype(int)
    frames = np.pad(x, (half, 2 * half))[starts[:, None] + np.arange(PITCH_WINDOW)]
    frames = (frames - frames.mean(1, keepdims=True)) * np.hanning(PITCH_WINDOW)
    n_fft = 1024
    power = np.abs(np.fft.rfft(frames, n_fft)) ** 2
    correlation = np.fft.irfft(power)[:, : PITCH_WINDOW // 2]
    # Divide by the window's own autocorrelation; without this, longer lags would score lower than shorter ones.
    own = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(PITCH_WINDOW), n_fft)) ** 2)[: PITCH_WINDOW // 2]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-9) * (own[0] / own)
    low, high = int(PITCH_RATE / PITCH_HIGH), int(PITCH_RATE / PITCH_LOW)
    inside = correlation[:, low : high + 1]
    # The shortest lag that is nearly as good as the best: multiples of the period are as good as the period.
    lag = low + (inside >= 0.9 * inside.max(1, keepdims=True)).argmax(1)
    lag = _climb(correlation, lag, high)
    rows = np.arange(len(lag))
    before, here, after = (correlation[rows, lag + d] for d in (-1, 0, 1))
    curve = before - 2 * here + after
    shift = np.where(curve < 0, 0.5 * (before - after) / np.where(curve < 0, curve, 1), 0)
    loud = (frames**2).mean(1) > 1e-6
    return np.where((here > 0.5) & loud, PITCH_RATE / (lag + np.clip(shift, -1, 1)), np.nan)


def _climb(correlation: np.ndarray, lag: np.ndarray, high: int) -> np.ndarray:
    """Move each lag up to the next local maximum of the correlation."""
    rows = np.arange(len(lag))
    for _ in range(8):
        lag = np.where((correlation[rows, lag + 1] > correlation[rows, lag]) & (lag < high), lag + 1, lag)
    return lag
