"""One request under way: what is to be done for it next, and what came of it so far."""

import math
import time
from collections.abc import Callable

import numpy as np

from barkfast.config import Layout
from barkfast.engine.generation import Generation
from barkfast.engine.request import Request
from barkfast.engine.task import Task
from barkfast.engine.work import Decode, Refine, Synthesize, Work
from barkfast.jobs import Job
from barkfast.runtime.sampling import Randomness
from barkfast.stages.check import check_tokens
from barkfast.stages.coarse import CoarseWindows, unflatten_codes
from barkfast.stages.fine import HOP, MAX_HOP, FineWindows, LiveFineWindows
from barkfast.stages.semantic import semantic_job

# Frames decoded at once in a stream: a first piece that is soon there, and then about a second.
FIRST_PIECE, PIECE = 24, 72


class Utterance(Task):
    """The state of one request: hands out work and takes its results; calls no network itself.

    Per stage one piece of work is under way at most; of different stages several may be. Streams voice the first
    tokens before the last are drawn, where `early` says that this changes none.

    Args:
        text_ids: (n,) the tokenizer's ids of the request's text, those that fit; None where it has semantic tokens.
        early: whether stages may overlap, for their random numbers are counted separately.
        arrival: its number in the order of arrival.
        clock: seconds that only grow.
    Errors: InputError or VoiceError for a request that this model cannot speak.
    """

    def __init__(
        self,
        request: Request,
        layout: Layout,
        text_ids: np.ndarray | None = None,
        *,
        early: bool = False,
        arrival: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        request.check(layout)
        super().__init__(arrival, int(request.priority))
        self.request, self.layout = request, layout
        self.streams = request.stream != "off"
        self.live = request.stream == "low_latency"
        self.early = early and self.streams
        self.n_samples = 0
        self.first_chunk_at: float | None = None
        self._clock = clock
        self._random = Randomness.of(request.seed)
        self._timings = dict.fromkeys(("semantic", "coarse", "fine", "codec"), 0.0)
        # Stages whose work is handed out, and since when it is being done.
        self._asked: set[str] = set()
        self._since: dict[str, float] = {}
        self._semantic: list[int] = []
        self._semantic_job: Job | None = None
        self._window: list[int] = []
        self._n_windows_done = self._n_windows = 0
        self._coarse: CoarseWindows | None = None
        self._fine: FineWindows | LiveFineWindows | None = None
        self._frame: list[int] = []
        self._n_pushed = 0
        self._audio: list[np.ndarray] = []
        if self.live:
            self._fine = self._live_windows()
        if request.semantic is not None:
            self._semantic = request.semantic.tolist()
            self._end_semantic()
        elif text_ids is not None:
            self._semantic_job = self._make_semantic_job(text_ids)
        if self.early and self._coarse is None:
            self._coarse = self._coarse_windows(final=False)

    # --- for the scheduler

    @property
    def generation(self) -> Generation | None:
        """What came of it, once it has ended well."""
        return self.result

    @property
    def awaits_sound(self) -> bool:  # type: ignore[override]
        return self.streams and not self.follows and self.first_chunk_at is None

    @property
    def due(self) -> float:
        """The request's deadline; of a stream that is being heard moreover when what it has handed out was played."""
        due = math.inf if self.request.deadline is None else float(self.request.deadline)
        if self.first_chunk_at is not None:
            due = min(due, self.first_chunk_at + self.n_samples / self.layout.sample_rate)
        return due

    def progress(self, stage: str) -> tuple[int, int]:
        if stage == "semantic":
            return len(self._semantic), self.layout.semantic.max_steps
        if stage == "coarse":
            return self._n_windows_done, self._n_windows if self._coarse is None else self._coarse.n_windows
        return 0, 0

    def goes_on(self, stage: str) -> bool:
        if self.ended:
            return False
        if stage == "semantic":
            return self._semantic_job is not None
        return self._coarse is None or not self._coarse.done

    def next_work(self) -> Work | None:
        if self.ended:
            return None
        # What is nearest to sound first.
        makers: tuple[tuple[str, Callable[[], Work | None]], ...] = (
            ("codec", self._next_codes),
            ("fine", self._next_fine_window),
            ("coarse", self._next_coarse_window),
            ("semantic", self._next_semantic_job),
        )
        for stage, make in makers:
            if stage not in self._asked and (work := make()) is not None:
                self._asked.add(stage)
                return work
        return None

    def begin(self, work: Work) -> None:
        self._since[work.stage] = self._clock()

    def take_token(self, work: Decode, token: int) -> None:
        if work.stage == "semantic":
            self._semantic.append(token)
            if self.early and self._coarse is not None:
                self._coarse.grow(np.array([token], np.int32))
            return
        self._window.append(token)
        if isinstance(self._fine, LiveFineWindows):
            self._frame.append(token)
            if len(self._frame) == self.layout.coarse.n_codebooks:
                self._fine.grow(unflatten_codes(np.array(self._frame, np.int32), self.layout))
                self._frame.clear()

    def take(self, work: Work, result: np.ndarray | None = None) -> None:
        self._timings[work.stage] += self._clock() - self._since.pop(work.stage)
        self._asked.discard(work.stage)
        if work.stage == "semantic":
            self._semantic_job = None
            self._end_semantic()
        elif work.stage == "coarse":
            assert self._coarse is not None
            self._coarse.append(np.array(self._window, np.int32))
            self._n_windows_done += 1
            self._n_windows = self._coarse.n_windows
            self._window.clear()
            self._end_coarse_if_done()
        elif isinstance(work, Refine):
            assert self._fine is not None and result is not None
            self._fine.append(result)
        elif isinstance(work, Synthesize):
            assert result is not None
            self._take_samples(result, work.last)

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

    def _end_semantic(self) -> None:
        tokens = np.array(self._semantic, dtype=np.int64)
        check_tokens("semantic tokens", tokens, 1, self.layout.semantic.vocab_size)
        if self._coarse is None:
            self._coarse = self._coarse_windows(final=True)
        else:
            self._coarse.grow(tokens[:0], final=True)
        self._end_coarse_if_done()

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
        return None if job is None else Decode("coarse", job)

    def _end_coarse_if_done(self) -> None:
        assert self._coarse is not None
        if not self._coarse.done:
            return
        if isinstance(self._fine, LiveFineWindows):
            self._fine.grow(np.zeros((self.layout.coarse.n_codebooks, 0), np.int32), final=True)
        else:
            voice = self.request.voice
            self._fine = FineWindows(
                self._coarse.codes(),
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
            # Its own: where the stages share a generator, the coarse tokens would not be those of any other mode.
            random=Randomness(self._random.seed),
        )

    def _next_fine_window(self) -> Refine | None:
        job = None if self._fine is None else self._fine.next_job()
        return None if job is None else Refine(job)

    @property
    def _fine_done(self) -> bool:
        if isinstance(self._fine, LiveFineWindows):
            return self._fine.done
        return self._fine is not None and self._fine.n_done == self._fine.n_windows

    def _next_codes(self) -> Synthesize | None:
        if self._fine is None:
            return None
        done, n_final = self._fine_done, self._fine.n_final
        if not self.streams:
            return Synthesize(self._fine.codes(), whole=True, last=True) if done else None
        start = self._n_pushed
        end = min(n_final, start + (PIECE if start else FIRST_PIECE))
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
        assert self._coarse is not None and self._fine is not None
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
