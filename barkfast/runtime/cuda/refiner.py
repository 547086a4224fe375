"""The fine network on the GPU: all codebooks of a window in one CUDA graph; the codes stay on the device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barkfast.config import FineConfig, Sampling
from barkfast.jobs import FineJob
from barkfast.runtime.cuda.device import Options, on_device, upload
from barkfast.runtime.cuda.graphs import Graphs
from barkfast.runtime.cuda.network import Network, load_network
from barkfast.runtime.cuda.prefill import Trunk
from barkfast.runtime.decoder import Refiner, check_codebook, check_window, not_finite
from barkfast.runtime.sampling import STAGE_KEYS, Randomness
from barkfast_kernels.embed_codes import embed_codes
from barkfast_kernels.flash_attention import flash_attention
from barkfast_kernels.sample_codes import sample_codes
from barkfast_kernels.slots import FAILED, STATUS, WORDS, pack_slot


class FinePass:
    """The launches that fill one codebook after the other, on fixed buffers.

    Attributes:
        codes: (block_size, codebooks) int32, the window.
        draw: (16,) int32, how to draw; see sample_codes.
    """

    def __init__(self, network: Network, config: FineConfig) -> None:
        device = network.wpe.device
        self.network, self.trunk = network, Trunk(network, config.block_size)
        self.n_codebooks, self.n_given = config.n_codes_total, config.n_codes_given
        self.codes = torch.zeros(config.block_size, self.n_codebooks, dtype=torch.int32, device=device)
        self.draw = torch.zeros(WORDS.value, dtype=torch.int32, device=device)
        self._logits = torch.empty(config.block_size, config.output_vocab_size, device=device, dtype=network.dtype)

    def run(self, length: int, first_codebook: int, codebook_size: int) -> None:
        """Predict codebooks `first_codebook`.. of the first `length` frames, ids below `codebook_size`."""
        codes = self.codes[:length]
        for codebook in range(first_codebook, self.n_codebooks):
            logits = self.predict(length, codebook)
            sample_codes(
                logits, codes, self.draw, codebook=codebook, codebook_size=codebook_size, stage=STAGE_KEYS["fine"]
            )

    def predict(self, length: int, codebook: int) -> Tensor:
        """Logits of one codebook for the first `length` frames: (length, vocabulary), overwritten by the next call."""
        network, codes = self.network, self.codes[:length]

        def attend(layer: int, qkv: Tensor, out: Tensor) -> None:
            flash_attention(qkv, out, n_head=network.config.n_head, causal=False)

        embed_codes(codes, network.tables, network.wpe, self.trunk.x[:length], codebook=codebook)
        hidden = self.trunk.normalize(*self.trunk.run(length, attend))
        logits = self._logits[:length]
        torch.mm(hidden, network.heads[codebook - self.n_given].t(), out=logits)
        return logits


class CudaRefiner(Refiner):
    """The fine network on the GPU; for the arguments see CudaDecoder."""

    engine = "cuda"

    def __init__(
        self,
        config: FineConfig,
        tensors: Mapping[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        storage_device: torch.device | None = None,
        options: Options | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.options = options or Options.for_device(device)
        self._network = load_network(config, tensors, device=storage_device or device, dtype=dtype)
        if (storage_device or device) == device:
            self._set_up()

    def _set_up(self) -> None:
        with on_device(self.device):
            self._pass = FinePass(self._network, self.config)
            self._graphs = Graphs(self.device, enabled=self.options.graphs)

    def warm_up(self) -> None:
        """Compile the kernels on a window of one frame, so that errors occur now rather than later."""
        window = np.zeros((1, self.config.n_codes_total), np.int32)
        self.refine(FineJob(window, 0, self.config.n_codes_given, 1, Sampling(0)))
        self._graphs.clear()

    def to(self, device: str) -> Any:
        target = torch.device(device)
        if target.type == self._network.wpe.device.type:
            return self
        if target.type == self.device.type:
            self._network = self._network.to(self.device)
            self._set_up()
            return self
        self._graphs.clear()
        del self._pass
        self._network = self._network.to(target)
        torch.cuda.empty_cache()
        return self

    def refine(self, job: FineJob) -> np.ndarray:
        check_window(job.window, self.config)
        length = len(job.window)
        work, sampling = self._pass, job.sampling
        seed, first_draw = 0, 0
        if not sampling.greedy:
            seed, first_draw = Randomness.of(job.random).reserve("fine", job.window.size)
        draw = pack_slot(
            position=job.first_frame,
            limit=length,
            seed=seed,
            first_draw=first_draw,
            temperature=float(sampling.temperature or 0),
        )
        with on_device(self.device):
            upload(work.codes[:length], torch.from_numpy(job.window.astype(np.int32)))
            upload(work.draw, draw)
            key = (length, job.first_codebook, job.codebook_size)
            self._graphs.run(key, lambda: work.run(*key))
            window = work.codes[:length].cpu().numpy().copy()
            if int(work.draw[STATUS.value]) == FAILED.value:
                raise not_finite("fine", None, self._network.dtype)
        return window

    def logits(self, window: np.ndarray, codebook: int) -> np.ndarray:
        check_window(window, self.config)
        check_codebook(codebook, self.config)
        with on_device(self.device):
            upload(self._pass.codes[: len(window)], torch.from_numpy(window.astype(np.int32)))
            return self._pass.predict(len(window), codebook).float().cpu().numpy().copy()
