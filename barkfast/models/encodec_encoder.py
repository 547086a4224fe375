"""EnCodec's encoder (24 kHz, causal): samples to codes, for making voices; synthesis does not need it.

Source and names: see barkfast.models.encodec.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barkfast.config import CodecConfig
from barkfast.models.encodec import CausalConv1d, Quantizer, ResidualBlock, SkipLSTM


class CausalDownConv1d(nn.Module):
    """A convolution that shortens its input `stride` times; both edges are padded by reflection."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel_size=2 * stride, stride=stride)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time) -> (batch, n_out, time / stride, rounded up)."""
        left, right = self.stride, -x.shape[-1] % self.stride
        # Reflection needs more samples than it reflects, so a shorter input is first extended with zeros.
        missing = max(0, left + 1 - x.shape[-1])
        padded = F.pad(F.pad(x, (0, missing)), (left, right), mode="reflect")
        return self.conv(padded[..., : padded.shape[-1] - missing])


class Encoder(nn.Module):
    """Samples to latent frames: a convolution, one downsampling stage per ratio, an LSTM, a convolution."""

    # (n_in, n_out, stride) -> a downsampling layer; training uses a simpler one.
    down: type[nn.Module] = CausalDownConv1d

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width = config.n_filters
        layers: list[nn.Module] = [CausalConv1d(1, width, config.kernel_size)]
        for ratio in reversed(config.ratios):
            layers += [ResidualBlock(config, width, config.dilation_base**j) for j in range(config.n_residual_layers)]
            layers += [nn.ELU(), self.down(width, 2 * width, ratio)]
            width *= 2
        layers += [SkipLSTM(width, config.n_lstm_layers), nn.ELU()]
        layers += [CausalConv1d(width, config.dimension, config.last_kernel_size)]
        self.layers = nn.ModuleList(layers)

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, 1, samples) -> (batch, dimension, frames)."""
        for layer in self.layers:
            samples = layer(samples)
        return samples


def quantize(quantizer: Quantizer, latent: Tensor) -> Tensor:
    """Codes of (batch, dimension, frames): the nearest entries, each codebook quantizing what the ones before it left.

    Returns: (batch, n_codebooks, frames) int64.
    """
    batch, dimension, frames = latent.shape
    codes = []
    for codebook in quantizer.layers:
        table = codebook.get_buffer("codebook.embed").t()
        rows = latent.transpose(1, 2).reshape(-1, dimension)
        # Written out, as in the reference: torch.cdist rounds differently and could decide near ties differently.
        distance = rows.pow(2).sum(1, keepdim=True) - 2 * rows @ table + table.pow(2).sum(0, keepdim=True)
        codes.append((-distance).max(dim=-1).indices.view(batch, frames))
        latent = latent - codebook(codes[-1])
    return torch.stack(codes, dim=1)


class EncodecEncoder(nn.Module):
    """Waveform to codes."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config)

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, 1, samples) -> (batch, n_codebooks, frames) int64; a partial last frame is padded by reflection."""
        return quantize(self.quantizer, self.encoder(samples))
