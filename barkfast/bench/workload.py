"""What is spoken where time is measured: a text, a voice and a length, by a model; and how long each stage takes."""

import math
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from barkfast.config import Layout, Sampling
from barkfast.errors import EngineError, InputError
from barkfast.runtime import select
from barkfast.runtime.sampling import Randomness
from barkfast.text import find_tokenizer_file
from barkfast.voices import check_voice, load_voice
from barkfast.weights import Checkpoint, open_model
from barkfast.weights.convert import MARKER
from barkfast.weights.files import read_json
from barkfast.weights.sources import WEIGHT_FILES

if TYPE_CHECKING:
    from barkfast.bark import Bark

STAGES = ("semantic", "coarse", "fine", "codec")
# What a stage's count counts.
UNITS = {"semantic": "tokens", "coarse": "tokens", "fine": "frames", "codec": "frames"}
TEXT = "Every step of speaking this sentence runs on the device, and somebody measures how long each of them takes."
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyzE", "##e", ",", "."]
# Voices besides those that have a name or a file.
NO_VOICE, FULL_VOICE = "none", "full"


@dataclass(frozen=True)
class Workload:
    """One thing to be measured.

    Args:
        model, device, dtype, engine, small: as of `Bark`.
        voice: "none", "full" for a synthetic one that fills every stage's history, or a voice's name or .npz file.
        seconds: length of the clip; a model may have room for fewer.
        seed: of the first clip; the next ones count up.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    engine: str = "auto"
    voice: str = NO_VOICE
    seconds: float = 10.0
    seed: int = 0
    text: str = TEXT
    small: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise InputError(f"seconds is {self.seconds}; expected a positive number, the length of a clip")

    def resolve(self) -> "Workload":
        """The same with "auto" replaced by what it stands for here. Raises: InputError, EngineError."""
        device = select.resolve_device(self.device)
        engine = select.resolve_engine(self.engine, device)
        return replace(self, device=device, engine=engine, dtype=select.resolve_dtype(self.dtype, device, engine))

    def open(self) -> Checkpoint:
        """The model, of which nothing has been read yet."""
        return open_model(self.model, small=self.small)


@dataclass(frozen=True)
class Clip:
    """What speaking once took.

    Args:
        seconds: of each stage.
        counts: semantic tokens, coarse tokens, frames of the fine stage, frames of the codec.
        audio_s: length of the audio.
        first_audio_s: seconds until its first samples: those of all stages, because bench does not stream.
    """

    seconds: dict[str, float]
    counts: dict[str, int]
    audio_s: float
    first_audio_s: float

    def __post_init__(self) -> None:
        if not self.audio_s > 0:
            raise EngineError("the clip is empty: nothing was spoken that could be timed")

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return sum(self.seconds.values()) / self.audio_s


def is_random(checkpoint: Checkpoint) -> bool:
    """Whether the weights, or those that a conversion was made from, are random, and so speak noise."""
    marker = None if checkpoint.folder is None else checkpoint.folder / MARKER
    converted = marker is not None and marker.is_file()
    name = str(read_json(marker).get("converted_from")) if marker and converted else checkpoint.name
    return name.startswith("random:")


def hugging_face_folder(checkpoint: Checkpoint) -> Path | None:
    """The model's own folder, if transformers can load it."""
    folder = checkpoint.folder
    if folder is None or not (folder / "config.json").is_file():
        return None
    known = "semantic_config" in read_json(folder / "config.json")
    return folder if known and any((folder / name).is_file() for name in WEIGHT_FILES) else None


def vocabulary(folder: Path) -> Path:
    """Write a small vocab.txt: which ids a text has does not matter to random weights, or to the time."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


@lru_cache(maxsize=1)
def _vocabulary_folder() -> tempfile.TemporaryDirectory[str]:
    """Kept, and removed with the process: networks are loaded when they are first needed."""
    return tempfile.TemporaryDirectory(prefix="barkfast-bench-")


def tokenizer_of(checkpoint: Checkpoint) -> Path | None:
    """A tokenizer for random weights without one; None leaves the choice to the model."""
    own = checkpoint.folder is not None and find_tokenizer_file(checkpoint.folder) is not None
    if own or not is_random(checkpoint):
        return None
    return vocabulary(Path(_vocabulary_folder().name))


def open_bark(workload: Workload) -> "Bark":
    """The workload's model, its networks not loaded yet."""
    from barkfast.bark import Bark

    workload = workload.resolve()
    return Bark(
        workload.model,
        device=workload.device,
        dtype=workload.dtype,
        engine=workload.engine,
        small=workload.small,
        tokenizer=tokenizer_of(workload.open()),
    )


def full_voice(layout: Layout, seed: int = 1) -> dict[str, np.ndarray]:
    """A synthetic voice that fills every stage's history."""
    rng = np.random.default_rng(seed)
    n_semantic = 2 * layout.semantic.n_slots
    frames = round(n_semantic * layout.coarse_per_semantic / layout.coarse.n_codebooks)
    fine = rng.integers(0, layout.codebook_size, (layout.fine.n_codebooks, frames))
    return {
        "semantic_prompt": rng.integers(0, layout.semantic.vocab_size, n_semantic),
        "coarse_prompt": fine[: layout.coarse.n_codebooks],
        "fine_prompt": fine,
    }


def voice_of(checkpoint: Checkpoint, workload: Workload) -> Mapping[str, np.ndarray] | None:
    """The workload's voice, read and checked. Raises: VoiceError."""
    if workload.voice == NO_VOICE:
        return None
    if workload.voice == FULL_VOICE:
        return full_voice(checkpoint.layout)
    voice = load_voice(workload.voice, checkpoint)
    if voice is not None:
        check_voice(voice, checkpoint.layout)
    return voice


def speak(bark: "Bark", workload: Workload, seed: int, *, seconds: float | None = None, tracer: Any = None) -> Clip:
    """Speak once, from text to samples, without an early stop, so that all clips are equally long.

    Args:
        seconds: another length than the workload's.
        tracer: a barkfast.bench.trace.Tracer, for a range per stage.

    Raises: EngineError if the samples are not finite.
    """
    history = voice_of(bark.checkpoint, workload)
    length, random = seconds or workload.seconds, Randomness(seed)
    took: dict[str, float] = {}

    def timed(stage: str, work: Any, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        with nullcontext() if tracer is None else tracer.range(stage):
            result = work(*args, **options)
        took[stage] = time.perf_counter() - start
        return result

    limits: dict[str, Any] = {"max_duration_s": length, "allow_early_stop": False}
    semantic = timed("semantic", bark.generate_semantic, workload.text, history, Sampling(0.7), seed=random, **limits)
    coarse = timed("coarse", bark.generate_coarse, semantic, history, Sampling(0.7), seed=random)
    fine = timed("fine", bark.generate_fine, coarse, history, Sampling(0.5), seed=random)
    audio = timed("codec", bark.decode, fine)
    if not np.isfinite(audio).all():
        raise EngineError(f"the samples are not finite: what {workload.dtype} computed is not worth timing")
    frames = coarse.shape[1]
    counts = dict(zip(STAGES, (len(semantic), coarse.size, frames, frames), strict=True))
    return Clip(took, counts, len(audio) / bark.sample_rate, sum(took.values()))
