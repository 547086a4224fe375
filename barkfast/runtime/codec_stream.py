"""The interface of a codec's stream: a clip whose codes arrive in pieces."""

from abc import ABC, abstractmethod

import numpy as np

from barkfast.config import CodecConfig
from barkfast.errors import InputError


class CodecStream(ABC):
    """One clip, decoded as its codes arrive: all samples together are those of `Codec.decode`.

    At the clip's start each layer pads with a reflection of its next inputs, so the first samples need `lead_in` frames
    (7 in EnCodec, 93 ms); after that every push returns the samples of all its frames.

    Args:
        lead_in: frames needed for the first samples; None for a codec with lookahead, which returns all at the end.
    """

    def __init__(self, config: CodecConfig, lead_in: int | None) -> None:
        self.config, self.lead_in = config, lead_in
        self._codebooks: int | None = None
        self._finished = False

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Decode (codebooks, frames) codes, as many codebooks in every call; return (samples,) float32, maybe none.

        Raises: InputError for other shapes, for codes out of range, and after `finish`; the stream stays usable.
        """
        self._check_open()
        codes = check_codes(codes, self.config)
        if self._codebooks not in (None, len(codes)):
            raise InputError(f"codes of {len(codes)} codebooks after {self._codebooks} in the same stream")
        self._codebooks = len(codes)
        return self._push(codes)

    def finish(self) -> np.ndarray:
        """End the clip and return the remaining (samples,) float32: all of them for a clip shorter than `lead_in`."""
        self._check_open()
        self._finished = True
        return self._finish()

    @abstractmethod
    def _push(self, codes: np.ndarray) -> np.ndarray:
        """Decode checked codes, (codebooks, frames) int32."""

    @abstractmethod
    def _finish(self) -> np.ndarray:
        """Decode the frames that are still buffered."""

    def _check_open(self) -> None:
        if self._finished:
            raise InputError("this stream is finished; begin a new one")


def check_codes(codes: np.ndarray, config: CodecConfig) -> np.ndarray:
    """Return the codes as int32. Raises: InputError if they are not (codebooks, frames) or out of range."""
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
