"""A Bark model: a text, a batch, a stream, a book, a dialogue. Forwards to the engine."""

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from barkfast import single_stages
from barkfast.components import Components
from barkfast.config import Layout, Sampling
from barkfast.engine.long import Sound, speak_batch, speak_live, speak_long, speak_script
from barkfast.engine.request import Generation, Request, Streaming
from barkfast.engine.segments import check_mode
from barkfast.engine.shared import Model, Session, Voice
from barkfast.runtime.sampling import Seed
from barkfast.text import Overflow
from barkfast.voices import PARTS, save_voice
from barkfast.weights import Checkpoint


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

    Networks are loaded when first needed, or all at once by `load()`. Any thread may call any method: calls share the
    networks, and each gives what it gives alone. Errors: EngineError while an `Engine` has this model.
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
        components = Components(
            model,
            device=device,
            dtype=dtype,
            engine=engine,
            small=small,
            codec=codec,
            tokenizer=tokenizer,
            n_slots=n_slots,
        )
        self.model = Model(components, voices)

    @property
    def components(self) -> Components:
        """The four networks."""
        return self.model.components

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the weights, tokenizer and voices come from."""
        return self.model.checkpoint

    @property
    def layout(self) -> Layout:
        """Token ids, rates and window lengths of the model."""
        return self.model.layout

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self.layout.sample_rate

    def load(self) -> None:
        """Load all four networks now."""
        self.model.load()

    def load_voice(self, voice: Voice | None, stages: tuple[str, ...] = PARTS) -> Mapping[str, np.ndarray] | None:
        """Find a voice by name, path or dict, and check the arrays that `stages` use. Raises: VoiceError."""
        return self.model.load_voice(voice, stages)

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
            seed=seed,
            text_temp=text_temp,
            waveform_temp=waveform_temp,
            fine_temp=fine_temp,
            top_k=top_k,
            top_p=top_p,
            min_eos_p=min_eos_p,
            max_duration_s=max_duration_s,
            overflow=overflow,
        )
        return single_stages.run_request(self.model, request, silent)

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
        return self.model.request(
            text,
            voice,
            seed=seed,
            text_temp=text_temp,
            waveform_temp=waveform_temp,
            fine_temp=fine_temp,
            top_k=top_k,
            top_p=top_p,
            min_eos_p=min_eos_p,
            max_duration_s=max_duration_s,
            overflow=overflow,
            stream=stream,
            priority=priority,
            deadline=deadline,
            semantic=semantic,
        )

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
        return speak_batch(self.model, requests, keep_errors, defaults)

    def stream(
        self,
        text: str | Iterable[str] | None = None,
        voice: Voice | None = None,
        *,
        mode: Literal["exact", "low_latency"] = "exact",
        each_sentence: bool = True,
        **options: Any,
    ) -> Sound:
        """Speak a text of any length and hand out its (n,) float32 samples as they come, in constant memory.

        Args:
            text: a str, or an iterable of them that is read as it is needed.
            voice: as in `generate`; without one, the first sentence's is kept for the rest.
            mode: "exact" for the samples that `generate` gives each sentence, which begin when the fine network has
                seen all of it; "low_latency" for sound after about half a second of speech, with other fine codes.
            each_sentence: speak sentence by sentence; False for one utterance, of up to 256 tokens. Semantic tokens
                (`semantic=`) are one utterance.
            options: as `request`, and those of `barkfast.engine.long.speak_live`: language, chained, on_piece.

        Work is done while the next chunk is asked for, and not between; closing the iterator ends it.

        Errors: InputError and VoiceError at once; what becomes of a sentence, where its samples would have come.
        """
        if each_sentence and options.get("semantic") is None:
            return Sound(speak_live(self.model, text, voice, mode=mode, **options))  # type: ignore[arg-type]
        check_mode(mode)
        return Sound(self._stream(self.request(text, voice, stream=mode, **options)))  # type: ignore[arg-type]

    def _stream(self, request: Request) -> Generator[np.ndarray, None, None]:
        with self.scheduler() as session:
            yield from session.stream(request)

    def scheduler(self, n_slots: int | None = None) -> Session:
        """A session of this model's scheduler, which all calls share; use it in a `with` block.

        It has the methods of barkfast.engine.scheduler.Scheduler, and shows what was added there and no more.

        Args:
            n_slots: utterances at a time, if nobody else has a session yet; None for what there are.
        """
        return self.model.scheduler(n_slots)

    def generate_long(self, text: str | Iterable[str], voice: Voice | None = None, **options: Any) -> Sound:
        """Speak a text of any length, piece by piece: (n,) float32 samples as they come, in constant memory.

        Args and errors: as barkfast.engine.long.speak_long.
        """
        return Sound(speak_long(self.model, text, voice, **options))

    def generate_script(
        self,
        script: str | Iterable[str] | Iterable[tuple[str, str]],
        voices: Mapping[str, Voice | None],
        **options: Any,
    ) -> Sound:
        """Speak a dialogue, a voice per speaker: (n,) float32 samples as they come, in constant memory.

        Args and errors: as barkfast.engine.long.speak_script.
        """
        return Sound(speak_script(self.model, script, voices, **options))

    # --- the stages one by one

    def generate_semantic(
        self, text: str, voice: Voice | None = None, sampling: Sampling = Sampling(0.7), **options: Any
    ) -> np.ndarray:
        """Text to (n,) int64 semantic tokens. Args: as barkfast.single_stages.generate_semantic."""
        return single_stages.generate_semantic(self.model, text, voice, sampling, **options)

    def generate_coarse(
        self, semantic: np.ndarray, voice: Voice | None = None, sampling: Sampling = Sampling(0.7), **options: Any
    ) -> np.ndarray:
        """Semantic tokens (n,) to (2, frames) int32 codes. Args: as barkfast.single_stages.generate_coarse."""
        return single_stages.generate_coarse(self.model, semantic, voice, sampling, **options)

    def generate_fine(
        self, coarse: np.ndarray, voice: Voice | None = None, sampling: Sampling = Sampling(0.5), **options: Any
    ) -> np.ndarray:
        """The first n codebooks (n, frames) to (8, frames) int32 codes. Args: as single_stages.generate_fine."""
        return single_stages.generate_fine(self.model, coarse, voice, sampling, **options)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (up to 8 codebooks, frames) to (samples,) float32 audio."""
        return single_stages.decode(self.model, codes)
