"""EnCodec's decoder on the CPU: native code in float32, for whole clips and for streams."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from barkfast.config import CodecConfig
from barkfast.errors import EngineError
from barkfast.native import native_errors
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.decoder import Codec, CodecStream, check_codes


def fits(config: CodecConfig) -> str | None:
    """Why the native codec cannot run this kind of codec; None if it can."""
    if config.trim_right_ratio != 1:
        return (
            f"its trim_right_ratio is {config.trim_right_ratio}: its layers look ahead, "
            "and the cpu engine's see only the past"
        )
    return None


class CpuCodec(Codec):
    """The codec's decoder. Blocks of a few frames pass through all layers, so memory does not grow with the clip.

    Args:
        tensors: names as in barkfast.models.encodec, weight norm folded; they are copied.
        pool: the threads, `barkfast._native.Pool`.
        isa: the instruction-set level; "" for $BARKFAST_CPU_ISA or else the best.

    Raises: EngineError for a codec that `fits` rejects, or without the native module; ValueError for an unknown `isa`.
    """

    engine = "cpu"

    def __init__(self, config: CodecConfig, tensors: Mapping[str, Tensor], *, pool: object, isa: str = "") -> None:
        if reason := fits(config):
            raise EngineError(f"the cpu engine cannot run this codec: {reason}; use engine='torch'")
        self.config = config
        weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
        self._native = require_native().Codec(config, weights, pool, isa)

    def to(self, device: str) -> Any:
        """Do nothing: the codec runs only on the CPU."""
        return self

    def decode(self, codes: np.ndarray) -> np.ndarray:
        codes = check_codes(codes, self.config)
        with native_errors():
            return self._native.decode(codes)

    def stream(self) -> "CpuCodecStream":
        return CpuCodecStream(self.config, self._native)


class CpuCodecStream(CodecStream):
    """One clip, decoded as its codes arrive: all samples together are those of `decode`, bit for bit."""

    def __init__(self, config: CodecConfig, native: object) -> None:
        super().__init__(config, native.lead_in)  # type: ignore[attr-defined]
        self._native = native.stream()  # type: ignore[attr-defined]

    def _push(self, codes: np.ndarray) -> np.ndarray:
        with native_errors():
            return self._native.push(codes)

    def _finish(self) -> np.ndarray:
        with native_errors():
            return self._native.finish()
