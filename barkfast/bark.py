"""A Bark model: a text, a batch, a stream, a book, a dialogue. Forwards to the engine."""

import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from barkfast import single_stages
from barkfast.components import Components
from barkfast.config import Layout, Sampling
from barkfast.engine.long import Sound, speak_batch, speak_long, speak_script, stream_sentences
from barkfast.engine.results import Generation
from barkfast.engine.shared import Model, Session
from barkfast.options import BarkStream, LongText, Request, Script, Speech, Voice, takes
from barkfast.voices import PARTS, save_voice
from barkfast.weights import Checkpoint


class Bark:
    """A Bark model, ready to speak.

    Networks are loaded when first needed, or all at once by `load()`. Any thread may call any method: calls share the
    networks, and results do not depend on other calls.

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
        n_slots: utterances at a time, 1 to 64; each takes memory for its cache. Batches allocate more if they need it.

    Raises:
        InputError: an argument is none of these, or this machine has no such device.
        EngineError: the engine cannot run here. Methods that generate raise it while an `Engine` has this model.
        MissingFileError: by the first method that needs a file which is not here, and cannot be fetched.
        CheckpointError: by the first method that reads a file which is damaged, of another format, or carries code.
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
        """Load all four networks now. Raises: MissingFileError, CheckpointError, EngineError."""
        self.model.load()

    def load_voice(self, voice: Voice | None, stages: tuple[str, ...] = PARTS) -> Mapping[str, np.ndarray] | None:
        """Find a voice, and check that it fits the model.

        Args:
            voice: a name ("v2/en_speaker_6"), an .npz file, a dict of the three arrays, or None.
            stages: which arrays to check: those that these stages use.

        Returns:
            semantic_prompt (n,), coarse_prompt (2, frames) and fine_prompt (8, frames), integers; None for None.

        Raises:
            VoiceError: the name is unknown, or a file or array cannot be used.
        """
        return self.model.load_voice(voice, stages)

    def save_voice(self, path: str | os.PathLike[str], generation: Generation) -> None:
        """Save an utterance as a voice, an .npz that `voice=` and the reference's `history_prompt=` take.

        Args:
            path: where to write it; the name must end in .npz.
            generation: the utterance.

        Raises:
            VoiceError: the name does not end in .npz.
            OutputError: the file cannot be written.
        """
        save_voice(path, generation.prompt)

    @takes(Speech)
    def generate(self, speech: Speech) -> Generation:
        """Speak a text.

        Returns:
            A Generation: (samples,) float32 audio, the tokens of each stage, and timings.

        Raises:
            InputError: the text or another argument cannot be used, or the model ended at once.
            VoiceError: the voice is unknown or does not fit the model.
            EngineError: the engine failed, or an `Engine` has this model.
        """
        request = self.model.request(speech.text, speech.voice, **speech.options())
        # What is missing is reported, and loaded, before other threads wait for it.
        self.model.load()
        with self.model.scheduler(1) as session:
            return session.wait(session.add(request), speech.silent)

    @takes(Request)
    def request(self, request: Request) -> Request:
        """Check arguments and load the voice: a request for `generate_batch`. Loads no network.

        Raises:
            InputError: an argument cannot be used.
            VoiceError: the voice is unknown or does not fit the model.
        """
        return self.model.resolve(request)

    def generate_batch(
        self,
        requests: Sequence[str | Mapping[str, Any] | Request],
        *,
        keep_errors: bool = False,
        **defaults: Any,
    ) -> list[Any]:
        """Speak several texts in a batch, each with the tokens of a single `generate`.

        Without a seed torch's global generator is used. The torch engine draws from it token by token, so there the
        tokens then depend on the batch.

        Args:
            requests: texts, or dicts of `request`'s arguments; any number, of which a few run at a time.
            keep_errors: put the exception of a failed request in its place, instead of raising the first one once all
                others are done.
            defaults: arguments for all, where an item does not have its own.

        Returns:
            A Generation for each, or its exception with `keep_errors`.

        Raises:
            InputError: an argument or a text cannot be used.
            VoiceError: a voice is unknown or does not fit the model.
            EngineError: the engine failed, or an `Engine` has this model.
        """
        return speak_batch(self.model, requests, keep_errors, defaults)

    @takes(BarkStream)
    def stream(self, asked: BarkStream) -> Sound:
        """Speak a text of any length and return its (n,) float32 samples as they come, in constant memory.

        Work is done while the next chunk is waited for, and not between; closing the iterator ends it.

        Raises:
            InputError: at once for an argument; the error of a later sentence comes in place of its samples.
            VoiceError: at once.
        """
        if asked.split:
            return Sound(stream_sentences(self.model, asked))
        return Sound(self._stream(self.model.resolve(asked.whole())))

    def _stream(self, request: Request) -> Generator[np.ndarray, None, None]:
        with self.scheduler() as session:
            yield from session.stream(request)

    def scheduler(self, n_slots: int | None = None) -> Session:
        """A session of the scheduler that all calls share; use it in a `with` block.

        For programs that run requests round by round, see barkfast.engine.shared.Session.

        Args:
            n_slots: utterances at a time, if there is no other session; None for the present number.

        Raises:
            EngineError: an `Engine` has this model, or there is no memory for the slots.
        """
        return self.model.scheduler(n_slots)

    @takes(LongText)
    def generate_long(self, asked: LongText) -> Sound:
        """Speak a text of any length, piece by piece: (n,) float32 samples as they come, in constant memory.

        Raises:
            InputError: at once for an argument; later for what is found in the text.
            VoiceError: at once.
        """
        return Sound(speak_long(self.model, asked))

    @takes(Script)
    def generate_script(self, asked: Script) -> Sound:
        """Speak a dialogue, a voice per speaker: (n,) float32 samples as they come, in constant memory.

        Raises:
            InputError: at once for an argument; later for what is found in the script, such as an unknown speaker.
            VoiceError: at once.
        """
        return Sound(speak_script(self.model, asked))

    # --- the stages one by one

    def generate_semantic(
        self, text: str, voice: Voice | None = None, sampling: Sampling = Sampling(0.7), **options: Any
    ) -> np.ndarray:
        """Text to semantic tokens.

        Args:
            text: up to 256 tokens, about 13 seconds of speech.
            voice: as in `generate`; only its semantic_prompt is used.
            sampling: how tokens are drawn.
            options: `min_eos_p`, `max_duration_s`, `overflow`, `seed` and `silent` as in `generate`;
                `allow_early_stop=False` draws as many tokens as fit; `strict=False` takes every number that `bark`
                takes.

        Returns:
            (n,) int64 semantic tokens.

        Raises:
            InputError: an argument cannot be used, or the model ended at once.
            VoiceError: the voice is unknown or does not fit the model.
        """
        return single_stages.generate_semantic(self.model, text, voice, sampling, **options)

    def generate_coarse(
        self, semantic: np.ndarray, voice: Voice | None = None, sampling: Sampling = Sampling(0.7), **options: Any
    ) -> np.ndarray:
        """Semantic tokens to coarse codes.

        Args:
            semantic: (n,) integers.
            voice: as in `generate`; its semantic_prompt and coarse_prompt are used.
            sampling: how codes are drawn.
            options: `max_duration_s`, `seed` and `silent` as in `generate`; `max_history`, the coarse tokens of
                context, 60 (faster) to 630 (the default); `sliding_window`, the tokens until the context moves, 60 by
                default; `strict` as in `generate_semantic`.

        Returns:
            (2, frames) int32 codes, 75 frames for a second.

        Raises:
            InputError: an argument cannot be used.
            VoiceError: the voice is unknown or does not fit the model.
        """
        return single_stages.generate_coarse(self.model, semantic, voice, sampling, **options)

    def generate_fine(
        self, coarse: np.ndarray, voice: Voice | None = None, sampling: Sampling = Sampling(0.5), **options: Any
    ) -> np.ndarray:
        """Coarse codes to fine codes.

        Args:
            coarse: (n, frames) integers, the first n codebooks, 1 to 7.
            voice: as in `generate`; only its fine_prompt is used.
            sampling: how codes are drawn.
            options: `seed` and `silent` as in `generate`.

        Returns:
            (8, frames) int32 codes.

        Raises:
            InputError: an argument cannot be used.
            VoiceError: the voice is unknown or does not fit the model.
        """
        return single_stages.generate_fine(self.model, coarse, voice, sampling, **options)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes to audio.

        Args:
            codes: (up to 8 codebooks, frames) integers.

        Returns:
            (samples,) float32 audio at `sample_rate`.

        Raises:
            InputError: the codes are not integers of the codebooks' range.
        """
        return single_stages.decode(self.model, codes)
