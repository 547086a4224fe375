"""EnCodec's decoder on the CPU: native code in float32, at once or as the codes come."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from barkfast.config import CodecConfig
from barkfast.errors import EngineError, InputError
from barkfast.runtime.cpu.packing import require_native
from barkfast.runtime.decoder import Codec


def fits(config: CodecConfig) -> str | None:
    """Why the native codec cannot run a codec of this kind; None if it can."""
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
        isa: the level of instructions; "" for $BARKFAST_CPU_ISA or the best.
    Errors: EngineError for a codec that `fits` refuses, and without the native module; ValueError for an unknown
        `isa`.
    """

    def __init__(self, config: CodecConfig, tensors: Mapping[str, Tensor], *, pool: object, isa: str = "") -> None:
        if reason := fits(config):
            raise EngineError(f"the cpu engine cannot run this codec: {reason}; use engine='torch'")
        self.config = config
        weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
        self._native = require_native().Codec(config, weights, pool, isa)

    def to(self, device: str) -> None:
        """Do nothing: the CPU is the only place."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self._native.decode(check_codes(codes, self.config))

    def stream(self) -> "CodecStream":
        """Begin a clip whose codes come piece by piece; any number may be under way."""
        return CodecStream(self.config, self._native)


class CodecStream:
    """One clip, decoded as its codes come: all samples together are those of `decode`, bit for bit.

    At the clip's start each layer sees a reflection of what comes after, so the first samples need `lead_in` frames
    (7 in EnCodec, 93 ms); after that every push returns the samples of all its frames.
    """

    def __init__(self, config: CodecConfig, native: object) -> None:
        self.config = config
        self.lead_in: int = native.lead_in  # type: ignore[attr-defined]
        self._native = native.stream()  # type: ignore[attr-defined]
        self._codebooks: int | None = None
        self._finished = False

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Take (codebooks, frames) codes, always of as many codebooks; return (samples,) float32, maybe none.

        Errors: InputError for other shapes, for codes out of range, and after `finish`.
        """
        self._check_open()
        codes = check_codes(codes, self.config)
        if self._codebooks not in (None, len(codes)):
            raise InputError(f"codes of {len(codes)} codebooks after {self._codebooks} in the same stream")
        self._codebooks = len(codes)
        return self._native.push(codes)

    def finish(self) -> np.ndarray:
        """End the clip; return what is still to come, (samples,) float32: of a clip shorter than `lead_in`, all."""
        self._check_open()
        self._finished = True
        return self._native.finish()

    def _check_open(self) -> None:
        if self._finished:
            raise InputError("this stream is finished; begin a new one")


def check_codes(codes: np.ndarray, config: CodecConfig) -> np.ndarray:
    """The codes as int32. Errors: InputError if they are not (codebooks, frames) or out of range."""
    if codes.ndim != 2 or not 1 <= len(codes) <= config.n_codebooks or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(
            f"codes are {codes.dtype} of shape {codes.shape}; expected integers, "
            f"(up to {config.n_codebooks} codebooks, frames)"
        )
    if codes.size and not 0 <= codes.min() <= codes.max() < config.codebook_size:
        raise InputError(
            f"codes {codes.min()}..{codes.max()} do not fit the codec's codebooks of {config.codebook_size} entries"
        )
    return np.ascontiguousarray(codes, np.int32)
