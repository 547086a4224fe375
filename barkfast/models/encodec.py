"""EnCodec's decoder and residual quantizer (24 kHz, causal), with weight norm folded into plain weights.

Written from the architecture published with the paper (Defossez et al. 2022, "High Fidelity Neural Audio
Compression") and its MIT-licensed source; module names follow transformers' EncodecModel.
"""

import math
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barkfast.config import CodecConfig


def exact_convolutions() -> AbstractContextManager[None]:
    """Within the block, cuDNN uses neither TF32 (float32 with 10 mantissa bits) nor nondeterministic algorithms."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


class CausalConv1d(nn.Module):
    """A convolution that sees only the past; the left edge is padded by reflection."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel_size, dilation=dilation)
        self.pad = (kernel_size - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time) -> (batch, n_out, time)."""
        if not self.pad:
            return self.conv(x)
        # Reflection needs more samples than it reflects, so a shorter input is first extended with zeros.
        missing = max(0, self.pad + 1 - x.shape[-1])
        padded = F.pad(F.pad(x, (0, missing)), (self.pad, 0), mode="reflect")
        return self.conv(padded[..., : padded.shape[-1] - missing])


class CausalConvTranspose1d(nn.Module):
    """An upsampling convolution, trimmed so that it lengthens its input exactly `stride` times."""

    def __init__(self, n_in: int, n_out: int, stride: int, trim_right_ratio: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(n_in, n_out, kernel_size=2 * stride, stride=stride)
        self.trim_right = math.ceil(stride * trim_right_ratio)
        self.trim_left = stride - self.trim_right

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time) -> (batch, n_out, time * stride)."""
        y = self.conv(x)
        return y[..., self.trim_left : y.shape[-1] - self.trim_right]


class SkipLSTM(nn.Module):
    """A stack of LSTM layers with their input added to their output."""

    def __init__(self, width: int, n_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, n_layers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, time) -> the same."""
        steps = x.permute(2, 0, 1)
        return (self.lstm(steps)[0] + steps).permute(1, 2, 0)


class ResidualBlock(nn.Module):
    """Two convolutions, added to a shortcut."""

    def __init__(self, config: CodecConfig, width: int, dilation: int) -> None:
        super().__init__()
        hidden = width // config.compress
        self.block = nn.ModuleList(
            [
                nn.ELU(),
                CausalConv1d(width, hidden, config.residual_kernel_size, dilation),
                nn.ELU(),
                CausalConv1d(hidden, width, 1),
            ]
        )
        self.shortcut = CausalConv1d(width, width, 1) if config.conv_shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, time) -> the same."""
        y = x
        for layer in self.block:
            y = layer(y)
        return self.shortcut(x) + y


class Decoder(nn.Module):
    """Latent frames to samples: a convolution, an LSTM, then one upsampling stage per ratio."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width = config.n_filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [
            CausalConv1d(config.dimension, width, config.kernel_size),
            SkipLSTM(width, config.n_lstm_layers),
        ]
        for ratio in config.ratios:
            layers += [nn.ELU(), CausalConvTranspose1d(width, width // 2, ratio, config.trim_right_ratio)]
            width //= 2
            layers += [ResidualBlock(config, width, config.dilation_base**j) for j in range(config.n_residual_layers)]
        layers += [nn.ELU(), CausalConv1d(width, 1, config.last_kernel_size)]
        self.layers = nn.ModuleList(layers)

    def forward(self, latent: Tensor) -> Tensor:
        """(batch, dimension, frames) -> (batch, 1, frames * hop_length)."""
        for layer in self.layers:
            latent = layer(latent)
        return latent


class Codebook(nn.Module):
    """One quantizer layer's table, under the name that checkpoints use."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.codebook = nn.Module()
        self.codebook.register_buffer("embed", torch.zeros(config.codebook_size, config.dimension))

    def forward(self, codes: Tensor) -> Tensor:
        """(batch, frames) -> (batch, dimension, frames)."""
        return F.embedding(codes, self.codebook.get_buffer("embed")).transpose(1, 2)


class Quantizer(nn.Module):
    """Residual vector quantizer: a frame is the sum of one entry per codebook."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Codebook(config) for _ in range(config.n_codebooks))

    def forward(self, codes: Tensor) -> Tensor:
        """(batch, up to n_codebooks, frames) -> (batch, dimension, frames)."""
        latent = self.layers[0](codes[:, 0])
        for k in range(1, codes.shape[1]):
            latent = latent + self.layers[k](codes[:, k])
        return latent


class EncodecDecoder(nn.Module):
    """Codes to waveform."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = Quantizer(config)
        self.decoder = Decoder(config)

    def forward(self, codes: Tensor) -> Tensor:
        """(batch, codebooks, frames) int -> (batch, frames * hop_length) samples, about -1..1 but not clipped."""
        return self.decoder(self.quantizer(codes))[:, 0]
