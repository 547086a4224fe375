"""Fake networks without weights. Their output depends on all of their input, so that wrong input is noticed."""

import threading
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from barkfast.bench.workload import full_voice
from barkfast.config import Layout
from barkfast.engine.results import Generation
from barkfast.engine.utterance import Decode, Refine, Synthesize, Utterance, Work
from barkfast.errors import EngineError, InputError
from barkfast.jobs import FineJob, Job
from barkfast.options import Request
from barkfast.runtime.decoder import Step
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job

LAYOUT = Layout()
VOICE = full_voice(LAYOUT)
# Samples per frame, and frames that a codec stream needs before it returns samples.
HOP, LEAD_IN = 4, 7
# Each character of a text is a token. With one of these two the semantic network fails, or refuses the prompt.
POISON, REFUSED = "\u2620", "\u2716"


class Tokenizer:
    """One token per character."""

    def check(self, text: str) -> None:
        """Accept any text."""

    def leaves_out(self, text: str) -> bool:
        return False

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def fake_tokens(job: Job) -> list[int]:
    """The tokens that a fake decoder draws for a job. A job with a stop token ends after at most 5 to 150 tokens."""
    number = zlib.crc32(job.prompt.tobytes())
    steps = job.steps if job.stop is None else min(job.steps, 5 + number % 146)
    tokens = []
    for i in range(steps):
        first, end = job.slices[i % len(job.slices)]
        tokens.append(first + (number + 7919 * i) % (end - first))
    return tokens


def fake_window(job: FineJob) -> np.ndarray:
    """Fill a window as a fine network: a frame's new codes depend on the codes given for that frame."""
    window = job.window.copy()
    given = window[job.first_frame :, : job.first_codebook].sum(1)
    for codebook in range(job.first_codebook, window.shape[1]):
        window[job.first_frame :, codebook] = (given * 31 + codebook) % job.codebook_size
    return window


def fake_samples(codes: np.ndarray) -> np.ndarray:
    """The samples of (codebooks, frames) codes, HOP per frame."""
    return np.repeat(codes.sum(0) / 8192, HOP).astype(np.float32)


# Attributes of every network.
FAKE = {"engine": "fake", "fallback": None}


class FakeDecoder:
    """A decoder of `n_slots` slots that logs every "admit" and "step"."""

    engine, fallback = "fake", None

    def __init__(self, stage: str, log: list[str], n_slots: int = 1) -> None:
        self.stage, self.log, self.n_slots = stage, log, n_slots
        self.active: dict[int, tuple[Job, list[int], list[int]]] = {}
        self.failing: BaseException | None = None

    def resize(self, n_slots: int) -> None:
        assert not self.active
        self.n_slots = n_slots

    def admit(self, job: Job) -> int:
        if len(self.active) == self.n_slots:
            raise EngineError("all slots are taken")
        marks = [ord(mark) + LAYOUT.semantic.text_offset for mark in (POISON, REFUSED)]
        if self.stage == "semantic" and marks[1] in job.prompt:
            raise InputError("refused")
        slot = next(slot for slot in range(self.n_slots) if slot not in self.active)
        self.active[slot] = (job, [] if marks[0] in job.prompt and self.stage == "semantic" else fake_tokens(job), [])
        self.log.append("admit")
        return slot

    def step(self, seconds: float = 0.0) -> list[Step]:
        if self.failing is not None:
            raise self.failing
        self.log.append("step")
        return [self._advance(slot, *active) for slot, active in self.active.items()]

    def _advance(self, slot: int, job: Job, tokens: list[int], drawn: list[int]) -> Step:
        if not tokens:
            return Step(slot, None, done=True, error=EngineError("not finite"))
        if len(drawn) == len(tokens):
            return Step(slot, None, done=True)
        drawn.append(tokens[len(drawn)])
        # The stop token is drawn in a step of its own.
        return Step(slot, drawn[-1], done=len(drawn) == len(tokens) and (job.stop is None or len(drawn) == job.steps))

    def release(self, slot: int) -> None:
        del self.active[slot]


class FakeCodecStream:
    """A stream of the codec."""

    def __init__(self) -> None:
        self.codes: list[np.ndarray] = []
        self.n_out = 0

    def push(self, codes: np.ndarray, last: bool = False) -> np.ndarray:
        self.codes.append(codes)
        samples = fake_samples(np.concatenate(self.codes, axis=1))
        if not last and len(samples) < LEAD_IN * HOP:
            return samples[:0]
        start, self.n_out = self.n_out, len(samples)
        return samples[start:]

    def finish(self) -> np.ndarray:
        return self.push(self.codes[0][:, :0], last=True)


class FakeComponents:
    """The parts of `Components` that a scheduler uses."""

    def __init__(self, n_slots: int = 1, counter_based_rng: bool = True) -> None:
        self.log: list[str] = []
        self.n_slots, self.offload = n_slots, False
        self.decoders = {part: FakeDecoder(stage, self.log, n_slots) for part, stage in STAGES.items()}
        for decoder in self.decoders.values():
            decoder.engine = "fake" if counter_based_rng else "torch"
        self.refiner = SimpleNamespace(refine=self._refine, **FAKE)
        self.codec = SimpleNamespace(decode=fake_samples, stream=FakeCodecStream, **FAKE)
        self.models = {"text": {"tokenizer": Tokenizer()}}
        self._claim = threading.Lock()

    def _refine(self, job: FineJob) -> np.ndarray:
        self.log.append("refine")
        return fake_window(job)

    def checkpoint(self) -> Any:
        return SimpleNamespace(layout=LAYOUT)

    def grow(self, n_slots: int) -> None:
        self.n_slots = max(n_slots, self.n_slots)
        for decoder in self.decoders.values():
            decoder.resize(self.n_slots)

    def shrink(self) -> None:
        """Keep all slots: they need no memory here."""

    def claim(self, owner: str) -> None:
        if not self._claim.acquire(blocking=False):
            raise EngineError(f"at work already, for {owner}")

    def release(self) -> None:
        self._claim.release()

    def load(self, part: str) -> Any:
        return self.models["text"] if part == "text" else self.bind(part)[0]

    def bind(self, part: str) -> tuple[Any, str]:
        return {**self.decoders, "fine": self.refiner, "codec": self.codec}[part], "cpu"

    @property
    def free(self) -> bool:
        """Whether no slot is in use and the networks are not claimed."""
        return not any(decoder.active for decoder in self.decoders.values()) and not self._claim.locked()


STAGES = {"text": "semantic", "coarse": "coarse"}


def text_ids(request: Request) -> np.ndarray:
    """The ids of a request's text."""
    assert request.text is not None
    return np.array(Tokenizer().encode(request.text), np.int32)


def speak_plainly(request: Request) -> Generation:
    """The expected result of a request: one stage after the other, without the engine."""
    voice = request.voice
    job = semantic_job(
        text_ids(request),
        LAYOUT,
        request.text_sampling,
        history=None if voice is None else voice["semantic_prompt"],
        min_eos_p=0.2,
        max_duration_s=request.max_duration_s,
    )
    semantic = np.array(fake_tokens(job))
    history = None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"])
    windows = CoarseWindows(semantic, LAYOUT, request.waveform_sampling, history=history)
    while (window := windows.next_job()) is not None:
        windows.append(np.array(fake_tokens(window), np.int32))
    past = None if voice is None else voice["fine_prompt"]
    fine = FineWindows(windows.codes(), LAYOUT, request.fine_sampling, history=past)
    while (frames := fine.next_job()) is not None:
        fine.append(fake_window(frames))
    return Generation(fake_samples(fine.codes()), LAYOUT.sample_rate, semantic, windows.codes(), fine.codes())


def do(utterance: Utterance, work: Work, stream: FakeCodecStream) -> np.ndarray | None:
    """Do one piece of work to its end. Returns: the samples of a Synthesize, else None."""
    utterance.begin(work)
    if isinstance(work, Decode):
        for token in fake_tokens(work.job):
            utterance.take_token(work, token)
        utterance.take(work)
    elif isinstance(work, Refine):
        utterance.take(work, fake_window(work.job))
    elif isinstance(work, Synthesize):
        if work.whole:
            samples = fake_samples(work.codes)
        else:
            pieces = [stream.push(work.codes)] if work.codes.shape[1] else []
            samples = np.concatenate([*pieces, stream.finish()] if work.last else pieces)
        utterance.take(work, samples)
        return samples
    return None


def assert_same(generation: Generation, expected: Generation) -> None:
    """Assert equal tokens of all stages, and equal audio."""
    for name in ("semantic", "coarse", "fine", "audio"):
        np.testing.assert_array_equal(getattr(generation, name), getattr(expected, name), err_msg=name)
