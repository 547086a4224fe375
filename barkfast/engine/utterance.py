"""One utterance: what to do for it next, and what to do with the result."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from barkfast.checks import check_tokens
from barkfast.config import Layout
from barkfast.engine.results import Generation
from barkfast.errors import BarkfastError, InputError
from barkfast.jobs import FineJob, Job
from barkfast.options import Request
from barkfast.runtime.sampling import Randomness
from barkfast.stages.coarse import CoarseWindows, unflatten_codes
from barkfast.stages.fine import HOP, MAX_HOP, FineWindows, LiveFineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.watermark import Marker

STAGES = ("semantic", "coarse", "fine", "codec")
# Frames that a stream decodes at a time: few at first, so that audio starts early, then about a second.
FIRST_FRAMES, FRAMES = 24, 72


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Tokens for the decoder of `stage` (semantic or coarse) to draw.

    Args:
        windows: what the tokens of a coarse window are appended to.
    """

    stage: str
    job: Job
    windows: CoarseWindows | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Refine:
    """A window for the fine network to fill.

    Args:
        windows: what the filled window is appended to.
    """

    stage: ClassVar[str] = "fine"
    job: FineJob
    windows: FineWindows | LiveFineWindows


@dataclass(frozen=True, slots=True, eq=False)
class Synthesize:
    """Codes for the codec to turn into samples.

    Args:
        codes: (codebooks, frames) int32; the last of a stream may have no frames.
        whole: the whole clip at once, instead of the next frames of a stream.
        last: no codes follow.
    """

    stage: ClassVar[str] = "codec"
    codes: np.ndarray
    whole: bool
    last: bool


Work = Decode | Refine | Synthesize


class Utterance:
    """The state of one request, or of a single stage. Hands out work and takes results; calls no network itself.

    At most one piece of work per stage is in progress; work of several stages may be. A stream synthesizes its first
    tokens before the last are drawn where `overlap` says that this changes no token. An utterance ends once: with a
    result, with an error, or cancelled.

    Args:
        request: what to generate; None for a single stage, `start`.
        text_ids: (n,) token ids of the request's text, as many as fit; None where it has semantic tokens.
        start: run one stage only: a semantic Job, coarse or fine windows, or the (codebooks, frames) codes to decode.
        overlap: stages may overlap, because each counts its random numbers separately.
        prefetched: the consumer still receives the segment before this one. The caller resets it when that has ended.
        continues_stream: the stream that it belongs to has started, so that it is not queued.
        clock: monotonic seconds.

    Raises:
        InputError, VoiceError: the model of `layout` cannot speak this request.
    """

    def __init__(
        self,
        request: Request | None,
        layout: Layout,
        text_ids: np.ndarray | None = None,
        *,
        start: Job | CoarseWindows | FineWindows | np.ndarray | None = None,
        overlap: bool = False,
        prefetched: bool = False,
        continues_stream: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = layout
        self.stages: tuple[str, ...] = STAGES
        self.streams = self.live = self.overlap = False
        self.result: Any = None
        self.error: BarkfastError | None = None
        self.cancelled = False
        self.n_samples = 0
        self.first_chunk_at: float | None = None
        # Set by the scheduler: order of arrival; whether no new work may start; and per stage the engine that runs it,
        # and why that is not the chosen one.
        self.arrival, self.parked = 0, False
        self.engines: dict[str, str] = {}
        self.fallbacks: dict[str, str] = {}
        self.prefetched, self.continues_stream = prefetched, continues_stream
        self._clock = clock
        self._timings = dict.fromkeys(STAGES, 0.0)
        # When its first work started.
        self.began_s: float | None = None
        # Stages whose work is handed out, and when it started.
        self._handed_out: set[str] = set()
        self._started: dict[str, float] = {}
        self._semantic: list[int] = []
        self._n_semantic = 0
        self._semantic_job: Job | None = None
        self._window: list[int] = []
        self._n_windows_done = self._n_windows = 0
        self._coarse: CoarseWindows | None = None
        self._fine: FineWindows | LiveFineWindows | None = None
        self._frame: list[int] = []
        self._codes: np.ndarray | None = None
        self._n_pushed = 0
        self._audio: list[np.ndarray] = []
        self._marker = Marker(layout.sample_rate) if request is not None and request.watermark else None
        if request is None:
            self._start_stage(start)
        else:
            self.request = request
            self._start_request(request, text_ids, overlap)

    def _start_stage(self, start: Job | CoarseWindows | FineWindows | np.ndarray | None) -> None:
        self.priority, self.deadline = 0, math.inf
        if isinstance(start, Job):
            self.stages, self._semantic_job, self._n_semantic = ("semantic",), start, start.steps
        elif isinstance(start, CoarseWindows):
            self.stages, self._coarse = ("coarse",), start
        elif isinstance(start, FineWindows):
            self.stages, self._fine = ("fine",), start
        else:
            self.stages, self._codes = ("codec",), start

    def _start_request(self, request: Request, text_ids: np.ndarray | None, overlap: bool) -> None:
        request.check(self.layout)
        self.priority = int(request.priority)
        self.deadline = math.inf if request.deadline is None else float(request.deadline)
        self.streams = request.stream != "off"
        self.live = request.stream == "low_latency"
        self.overlap = overlap and self.streams
        self._random = Randomness.of(request.seed)
        if self.live:
            self._fine = self._live_windows()
        if request.semantic is not None:
            self._semantic = request.semantic.tolist()
            self._n_semantic = len(self._semantic)
            self._end_semantic()
        elif text_ids is not None:
            self._semantic_job = self._make_semantic_job(text_ids)
            self._n_semantic = self._semantic_job.steps
        if self.overlap and self._coarse is None:
            self._coarse = self._coarse_windows(final=False)

    # --- for the scheduler

    @property
    def ended(self) -> bool:
        """Whether it has a result or an error, or was cancelled."""
        return self.cancelled or self.result is not None or self.error is not None

    @property
    def awaits_first_audio(self) -> bool:
        """Whether it is a stream whose consumer waits for the first samples."""
        return self.streams and not self.prefetched and self.first_chunk_at is None

    @property
    def due(self) -> float:
        """When it should be served at the latest: its deadline, or earlier when a stream's audio so far has played."""
        if self.first_chunk_at is None:
            return self.deadline
        return min(self.deadline, self.first_chunk_at + self.n_samples / self.layout.sample_rate)

    def progress(self, stage: str) -> tuple[int, int]:
        """Semantic tokens or windows that are done, and how many there may be; (0, 0) where there is none."""
        if stage == "semantic" and stage in self.stages:
            return len(self._semantic), self._n_semantic
        if stage == "coarse" and stage in self.stages:
            return self._n_windows_done, self._n_windows if self._coarse is None else self._coarse.n_windows
        if self.stages == ("fine",) == (stage,) and isinstance(self._fine, FineWindows):
            return self._fine.n_done, self._fine.n_windows
        return 0, 0

    def has_more(self, stage: str) -> bool:
        """Whether the decoder of `stage` has, or will have, more to do for it."""
        if self.ended or stage not in self.stages:
            return False
        if stage == "semantic":
            return self._semantic_job is not None
        return self._coarse is None or not self._coarse.done

    def next_work(self) -> Work | None:
        """The next work that was not handed out yet; None if it waits for work in progress."""
        if self.ended:
            return None
        # What is nearest to audio first.
        makers: tuple[tuple[str, Callable[[], Work | None]], ...] = (
            ("codec", self._next_codes),
            ("fine", self._next_fine_window),
            ("coarse", self._next_coarse_window),
            ("semantic", self._next_semantic_job),
        )
        for stage, make in makers:
            if stage not in self._handed_out and stage in self.stages and (work := make()) is not None:
                self._handed_out.add(stage)
                return work
        return None

    def begin(self, work: Work) -> None:
        """Note that `work` starts now."""
        self._started[work.stage] = now = self._clock()
        self.began_s = now if self.began_s is None else self.began_s

    def take_token(self, work: Decode, token: int) -> None:
        """Take the next token of a Decode in progress. Raises: InputError."""
        if work.stage == "semantic":
            self._semantic.append(token)
            if self.overlap and self._coarse is not None:
                self._coarse.grow(np.array([token], np.int32))
            return
        self._window.append(token)
        if isinstance(self._fine, LiveFineWindows):
            self._frame.append(token)
            if len(self._frame) == self.layout.coarse.n_codebooks:
                self._fine.grow(unflatten_codes(np.array(self._frame, np.int32), self.layout))
                self._frame.clear()

    def take(self, work: Work, result: np.ndarray | None = None) -> None:
        """Take the end of `work`: the filled window of a Refine, the samples of a Synthesize, None for a Decode.

        Raises:
            InputError: the stage gave nothing that the next one can use.
        """
        self._timings[work.stage] += self._clock() - self._started.pop(work.stage)
        self._handed_out.discard(work.stage)
        if isinstance(work, Decode):
            self._end_job(work)
        elif result is None:
            raise InputError(f"work of the {work.stage} stage ended without a result; expected a numpy array")
        elif isinstance(work, Refine):
            work.windows.append(result)
            if self.stages == ("fine",) and work.windows.done:
                self.result = work.windows.codes()
        else:
            self._take_samples(result, work.last)

    def mark(self, samples: np.ndarray, last: bool) -> np.ndarray:
        """The samples to hand out for (n,) new ones, `last` if none follow: the same, unless they are to be marked."""
        if self._marker is None:
            return samples
        marked = self._marker.add(samples)
        return np.concatenate([marked, self._marker.finish()]) if last else marked

    def fail(self, error: BarkfastError) -> None:
        """End with an error."""
        self.error = error
        self._forget()

    def cancel(self) -> None:
        """End without a result."""
        self.cancelled = True
        self._forget()

    # --- the stages

    def _make_semantic_job(self, text_ids: np.ndarray) -> Job:
        request, layout = self.request, self.layout
        return semantic_job(
            text_ids,
            layout,
            request.text_sampling,
            history=None if request.voice is None else request.voice["semantic_prompt"],
            min_eos_p=layout.semantic.min_eos_p if request.min_eos_p == "auto" else request.min_eos_p,
            max_duration_s=request.max_duration_s,
            random=self._random,
        )

    def _next_semantic_job(self) -> Decode | None:
        return None if self._semantic_job is None else Decode("semantic", self._semantic_job)

    def _end_job(self, work: Decode) -> None:
        if work.windows is None:
            self._semantic_job = None
            self._end_semantic()
            return
        work.windows.append(np.array(self._window, np.int32))
        self._n_windows_done += 1
        self._n_windows = work.windows.n_windows
        self._window.clear()
        self._end_coarse_if_done(work.windows)

    def _end_semantic(self) -> None:
        tokens = np.array(self._semantic, dtype=np.int64)
        if self.stages == ("semantic",):
            self.result = tokens
            return
        check_tokens("semantic tokens", tokens, 1, self.layout.semantic.vocab_size)
        coarse = self._coarse
        if coarse is None:
            coarse = self._coarse = self._coarse_windows(final=True)
        else:
            coarse.grow(tokens[:0], final=True)
        self._end_coarse_if_done(coarse)

    def _coarse_windows(self, final: bool) -> CoarseWindows:
        voice = self.request.voice
        return CoarseWindows(
            np.array(self._semantic, dtype=np.int64),
            self.layout,
            self.request.waveform_sampling,
            history=None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"]),
            random=self._random,
            final=final,
        )

    def _next_coarse_window(self) -> Decode | None:
        job = None if self._coarse is None else self._coarse.next_job()
        return None if job is None else Decode("coarse", job, self._coarse)

    def _end_coarse_if_done(self, coarse: CoarseWindows) -> None:
        if not coarse.done:
            return
        if self.stages == ("coarse",):
            self.result = coarse.codes()
            return
        if isinstance(self._fine, LiveFineWindows):
            self._fine.grow(np.zeros((self.layout.coarse.n_codebooks, 0), np.int32), final=True)
        else:
            voice = self.request.voice
            self._fine = FineWindows(
                coarse.codes(),
                self.layout,
                self.request.fine_sampling,
                history=None if voice is None else voice["fine_prompt"],
                random=self._random,
            )

    def _live_windows(self) -> LiveFineWindows:
        voice = self.request.voice
        return LiveFineWindows(
            self.layout,
            self.request.fine_sampling,
            None if voice is None else voice["fine_prompt"],
            hop=HOP,
            max_hop=MAX_HOP,
            # A generator of its own: where stages share one, the coarse tokens would differ from those of other modes.
            random=Randomness(self._random.seed),
        )

    def _next_fine_window(self) -> Refine | None:
        fine = self._fine
        job = None if fine is None else fine.next_job()
        return None if fine is None or job is None else Refine(job, fine)

    def _next_codes(self) -> Synthesize | None:
        if self._codes is not None:
            return Synthesize(self._codes, whole=True, last=True)
        if self._fine is None:
            return None
        done, n_final = self._fine.done, self._fine.n_final
        if not self.streams:
            return Synthesize(self._fine.codes(), whole=True, last=True) if done else None
        start = self._n_pushed
        end = min(n_final, start + (FRAMES if start else FIRST_FRAMES))
        if start == end and not done:
            return None
        self._n_pushed = end
        return Synthesize(self._fine.codes()[:, start:end], whole=False, last=done and end == n_final)

    def _take_samples(self, samples: np.ndarray, last: bool) -> None:
        self._audio.append(samples)
        self.n_samples += len(samples)
        if self.streams and self.first_chunk_at is None and len(samples):
            self.first_chunk_at = self._clock()
        if not last:
            return
        if self._coarse is None or self._fine is None:
            # The codec alone was asked for.
            self.result = samples
            return
        self.result = Generation(
            samples if len(self._audio) == 1 else np.concatenate(self._audio),
            self.layout.sample_rate,
            np.array(self._semantic, dtype=np.int64),
            self._coarse.codes(),
            self._fine.codes(),
            self._timings,
            dict(self.engines),
            dict(self.fallbacks),
        )
        self._forget()

    def _forget(self) -> None:
        self._coarse = self._fine = self._semantic_job = None
        self._audio = []
