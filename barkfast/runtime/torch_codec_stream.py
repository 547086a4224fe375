"""EnCodec's decoder in plain torch as a stream: the state of each layer is carried from one piece to the next."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barkfast.models.encodec import (
    CausalConv1d,
    CausalConvTranspose1d,
    EncodecDecoder,
    ResidualBlock,
    SkipLSTM,
    exact_convolutions,
)
from barkfast.runtime.decoder import CodecStream

Carried = dict[nn.Module, Any]


def count_lead_in(model: EncodecDecoder) -> int | None:
    """Frames needed for the first samples, as each layer reflects its first inputs; None for a codec with lookahead."""
    if model.config.trim_right_ratio != 1:
        return None
    frames = rate = 1
    for layer in model.decoder.modules():
        if isinstance(layer, CausalConv1d):
            frames = max(frames, math.ceil((layer.pad + 1) / rate))
        elif isinstance(layer, CausalConvTranspose1d):
            rate *= layer.conv.stride[0]
    return frames


class TorchCodecStream(CodecStream):
    """One clip, decoded as its codes arrive; equal to the model's `forward` but for the order of float sums.

    A push that fails leaves the stream as it was before.

    Args:
        model: the codec, on its device; it may be moved between pushes.
    """

    def __init__(self, model: EncodecDecoder) -> None:
        super().__init__(model.config, count_lead_in(model))
        self._model = model
        # (codebooks, frames), buffered until there are enough for the first piece.
        self._retained = np.zeros((0, 0), np.int32)
        self._begun = False
        self._carried: Carried = {}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations."""
        return next(self._model.parameters()).dtype

    @torch.inference_mode()
    def _push(self, codes: np.ndarray) -> np.ndarray:
        if not self._begun:
            codes = np.concatenate([self._retained, codes], axis=1) if self._retained.size else codes
            if self.lead_in is None or codes.shape[1] < self.lead_in:
                self._retained = codes
                return np.zeros(0, np.float32)
        if not codes.shape[1]:
            return np.zeros(0, np.float32)
        carried = self._carried.copy()
        with exact_convolutions():
            x = self._model.quantizer(self._upload(codes))
            for layer in self._model.decoder.layers:
                x = advance(layer, x, carried)
            samples = x[0, 0].float().cpu().numpy()
        self._carried, self._begun = carried, True
        self._retained = self._retained[:, :0]
        return samples

    @torch.inference_mode()
    def _finish(self) -> np.ndarray:
        self._carried.clear()
        if self._begun or not self._retained.size:
            return np.zeros(0, np.float32)
        with exact_convolutions():
            return self._model(self._upload(self._retained))[0].float().cpu().numpy()

    def _upload(self, codes: np.ndarray) -> Tensor:
        """(codebooks, frames) -> (1, codebooks, frames) int64, where the model is."""
        return torch.from_numpy(codes.astype(np.int64)).to(next(self._model.parameters()).device)[None]


def advance(layer: nn.Module, x: Tensor, carried: Carried) -> Tensor:
    """A layer's output for the next piece of its input, (batch, channels, time); updates `carried`."""
    if isinstance(layer, CausalConv1d):
        return _advance_conv(layer, x, carried)
    if isinstance(layer, CausalConvTranspose1d):
        return _advance_transpose(layer, x, carried)
    if isinstance(layer, SkipLSTM):
        return _advance_lstm(layer, x, carried)
    if isinstance(layer, ResidualBlock):
        y = x
        for inner in layer.block:
            y = advance(inner, y, carried)
        return advance(layer.shortcut, x, carried) + y
    return layer(x)


def _advance_conv(layer: CausalConv1d, x: Tensor, carried: Carried) -> Tensor:
    """Prepend the last `pad` inputs of the piece before, instead of padding."""
    if not layer.pad:
        return layer(x)
    before = carried.get(layer)
    if before is None:
        # The clip's edge is reflected; its first piece is longer than the pad.
        y = layer(x)
    else:
        x = torch.cat([before.to(x), x], dim=-1)
        y = layer.conv(x)
    carried[layer] = x[..., -layer.pad :].clone()
    return y


def _advance_transpose(layer: CausalConvTranspose1d, x: Tensor, carried: Carried) -> Tensor:
    """Feed the last input again, since it also contributes to the next one's samples, and drop its own samples."""
    before, stride = carried.get(layer), layer.conv.stride[0]
    carried[layer] = x[..., -1:].clone()
    if before is None:
        return layer(x)
    return layer(torch.cat([before.to(x), x], dim=-1))[..., stride:]


def _advance_lstm(layer: SkipLSTM, x: Tensor, carried: Carried) -> Tensor:
    """Carry the hidden and cell state to the next piece."""
    steps, before = x.permute(2, 0, 1), carried.get(layer)
    y, carried[layer] = layer.lstm(steps, before and tuple(state.to(x) for state in before))
    return (y + steps).permute(1, 2, 0)
