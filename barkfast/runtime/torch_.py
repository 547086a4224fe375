"""The plain torch engine: one sequence at a time, on any device torch knows.

In float32 on the CPU it equals the reference token for token. It waits for the device at every token, so it is slow.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barkfast.jobs import FineJob, Job
from barkfast.models.encodec import EncodecDecoder, exact_convolutions
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT, KVCache
from barkfast.runtime.decoder import (
    Codec,
    Decoder,
    Refiner,
    Step,
    check_codebook,
    check_job,
    check_slots,
    check_window,
    find_root,
    job_failed,
    loses_device,
    no_logits,
    not_finite,
)
from barkfast.runtime.sampling import Randomness, draw, probabilities
from barkfast.runtime.torch_codec_stream import TorchCodecStream


@dataclass(slots=True)
class Sequence:
    """A running job: its cache, the hidden state that predicts its next token, its token count, and its last logits."""

    job: Job
    cache: KVCache
    hidden: Tensor
    drawn: int = 0
    done: bool = False
    logits: Tensor | None = None


class TorchDecoder(Decoder):
    """A GPT in plain torch.

    Args:
        model: the network, on its device, in its dtype.
        stage: semantic or coarse, named in errors.
        reuse_prefix: continue the cache of the job that `continues_from` names. Exact mathematically, but not bit for
            bit (a token fed alone rounds differently from one fed in a prompt), so off in float32.
        n_slots: caches that are retained for later jobs; more sequences may run at a time.
    """

    def __init__(
        self, model: GPT, *, stage: str = "semantic", reuse_prefix: bool | None = None, n_slots: int = 1
    ) -> None:
        self.model, self.config, self.stage = model, model.config, stage
        self.reuse_prefix = self.dtype != torch.float32 if reuse_prefix is None else reuse_prefix
        self._sequences: dict[int, Sequence] = {}
        # Released sequences, the latest last: a later job may continue their caches, or empty and reuse them.
        self._released: list[Sequence] = []
        self.n_slots = n_slots

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.lm_head.weight.dtype

    def to(self, device: str) -> Any:
        self.model.to(device)
        self._released.clear()
        return self

    @torch.inference_mode()
    def admit(self, job: Job) -> int:
        check_job(job, self.model.config)
        sequence = self._extend(job) or self._prefill(job)
        slot = next(slot for slot in range(len(self._sequences) + 1) if slot not in self._sequences)
        self._sequences[slot] = sequence
        return slot

    def _prefill(self, job: Job) -> Sequence:
        cache = self._take_cache()
        # If the cache to continue is gone, it is recomputed in the same steps, so that the tokens do not depend on what
        # this decoder did in between.
        root = find_root(job) if self.reuse_prefix else job
        tokens = torch.from_numpy(root.prompt.astype(np.int64)).to(self.device)[None]
        return self._read(Sequence(job, cache, self.model(tokens, cache, root.n_merged)))

    def _take_cache(self) -> KVCache:
        """An empty cache: that of the job released first, else a new one."""
        if not self._released:
            return KVCache(self.model.config, device=self.device, dtype=self.dtype)
        cache = self._released.pop(0).cache
        cache.length = 0
        return cache

    def _extend(self, job: Job) -> Sequence | None:
        """Continue the cache of `job.continues_from`, if it is still retained."""
        if self.reuse_prefix and job.continues_from is not None:
            for index, kept in enumerate(self._released):
                if kept.job is job.continues_from:
                    del self._released[index]
                    return self._read(Sequence(job, kept.cache, kept.hidden))
        return None

    def _read(self, sequence: Sequence) -> Sequence:
        """Feed the tokens of the prompt that the cache does not hold yet, one by one."""
        job, cache = sequence.job, sequence.cache
        for token in job.prompt[cache.length + job.n_merged :]:
            sequence.hidden = self._feed(int(token), cache)
        return sequence

    def _feed(self, token: int, cache: KVCache) -> Tensor:
        return self.model(torch.tensor([[token]], device=self.device), cache)

    def resize(self, n_slots: int) -> None:
        check_slots(n_slots)
        self.n_slots = n_slots
        self._keep_caches()

    @torch.inference_mode()
    def step(self, seconds: float = 0.0) -> list[Step]:
        return [self._try_to_advance(slot, s) for slot, s in self._sequences.items() if not s.done]

    def _try_to_advance(self, slot: int, sequence: Sequence) -> Step:
        try:
            return self._advance(slot, sequence)
        except Exception as error:
            # torch raises errors of many kinds; the job's caller gets it.
            if loses_device(error):
                raise
            sequence.done = True
            return Step(slot, None, done=True, error=job_failed(self.stage, error))

    def _advance(self, slot: int, sequence: Sequence) -> Step:
        job = sequence.job
        first, end = job.slices[sequence.drawn % len(job.slices)]
        logits = sequence.logits = self._allowed_logits(sequence.hidden, first, end, job)
        if not torch.isfinite(logits).all():
            sequence.done = True
            return Step(slot, None, done=True, error=not_finite(self.stage, sequence.drawn + 1, self.dtype))
        probs = probabilities(logits, job.sampling)
        index = int(draw(probs, job.sampling, Randomness.of(job.random).on(self.device)))
        sequence.drawn += 1
        stop = job.stop
        if stop is not None and (index == end - first or (stop.min_p is not None and bool(probs[-1] >= stop.min_p))):
            sequence.done = True
            return Step(slot, None, done=True)
        token = first + index
        sequence.done = sequence.drawn == job.steps
        if not sequence.done:
            sequence.hidden = self._feed(token, sequence.cache)
        return Step(slot, token, sequence.done)

    def _allowed_logits(self, hidden: Tensor, first: int, end: int, job: Job) -> Tensor:
        """Logits of the allowed slice, and of the stop token (if any) behind them."""
        if job.stop is None:
            logits = self.model.logits(hidden, first, end)
        elif job.stop.token == end:
            logits = self.model.logits(hidden, first, end + 1)
        else:
            stop = self.model.logits(hidden, job.stop.token, job.stop.token + 1)
            logits = torch.cat([self.model.logits(hidden, first, end), stop], dim=-1)
        return logits[0]

    def logits(self, slot: int) -> np.ndarray:
        sequence = self._sequences.get(slot)
        if sequence is None or sequence.logits is None:
            raise no_logits(slot)
        return sequence.logits.float().cpu().numpy()

    def release(self, slot: int) -> None:
        self._released.append(self._sequences.pop(slot))
        self._keep_caches()

    def _keep_caches(self) -> None:
        """Free all but the last `n_slots` released caches; all but one where caches are never continued."""
        most = self.n_slots if self.reuse_prefix else 1
        del self._released[: max(0, len(self._released) - most)]


class TorchRefiner(Refiner):
    """The fine network in plain torch."""

    def __init__(self, model: FineGPT) -> None:
        self.model, self.config = model, model.config

    @property
    def device(self) -> torch.device:
        return self.model.transformer.wpe.weight.device

    def to(self, device: str) -> Any:
        self.model.to(device)
        return self

    @torch.inference_mode()
    def refine(self, job: FineJob) -> np.ndarray:
        window = torch.from_numpy(job.window.astype(np.int64)).to(self.device)
        generator = Randomness.of(job.random).on(self.device)
        for codebook in range(job.first_codebook, window.shape[1]):
            logits = self.model(window[None], codebook)[0, :, : job.codebook_size].float()
            if not torch.isfinite(logits).all():
                raise not_finite("fine", None, self.model.transformer.wpe.weight.dtype)
            if job.sampling.greedy:
                codes = logits[job.first_frame :].argmax(-1)
            else:
                probs = torch.softmax(logits / job.sampling.temperature, dim=-1)
                codes = draw(probs[job.first_frame :], job.sampling, generator)
            window[job.first_frame :, codebook] = codes
        return window.to(torch.int32).cpu().numpy()

    @torch.inference_mode()
    def logits(self, window: np.ndarray, codebook: int) -> np.ndarray:
        check_window(window, self.model.config)
        check_codebook(codebook, self.model.config)
        codes = torch.from_numpy(window.astype(np.int64)).to(self.device)
        return self.model(codes[None], codebook)[0].float().cpu().numpy()


class TorchCodec(Codec):
    """The codec's decoder in plain torch."""

    def __init__(self, model: EncodecDecoder) -> None:
        self.model, self.config = model, model.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str) -> Any:
        self.model.to(device)
        return self

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(codes.astype(np.int64)).to(self.device)[None]
        with exact_convolutions():
            return self.model(tokens)[0].float().cpu().numpy()

    def stream(self) -> TorchCodecStream:
        return TorchCodecStream(self.model)
