"""The fine network on the CPU: all codebooks of a window in one native call."""

from typing import Any

import numpy as np
import torch

from barkfast.config import FineConfig
from barkfast.errors import EngineError
from barkfast.jobs import FineJob
from barkfast.native import native_errors
from barkfast.runtime.cpu.packing import Packed, require_native
from barkfast.runtime.decoder import Refiner, check_codebook, check_window, not_finite
from barkfast.runtime.sampling import Randomness


class CpuRefiner(Refiner):
    """The fine network in native code on the CPU.

    Several threads may use one refiner; it runs one call at a time.

    Args:
        packed: its weights, see barkfast.runtime.cpu.packing.
        pool: the native threads; networks that share a pool alternate, here after each codebook.
        dtype: the dtype of the packed weights, named in errors.
        isa: the instruction-set level; empty for $BARKFAST_CPU_ISA or else the best.

    Raises: InputError for a network or a level that cannot run here; EngineError without memory.
    """

    engine = "cpu"

    def __init__(
        self, config: FineConfig, packed: Packed, *, pool: Any, dtype: object = "float32", isa: str = ""
    ) -> None:
        self.config, self.dtype = config, dtype
        native = require_native()
        # Kept alive: the native objects read its memory.
        self._packed = packed
        with native_errors():
            network = native.Network(
                config.n_layer, config.n_head, config.n_embd, config.block_size, list(packed.entries)
            )
            self._native = native.Refiner(network, pool, isa=isa)

    def to(self, device: str) -> Any:
        if torch.device(device).type != "cpu":
            raise EngineError(
                f"the fine network is on the cpu engine and cannot move to {device}; "
                "build it with engine='cuda' or engine='torch' to use another device"
            )
        return self

    def refine(self, job: FineJob) -> np.ndarray:
        check_window(job.window, self.config)
        sampling = job.sampling
        seed, first_draw = 0, 0
        if not sampling.greedy:
            seed, first_draw = Randomness.of(job.random).reserve("fine", job.window.size)
        with native_errors():
            window = self._native.refine(
                job.window.astype(np.int32),
                job.first_frame,
                job.first_codebook,
                job.codebook_size,
                temperature=float(sampling.temperature or 0),
                seed=seed % 2**64,
                number=first_draw % 2**32,
            )
        if window is None:
            raise not_finite("fine", None, self.dtype)
        return window

    def logits(self, window: np.ndarray, codebook: int) -> np.ndarray:
        check_window(window, self.config)
        check_codebook(codebook, self.config)
        with native_errors():
            return self._native.logits(window.astype(np.int32), codebook)
