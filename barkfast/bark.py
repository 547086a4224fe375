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

    Networks are loaded when first needed, or all at once by `load()`. Any thread may call any method: calls share the
    networks, and results do not depend on other calls. Raises: EngineError while an `Engine` has this model.
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

    @takes(Speech)
    def generate(self, speech: Speech) -> Generation:
        """Speak a text. Raises: InputError, VoiceError, EngineError."""
        request = self.model.request(speech.text, speech.voice, **speech.options())
        # What is missing is reported, and loaded, before other threads wait for it.
        self.model.load()
        with self.model.scheduler(1) as session:
            return session.wait(session.add(request), speech.silent)

    @takes(Request)
    def request(self, request: Request) -> Request:
        """Check arguments, load the voice, and make a request of them for an engine. Loads no network; thread-safe."""
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
            A Generation for each.
        """
        return speak_batch(self.model, requests, keep_errors, defaults)

    @takes(BarkStream)
    def stream(self, asked: BarkStream) -> Sound:
        """Speak a text of any length and return its (n,) float32 samples as they come, in constant memory.

        Work is done while the next chunk is waited for, and not between; closing the iterator ends it.

        Raises:
            InputError, VoiceError: at once; the error of a later sentence comes in place of its samples.
        """
        if asked.split:
            return Sound(stream_sentences(self.model, asked))
        return Sound(self._stream(self.model.resolve(asked.whole())))

    def _stream(self, request: Request) -> Generator[np.ndarray, None, None]:
        with self.scheduler() as session:
            yield from session.stream(request)

    def scheduler(self, n_slots: int | None = None) -> Session:
        """A barkfast.engine.shared.Session of the scheduler that all calls share; use it in a `with` block.

        Args:
            n_slots: utterances at a time, if there is no other session; None for the present number.
        """
        return self.model.scheduler(n_slots)

    @takes(LongText)
    def generate_long(self, asked: LongText) -> Sound:
        """Speak a text of any length, piece by piece: (n,) float32 samples as they come, in constant memory.

        Raises:
            InputError, VoiceError: at once for arguments; later for what is found in the text.
        """
        return Sound(speak_long(self.model, asked))

    @takes(Script)
    def generate_script(self, asked: Script) -> Sound:
        """Speak a dialogue, a voice per speaker: (n,) float32 samples as they come, in constant memory.

        Raises:
            InputError, VoiceError: at once for arguments; later for what is found in the script.
        """
        return Sound(speak_script(self.model, asked))

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
