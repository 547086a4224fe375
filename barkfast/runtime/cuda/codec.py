"""EnCodec's decoder on the GPU: half precision, channels last, one CUDA graph per length; streams in plain torch."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from barkfast.models.encodec import CausalConv1d, CausalConvTranspose1d, EncodecDecoder, SkipLSTM, exact_convolutions
from barkfast.runtime.cuda.device import Options, on_device, upload
from barkfast.runtime.cuda.graphs import Graphs
from barkfast.runtime.decoder import Codec, CodecStream
from barkfast.runtime.torch_codec_stream import TorchCodecStream

logger = logging.getLogger(__name__)

# Clips are padded to multiples of this many frames.
FRAMES_BUCKET = 64


class FlatConv(nn.Module):
    """A CausalConv1d over (batch, channels, 1, time): torch has no channels-last format for one dimension."""

    def __init__(self, conv: CausalConv1d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.conv.weight[:, :, None].contiguous(memory_format=torch.channels_last))
        self.bias, self.pad, self.dilation = conv.conv.bias, conv.pad, conv.conv.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, 1, time) -> (batch, n_out, 1, time)."""
        if self.pad:
            missing = max(0, self.pad + 1 - x.shape[-1])
            padded = F.pad(F.pad(x, (0, missing)), (self.pad, 0, 0, 0), mode="reflect")
            x = padded[..., : padded.shape[-1] - missing]
        return F.conv2d(x, self.weight, self.bias, dilation=(1, self.dilation))


class FlatConvTranspose(nn.Module):
    """A CausalConvTranspose1d over (batch, channels, 1, time)."""

    def __init__(self, conv: CausalConvTranspose1d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.conv.weight[:, :, None].contiguous(memory_format=torch.channels_last))
        self.bias, self.stride = conv.conv.bias, conv.conv.stride[0]
        self.trim_left, self.trim_right = conv.trim_left, conv.trim_right

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, 1, time) -> (batch, n_out, 1, time * stride)."""
        y = F.conv_transpose2d(x, self.weight, self.bias, stride=(1, self.stride))
        return y[..., self.trim_left : y.shape[-1] - self.trim_right]


class FlatLSTM(nn.Module):
    """A SkipLSTM over (batch, channels, 1, time)."""

    def __init__(self, lstm: SkipLSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, 1, time) -> the same."""
        return self.lstm(x[:, :, 0])[:, :, None].contiguous(memory_format=torch.channels_last)


def flatten(module: nn.Module) -> None:
    """Replace layers for (batch, channels, time), in place, by layers for (batch, channels, 1, time)."""
    twins = {CausalConv1d: FlatConv, CausalConvTranspose1d: FlatConvTranspose, SkipLSTM: FlatLSTM}
    for name, child in module.named_children():
        twin = twins.get(type(child))
        if twin is None:
            flatten(child)
        else:
            setattr(module, name, twin(child))


class CudaCodec(Codec):
    """The codec's decoder.

    Args:
        model: the codec in float32, with weight norm folded; it is retained.
        device: where it runs.
        dtype: float16 or float32. (bfloat16's 8 bits would be audible as hiss.)
        storage_device: where the weights are until `to(device)`; None for the device itself.
    """

    engine = "cuda"

    def __init__(
        self,
        model: EncodecDecoder,
        *,
        device: torch.device,
        dtype: torch.dtype,
        storage_device: torch.device | None = None,
        options: Options | None = None,
    ) -> None:
        self.config, self.device = model.config, device
        self.options = options or Options.for_device(device)
        # The unchanged original, in case half precision overflows; its weights are usually mapped from the file.
        self._exact = model
        self._model = self._copy(storage_device or device, dtype, flat=True)
        # For streams, made with the first one: their pieces vary in length, so graphs are of no use.
        self._plain: EncodecDecoder | None = None
        # In a causal decoder, padding frames after the end do not change the samples before it.
        self._causal = self.config.trim_right_ratio == 1
        self._graphs = Graphs(device, enabled=self.options.graphs)
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def _copy(self, device: torch.device, dtype: torch.dtype, *, flat: bool) -> EncodecDecoder:
        """Copy the original model to a device and dtype; `flat`: with the layers that whole clips need."""
        # `decode` may call this in inference mode; a module made in that mode could not be moved later.
        with torch.inference_mode(False):
            model = copy.deepcopy(self._exact).to(device, dtype)
            if flat:
                flatten(model.decoder)
        return model

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations."""
        return next(self._model.parameters()).dtype

    def warm_up(self) -> None:
        """Decode one frame, so that errors occur now rather than later."""
        self.decode(np.zeros((self.config.n_codebooks, 1), np.int32))
        self._graphs.clear()
        self._buffers.clear()

    def to(self, device: str) -> Any:
        target = torch.device(device)
        if target.type == next(self._model.parameters()).device.type:
            return self
        self._graphs.clear()
        self._buffers.clear()
        for model in filter(None, (self._model, self._plain)):
            model.to(self.device if target.type == self.device.type else target)
        return self

    def decode(self, codes: np.ndarray) -> np.ndarray:
        with on_device(self.device):
            samples = self._decode(codes)
            if np.isfinite(samples).all() or self.dtype == torch.float32:
                return samples
            self.use_float32()
            return self._decode(codes)

    def stream(self) -> "CudaCodecStream":
        return CudaCodecStream(self)

    def use_float32(self) -> None:
        """Continue in float32, because half precision overflows in this model."""
        if self.dtype == torch.float32:
            return
        logger.warning("the codec's samples are not finite in %s; it goes on in float32, slower", self.dtype)
        self._graphs.clear()
        self._buffers.clear()
        self._plain = None
        self._model = self._copy(self.device, torch.float32, flat=True)

    def plain(self) -> EncodecDecoder:
        """The model in plain torch, on the codec's current device and in its dtype; `to` moves it too."""
        if self._plain is None:
            self._plain = self._copy(next(self._model.parameters()).device, self.dtype, flat=False)
        return self._plain

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        n_codebooks, frames = codes.shape
        # In shorter clips the reflection at the start would reach the padding, so they keep their own length.
        padded = -(-frames // FRAMES_BUCKET) * FRAMES_BUCKET if self._causal and frames >= FRAMES_BUCKET else frames
        key = (n_codebooks, padded)
        if key not in self._buffers:
            self._buffers[key] = (
                torch.zeros(1, n_codebooks, padded, dtype=torch.int32, device=self.device),
                torch.empty(padded * self.config.hop_length, device=self.device),
            )
        tokens, samples = self._buffers[key]
        source = np.zeros((1, n_codebooks, padded), np.int32)
        source[0, :, :frames] = codes
        upload(tokens, torch.from_numpy(source))

        def work() -> None:
            latent = self._model.quantizer(tokens)[:, :, None].contiguous(memory_format=torch.channels_last)
            samples.copy_(self._model.decoder(latent).flatten())

        with exact_convolutions():
            self._graphs.run(key, work)
        return samples[: frames * self.config.hop_length].cpu().numpy()


class CudaCodecStream(CodecStream):
    """One clip, decoded as its codes arrive, equal to `decode` but for rounding.

    If half precision overflows, the clip is decoded again in float32 from its start, and the stream continues after
    the samples that it has already returned.
    """

    def __init__(self, codec: CudaCodec) -> None:
        self._codec = codec
        self._inner = TorchCodecStream(codec.plain())
        super().__init__(codec.config, self._inner.lead_in)
        self._pieces: list[np.ndarray] = []
        self._n_samples = 0

    def _push(self, codes: np.ndarray) -> np.ndarray:
        return self._advance(lambda inner: inner.push(codes), codes)

    def _finish(self) -> np.ndarray:
        return self._advance(TorchCodecStream.finish, None)

    def _advance(self, work: Callable[[TorchCodecStream], np.ndarray], codes: np.ndarray | None) -> np.ndarray:
        """Push `codes`, or finish if they are None."""
        with on_device(self._codec.device):
            samples = work(self._inner)
            if codes is not None:
                self._pieces.append(codes)
            if not np.isfinite(samples).all() and self._inner.dtype != torch.float32:
                self._codec.use_float32()
                self._inner = TorchCodecStream(self._codec.plain())
                whole = [self._inner.push(piece) for piece in self._pieces]
                if codes is None:
                    whole.append(self._inner.finish())
                samples = np.concatenate(whole)[self._n_samples :]
        self._n_samples += len(samples)
        return samples
