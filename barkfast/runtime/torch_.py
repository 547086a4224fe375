"""The plain torch engine: one sequence at a time, on any device torch knows.

In float32 on the CPU it is the reference, token for token. It asks the device for every token, so it is not fast.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from barkfast.jobs import FineJob, Job
from barkfast.models.encodec import EncodecDecoder
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT, KVCache
from barkfast.runtime.decoder import (
    Codec,
    Decoder,
    Refiner,
    Step,
    check_codebook,
    check_job,
    check_window,
    no_logits,
    not_finite,
)
from barkfast.runtime.sampling import Randomness, draw, probabilities


@dataclass(slots=True)
class Sequence:
    """A job under way: its cache, the hidden state that predicts its next token, and what it drew so far, from what."""

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
        stage: semantic or coarse, to be named in errors.
        reuse_prefix: keep the cache of a job that merely extends the one before. Exact mathematically, but not
            bit for bit (a token fed alone rounds differently from one fed in a prompt), so off in float32.
    """

    def __init__(self, model: GPT, *, stage: str = "semantic", reuse_prefix: bool | None = None) -> None:
        self.model, self.stage = model, stage
        self.reuse_prefix = self.dtype != torch.float32 if reuse_prefix is None else reuse_prefix
        self._sequences: dict[int, Sequence] = {}
        self._free: list[KVCache] = []
        self._last: Sequence | None = None

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.lm_head.weight.dtype

    def to(self, device: str) -> None:
        self.model.to(device)
        self._free.clear()
        self._last = None

    @torch.inference_mode()
    def admit(self, job: Job) -> int:
        check_job(job, self.model.config)
        sequence = self._extend(job) or self._prefill(job)
        slot = next(slot for slot in range(len(self._sequences) + 1) if slot not in self._sequences)
        self._sequences[slot] = sequence
        return slot

    def _prefill(self, job: Job) -> Sequence:
        cache = self._free.pop() if self._free else KVCache(self.model.config, device=self.device, dtype=self.dtype)
        cache.length = 0
        self._last = None
        tokens = torch.from_numpy(job.prompt.astype(np.int64)).to(self.device)[None]
        return Sequence(job, cache, self.model(tokens, cache, job.merged))

    def _extend(self, job: Job) -> Sequence | None:
        """Continue the cache of the job released last, if this one extends it: feed the tokens it has not seen."""
        last = self._last
        if last is None or not self.reuse_prefix or job.extends is not last.job:
            return None
        self._last = None
        self._free.remove(last.cache)
        hidden = last.hidden
        for token in job.prompt[last.cache.length + last.job.merged :]:
            hidden = self._feed(int(token), last.cache)
        return Sequence(job, last.cache, hidden)

    def _feed(self, token: int, cache: KVCache) -> Tensor:
        return self.model(torch.tensor([[token]], device=self.device), cache)

    @torch.inference_mode()
    def step(self) -> list[Step]:
        return [self._advance(slot, s) for slot, s in self._sequences.items() if not s.done]

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
        sequence = self._sequences.pop(slot)
        self._free.append(sequence.cache)
        self._last = sequence


class TorchRefiner(Refiner):
    """The fine network in plain torch."""

    def __init__(self, model: FineGPT) -> None:
        self.model = model

    @property
    def device(self) -> torch.device:
        return self.model.transformer.wpe.weight.device

    def to(self, device: str) -> None:
        self.model.to(device)

    @torch.inference_mode()
    def refine(self, job: FineJob) -> np.ndarray:
        window = torch.from_numpy(job.window.astype(np.int64)).to(self.device)
        generator = Randomness.of(job.random).on(self.device)
        for codebook in range(job.first_codebook, window.shape[1]):
            logits = self.model(window[None], codebook)[0, :, : job.codebook_size].float()
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
        self.model = model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str) -> None:
        self.model.to(device)

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(codes.astype(np.int64)).to(self.device)[None]
        return self.model(tokens)[0].float().cpu().numpy()
