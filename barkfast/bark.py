"""The pipeline: text -> semantic tokens -> coarse codes -> fine codes -> waveform, for one request or many."""

import inspect
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.engine.desk import Desk, Place
from barkfast.engine.generation import Generation
from barkfast.engine.request import Request, Streaming
from barkfast.errors import BarkfastError, InputError
from barkfast.parts import PARTS, Parts
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.stages.check import check_tokens
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import Overflow, check_overflow, check_text, fit_text
from barkfast.voices import check_voice, load_voice, save_voice
from barkfast.weights import Checkpoint

Voice = str | os.PathLike[str] | Mapping[str, np.ndarray]
# Slots that a batch makes where there are fewer, if it has as many requests.
BATCH_SLOTS = 8


class Bark:
    """A Bark model, ready to speak.

    Args:
        model: a name or path: a hub id ("suno/bark", "suno/bark-small"), a folder, "demo", "random:nano".
            None for $BARKFAST_MODEL, else Suno's models as `bark` finds them.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16, float16, int8 (matrices; cpu and cuda engines), int4 (matrices; cpu engine).
        engine: auto, torch, cpu or cuda; `barkfast info` says which are present.
        small: the small networks, where the model has both.
        codec: a file or folder with EnCodec's weights; None for the model's own, else wherever they are found.
        tokenizer: a folder, tokenizer.json or vocab.txt.
        voices: a folder of further voices.
        n_slots: utterances at a time, 1 to 64; each takes memory for its cache. Batches make more where they need it.

    Networks are loaded when first needed, or all at once by `load()`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        engine: str = "auto",
        small: bool = False,
        codec: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        voices: str | os.PathLike[str] | None = None,
        n_slots: int = 1,
    ) -> None:
        self.parts = Parts(
            model,
            device=device,
            dtype=dtype,
            engine=engine,
            small=small,
            codec=codec,
            tokenizer=tokenizer,
            n_slots=n_slots,
        )
        self._voices = voices
        self._desk = Desk(self.parts)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the weights, tokenizer and voices come from."""
        return self.parts.checkpoint()

    @property
    def layout(self) -> Layout:
        """Token ids, rates and window lengths of the model."""
        return self.checkpoint.layout

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self.layout.sample_rate

    def load(self) -> None:
        """Load all four networks now."""
        for part in PARTS:
            self.parts.load(part)

    def load_voice(self, voice: Voice | None, parts: tuple[str, ...]) -> Mapping[str, np.ndarray] | None:
        """Find a voice by name, path or dict, and check the parts of it that are going to be used."""
        if voice is None:
            return None
        prompt = load_voice(voice, self.checkpoint, self._voices)
        if prompt is not None:
            check_voice(prompt, self.layout, parts)
        return prompt

    def save_voice(self, path: str | os.PathLike[str], generation: Generation) -> None:
        """Save an utterance as a voice, an .npz that `voice=` and the reference's `history_prompt=` take."""
        save_voice(path, generation.prompt)

    def generate(
        self,
        text: str,
        voice: Voice | None = None,
        *,
        seed: Seed = None,
        text_temp: float | None = 0.7,
        waveform_temp: float | None = 0.7,
        fine_temp: float | None = 0.5,
        top_k: int | None = None,
        top_p: float | None = None,
        min_eos_p: float | None | Literal["auto"] = "auto",
        max_duration_s: float | None = None,
        overflow: Overflow = "cut",
        silent: bool = True,
    ) -> Generation:
        """Speak `text`.

        Args:
            text: up to 256 tokens, about 13 seconds of speech.
            voice: a name ("v2/en_speaker_6"), an .npz file, or a dict of the three prompts.
            seed: the same seed gives the same audio; None draws from torch's global generator.
            text_temp, waveform_temp, fine_temp: temperature of each stage; 0 is greedy.
            top_k, top_p: filters for the semantic and coarse stage; None is off.
            min_eos_p: end when the end token is this likely; "auto" for the model's value, None for only when drawn.
            max_duration_s: end after this many seconds.
            overflow: "cut" a text of more than 256 tokens, with a warning, or raise an "error".
            silent: no progress bars.
        """
        request = self.request(
            text,
            voice,
            seed=Randomness.of(seed),
            text_temp=text_temp,
            waveform_temp=waveform_temp,
            fine_temp=fine_temp,
            top_k=top_k,
            top_p=top_p,
            min_eos_p=min_eos_p,
            max_duration_s=max_duration_s,
            overflow=overflow,
        )
        if self._desk.busy:
            # A batch or a stream is under way, and this joins it.
            return self.generate_batch([request])[0]
        self.load()
        # Not beside an engine: its thread steps the same decoders.
        with self.parts.claimed():
            return self._speak(request, silent)

    def _speak(self, request: Request, silent: bool) -> Generation:
        """One stage after the other."""
        timings: dict[str, float] = {}

        def timed(stage: str, work: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = work(*args, **kwargs)
            timings[stage] = time.perf_counter() - start
            return result

        semantic = timed(
            "semantic",
            self.generate_semantic,
            request.text,
            request.voice,
            request.text_sampling,
            min_eos_p=request.min_eos_p,
            max_duration_s=request.max_duration_s,
            overflow=request.overflow,
            seed=request.seed,
            silent=silent,
        )
        coarse = timed(
            "coarse",
            self.generate_coarse,
            semantic,
            request.voice,
            request.waveform_sampling,
            seed=request.seed,
            silent=silent,
        )
        fine = timed(
            "fine",
            self.generate_fine,
            coarse,
            request.voice,
            request.fine_sampling,
            seed=request.seed,
        )
        audio = timed("codec", self.decode, fine)
        return Generation(audio, self.sample_rate, semantic, coarse, fine, timings)

    def request(
        self,
        text: str | None = None,
        voice: Voice | None = None,
        *,
        seed: Seed = None,
        text_temp: float | None = 0.7,
        waveform_temp: float | None = 0.7,
        fine_temp: float | None = 0.5,
        top_k: int | None = None,
        top_p: float | None = None,
        min_eos_p: float | None | Literal["auto"] = "auto",
        max_duration_s: float | None = None,
        overflow: Overflow = "cut",
        stream: Streaming = "off",
        priority: int = 0,
        deadline: float | None = None,
        semantic: np.ndarray | None = None,
    ) -> Request:
        """Check the arguments of `generate`, read the voice, and make a request of them, for an engine to speak.

        No network is loaded, and any thread may call it. Args: as `generate`; the others as Request.
        """
        text_sampling, waveform_sampling = Sampling(text_temp, top_k, top_p), Sampling(waveform_temp, top_k, top_p)
        request = partial(
            Request,
            text,
            text_sampling=text_sampling,
            waveform_sampling=waveform_sampling,
            fine_sampling=Sampling(fine_temp),
            min_eos_p=min_eos_p,
            max_duration_s=max_duration_s,
            overflow=overflow,
            seed=seed,
            stream=stream,
            priority=priority,
            deadline=deadline,
            semantic=semantic,
        )
        # What costs nothing to see is refused before the voice is looked for.
        request()
        return request(voice=self.load_voice(voice, ("semantic", "coarse", "fine")))

    def generate_batch(
        self,
        requests: Sequence[str | Mapping[str, Any] | Request],
        *,
        keep_errors: bool = False,
        **defaults: Any,
    ) -> list[Any]:
        """Speak several texts side by side: the tokens are those that `generate` gives each alone.

        Args:
            requests: texts, or dicts of `request`'s arguments; any number, of which a few are under way at a time.
            keep_errors: leave the exception of one that fails in its place, instead of raising the first once all
                others are done.
            defaults: arguments for all, where an item does not have its own.

        Where there is no seed, torch's global generator rules: on the torch engine, which draws from it token by token,
        company then changes the tokens.

        Returns: a Generation for each.
        """
        if isinstance(requests, str) or not isinstance(requests, Sequence):
            raise InputError(f"requests is a {type(requests).__name__}; expected a list of texts or dicts")
        if not requests:
            return []
        with self.scheduler(min(len(requests), BATCH_SLOTS)) as place:
            results = place.run(partial(self._make_request, item, defaults) for item in requests)
        for result in results:
            if isinstance(result, BarkfastError) and not keep_errors:
                raise result
        return results

    def _make_request(self, item: Any, defaults: Mapping[str, Any]) -> Request:
        """One item of a batch as a request."""
        if isinstance(item, Request):
            return item
        given = {"text": item} if isinstance(item, str) else item
        if not isinstance(given, Mapping):
            raise InputError(f"a request is {item!r}; expected a text, or a dict of arguments of Bark.request")
        options: dict[str, Any] = {**defaults, **given}
        known = inspect.signature(self.request).parameters
        unknown = [name for name in options if name not in known]
        if unknown:
            raise InputError(f"unknown arguments {', '.join(map(repr, unknown))}; expected some of {', '.join(known)}")
        return self.request(**options)

    def stream(
        self,
        text: str | None = None,
        voice: Voice | None = None,
        *,
        mode: Literal["exact", "low_latency"] = "exact",
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """Speak `text` and hand out its (n,) float32 samples as they come; closing the iterator ends the work.

        Args:
            mode: "exact" for the samples that `generate` gives, which begin when the fine network has seen all of the
                text; "low_latency" for sound after about half a second of speech, with other fine codes.
            options: as `request`.

        Work is done while the next chunk is asked for, and not between. Of several sentences the first is heard sooner
        through `generate_long` with `each_sentence=True`.

        Errors: InputError and VoiceError at once; what else becomes of the request, where its samples would have come.
        """
        if mode not in ("exact", "low_latency"):
            raise InputError(f"mode is {mode!r}; expected 'exact' or 'low_latency'")
        return self._listen(self.request(text, voice, stream=mode, **options))

    def _listen(self, request: Request) -> Iterator[np.ndarray]:
        with self.scheduler() as place:
            yield from place.listen(request)

    def scheduler(self, n_slots: int | None = None) -> Place:
        """A place at this model's scheduler, which all batches and streams share; use it in a `with` block.

        It has the methods of barkfast.engine.scheduler.Scheduler, and shows what was added there and no more.

        Args:
            n_slots: utterances at a time, if nobody else has a place yet; None for what there are.
        """
        return self._desk.open(self.parts.n_slots if n_slots is None else n_slots)

    def generate_long(
        self, text: str | Iterable[str], voice: Voice | None = None, **options: Any
    ) -> Iterator[np.ndarray]:
        """Speak a text of any length, sentence by sentence: (n,) float32 samples as they come, in constant memory.

        Args and errors: as barkfast.longform.speak_long.
        """
        from barkfast.longform.speech import speak_long

        return speak_long(self, text, voice, **options)

    def generate_script(
        self,
        script: str | Iterable[str] | Iterable[tuple[str, str]],
        voices: Mapping[str, Voice | None],
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """Speak a dialogue, a voice per speaker: (n,) float32 samples as they come, in constant memory.

        Args and errors: as barkfast.longform.speak_script.
        """
        from barkfast.longform.speech import speak_script

        return speak_script(self, script, voices, **options)

    def generate_semantic(
        self,
        text: str,
        voice: Voice | None = None,
        sampling: Sampling = Sampling(0.7),
        *,
        min_eos_p: float | None | Literal["auto"] = "auto",
        max_duration_s: float | None = None,
        allow_early_stop: bool = True,
        overflow: Overflow = "cut",
        seed: Seed = None,
        silent: bool = True,
    ) -> np.ndarray:
        """Text to (n,) int64 semantic tokens."""
        text = check_text(text)
        check_overflow(overflow)
        prompt = self.load_voice(voice, ("semantic",))
        with self.parts.using("text") as decoder:
            tokenizer = self.parts.models["text"]["tokenizer"]
            job = semantic_job(
                np.array(fit_text(text, tokenizer, self.layout.semantic.n_slots, overflow), dtype=np.int32),
                self.layout,
                sampling,
                history=None if prompt is None else prompt["semantic_prompt"],
                min_eos_p=self.layout.semantic.min_eos_p if min_eos_p == "auto" else min_eos_p,
                max_duration_s=max_duration_s,
                allow_early_stop=allow_early_stop,
                random=Randomness.of(seed),
            )
            with _progress(self.layout.semantic.max_steps, silent) as bar:
                (tokens,) = decoder.run([job], on_token=lambda _, n: bar.update(n - bar.n))
                bar.total = len(tokens)
                bar.refresh()
        return tokens.astype(np.int64)

    def generate_coarse(
        self,
        semantic: np.ndarray,
        voice: Voice | None = None,
        sampling: Sampling = Sampling(0.7),
        *,
        max_history: int | None = None,
        sliding_window: int | None = None,
        max_duration_s: float | None = None,
        seed: Seed = None,
        silent: bool = True,
    ) -> np.ndarray:
        """Semantic tokens (n,) to (2, frames) int32 codes."""
        check_tokens("semantic tokens", semantic, 1, self.layout.semantic.vocab_size)
        prompt = self.load_voice(voice, ("semantic", "coarse"))
        windows = CoarseWindows(
            semantic,
            self.layout,
            sampling,
            history=None if prompt is None else (prompt["semantic_prompt"], prompt["coarse_prompt"]),
            max_history=max_history,
            sliding_window=sliding_window,
            max_duration_s=max_duration_s,
            random=Randomness.of(seed),
        )
        with self.parts.using("coarse") as decoder, _progress(windows.n_windows, silent) as bar:
            while (job := windows.next_job()) is not None:
                windows.append(decoder.run([job])[0])
                bar.update(1)
        return windows.codes()

    def generate_fine(
        self,
        coarse: np.ndarray,
        voice: Voice | None = None,
        sampling: Sampling = Sampling(0.5),
        *,
        seed: Seed = None,
        silent: bool = True,
    ) -> np.ndarray:
        """The first n codebooks (n, frames) to (8, frames) int32 codes."""
        check_tokens("coarse codes", coarse, 2, self.layout.codebook_size)
        n_codebooks = self.layout.fine.n_codebooks
        if not 1 <= len(coarse) < n_codebooks:
            raise InputError(f"coarse codes have {len(coarse)} codebooks; expected 1 to {n_codebooks - 1}")
        prompt = self.load_voice(voice, ("fine",))
        history = None if prompt is None else prompt["fine_prompt"]
        windows = FineWindows(coarse, self.layout, sampling, history=history, random=Randomness.of(seed))
        with self.parts.using("fine") as refiner, _progress(windows.n_windows, silent) as bar:
            while (job := windows.next_job()) is not None:
                windows.append(refiner.refine(job))
                bar.update(1)
        return windows.codes()

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (up to 8 codebooks, frames) to (samples,) float32 audio."""
        check_tokens("codes", codes, 2, self.layout.codebook_size)
        with self.parts.using("codec") as codec:
            return codec.decode(codes)


def _progress(total: int, silent: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, disable=silent)
