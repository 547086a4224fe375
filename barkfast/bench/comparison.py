"""What engines are asked when they are compared: sentences with voices, and the reference's tokens of each stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barkfast.bench.machine import device_memory, memory_available
from barkfast.bench.roofline import PROCESS_BYTES, network_bytes
from barkfast.bench.teacher_forced import (
    ForcedPass,
    Voice,
    build_network,
    greedy_coarse,
    greedy_fine,
    greedy_semantic,
    teacher_force,
    teacher_force_fine,
    without_stop,
)
from barkfast.bench.workload import full_voice, is_random
from barkfast.config import DTYPE_ALIASES, DTYPES
from barkfast.errors import BarkfastError, InputError
from barkfast.runtime import select
from barkfast.runtime.engines import describe_engines
from barkfast.runtime.select import Placement
from barkfast.stages.coarse import unflatten_codes
from barkfast.text import SPECIAL_TOKENS, Tokenizer, find_tokenizer_file, load_tokenizer
from barkfast.voices import check_voice, find_voices, load_voice
from barkfast.voices.locations import local_locations
from barkfast.weights import STAGES, Checkpoint


@dataclass(frozen=True)
class Configuration:
    """An engine with a dtype on a device.

    Args:
        reason: why it cannot be compared; empty if it can.
    """

    engine: str
    dtype: str
    device: str
    reason: str = ""

    @property
    def place(self) -> select.Placement:
        """Where and how its networks run."""
        return select.Placement(self.engine, self.device, self.device, self.dtype)


def judge_of(device: str) -> select.Placement:
    """The torch engine in float32, which the others are compared with."""
    return Configuration("torch", "float32", device).place


def find_configurations(
    device: str, engines: Sequence[str] | None = None, dtypes: Sequence[str] | None = None
) -> list[Configuration]:
    """All but the judge itself, those that are not there with the reason.

    Args:
        device: a resolved name. The cpu engine stays on the CPU whatever it is.
        engines, dtypes: None for all.
    Errors: InputError for unknown names, or if nothing is left.
    """
    known = {engine.name: engine for engine in describe_engines(device)}
    wanted = list(known) if engines is None else list(engines)
    for name in wanted:
        if name not in known:
            raise InputError(f"engine is {name!r}; expected {', '.join(known)}")
    names = None if dtypes is None else [DTYPE_ALIASES.get(dtype, dtype) for dtype in dtypes]
    for name in names or ():
        if name not in DTYPES:
            raise InputError(f"dtype is {name!r}; expected {', '.join(DTYPES)}")
    found: list[Configuration] = []
    for engine in wanted:
        where = "cpu" if engine == "cpu" else device
        if not known[engine].available:
            found.append(Configuration(engine, "", where, known[engine].reason))
            continue
        for dtype in select.ENGINE_DTYPES[engine]:
            if names is not None and dtype not in names or (engine, dtype) == ("torch", "float32"):
                continue
            found.append(
                Configuration(engine, dtype, where, _find_obstacle(engine, dtype, where, asked=names is not None))
            )
    if not found:
        raise InputError(
            f"nothing to compare: {', '.join(wanted)} with {', '.join(names or ())}; torch float32 is the judge, and "
            "`barkfast info` lists the engines"
        )
    return found


def _find_obstacle(engine: str, dtype: str, device: str, *, asked: bool) -> str:
    """Why an engine that is present cannot run a dtype on a device; empty if it can."""
    if (engine, device, dtype) == ("torch", "cpu", "float16") and not asked:
        return "CPUs convert float16 at every turn, which takes long; ask for it by its name"
    if (engine, dtype) == ("cuda", "bfloat16") and not device.startswith("cuda"):
        return "Triton's interpreter computes bfloat16 wrong; it takes a GPU"
    try:
        select.resolve_engine(engine, device)
        select.resolve_dtype(dtype, device, engine)
    except BarkfastError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Prompt:
    """One sentence.

    Args:
        code: of its language, as in the names of Suno's voices.
    """

    code: str
    language: str
    text: str

    @property
    def voice(self) -> str:
        """The name of a voice that speaks the language."""
        return f"v2/{self.code}_speaker_6"


PROMPTS = (
    Prompt("en", "English", "We missed the last train, so we walked home along the river in the rain."),
    Prompt("de", "German", "Am Sonntag backt meine Großmutter einen Kuchen mit frischen Äpfeln aus dem Garten."),
    Prompt("es", "Spanish", "Mañana por la tarde iremos al mercado a comprar pan, queso y unas naranjas."),
    Prompt("fr", "French", "Le chat dort près de la fenêtre pendant que la neige tombe sur le village."),
    Prompt("hi", "Hindi", "आज सुबह मैंने बगीचे में एक छोटी नीली चिड़िया देखी।"),
    Prompt("it", "Italian", "Dopo cena abbiamo ascoltato vecchie canzoni e riso fino a mezzanotte."),
    Prompt("ja", "Japanese", "明日の朝は早く起きて、海まで散歩に行きましょう。"),
    Prompt("ko", "Korean", "어제 저녁에 친구와 함께 따뜻한 국수를 먹었어요."),
    Prompt("pl", "Polish", "Jutro rano pojedziemy pociągiem w góry, jeśli będzie ładna pogoda."),
    Prompt("pt", "Portuguese", "A minha irmã comprou uma bicicleta vermelha e já não anda de autocarro."),
    Prompt("ru", "Russian", "Вечером мы сидели у костра и рассказывали друг другу смешные истории."),
    Prompt("tr", "Turkish", "Bu sabah pazardan taze ekmek, zeytin ve biraz da bal aldım."),
    Prompt("zh", "Chinese", "昨天晚上下了一场大雨，今天早上的空气特别清新。"),
)


def choose_prompts(languages: int) -> tuple[Prompt, ...]:
    """The first so many."""
    if not 1 <= languages <= len(PROMPTS):
        raise InputError(f"languages is {languages}; expected 1 to {len(PROMPTS)}")
    return PROMPTS[:languages]


def spelling_tokenizer() -> Tokenizer:
    """A tokenizer that spells every sentence out, for random weights, which bring none and know no language."""
    characters = sorted({character for prompt in PROMPTS for character in prompt.text} - {" "})
    return Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters)], "made up")


# Per sentence: the stages' tokens, and the frames of a voice before those that the fine network fills.
SEMANTIC_STEPS, COARSE_STEPS, FINE_HISTORY = 24, 48, 72


@dataclass(frozen=True)
class Example:
    """A sentence to be spoken.

    Args:
        tokenizer: the model's; `ids` are what it makes of the text.
        voice: None where the model has none for the language.
        voice_name: what it is called.
    """

    prompt: Prompt
    tokenizer: Tokenizer
    ids: np.ndarray
    voice: Voice | None
    voice_name: str | None


@dataclass(frozen=True)
class Comparison:
    """One stage's questions, and what the judge said.

    Args:
        stage: semantic, coarse, fine or codec.
        jobs: a question per sentence; the codec's are the paths themselves.
        paths: the judge's tokens (positions,) per sentence; windows (frames, codebooks) of the fine stage, and codes
            (codebooks, frames) for the codec.
        answer: what the judge said along all paths; of the codec, nothing.
        sounds: what its codec made of the codes, (samples,) each; nothing of the other stages.
    """

    stage: str
    jobs: Sequence[Any]
    paths: Sequence[np.ndarray]
    answer: ForcedPass
    sounds: Sequence[np.ndarray] = field(default_factory=list)


def read_passages(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[Example]:
    """The sentences as the model takes them.

    Random weights get a tokenizer that spells and made-up voices for want of others.
    Errors: MissingFileError if a trained model's tokenizer is nowhere.
    """
    own = checkpoint.folder and find_tokenizer_file(checkpoint.folder)
    tokenizer = load_tokenizer(checkpoint) if own or not is_random(checkpoint) else spelling_tokenizer()
    finder = _VoiceFinder(checkpoint)
    examples = []
    for number, prompt in enumerate(prompts):
        name, voice = finder.find(prompt)
        if voice is None and is_random(checkpoint):
            name, voice = "made up", full_voice(checkpoint.layout, number)
        ids = np.array(tokenizer.encode(prompt.text)[: checkpoint.layout.semantic.n_slots], np.int32)
        examples.append(Example(prompt, tokenizer, ids, voice, name))
    return examples


class _VoiceFinder:
    """Finds a voice for a language; what has failed to come from the hub is not asked for again."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        # The hub is not asked for what means nothing to random weights.
        local = {name: place.description for place in local_locations(checkpoint, None) for name in place.names}
        self._places = local if is_random(checkpoint) else find_voices(checkpoint)
        self._unreachable: set[str] = set()

    def find(self, prompt: Prompt) -> tuple[str | None, Voice | None]:
        """Its name and arrays; None and None where there is none that fits."""
        names = [prompt.voice, *(name for name in self._places if f"{prompt.code}_speaker_" in name)]
        for name in dict.fromkeys(names):
            place = self._places.get(name)
            if place is None or place in self._unreachable:
                continue
            try:
                voice = load_voice(name, self.checkpoint)
                assert voice is not None
                check_voice(voice, self.checkpoint.layout)
                return name, voice
            except BarkfastError:
                # Not there, or made for another model: the others of its place will be no better.
                self._unreachable.add(place)
        return None, None


def require_room(checkpoint: Checkpoint, device: str, *, together: bool = False) -> None:
    """Raise InputError, before any is loaded, unless the networks have room in float32 on a device.

    Args:
        together: all three of them; otherwise one at a time, as it is read and as it is run.
    """
    sizes = [network_bytes(checkpoint.stage(stage).config, "float32") for stage in STAGES]
    need = PROCESS_BYTES + (sum(sizes) + max(sizes) if together else 2 * max(sizes))
    free = device_memory(device)
    free = memory_available() if free is None else free
    if need > free:
        raise InputError(
            f"comparing {checkpoint.name} in float32 needs about {need / 1e9:.1f} GB of memory on {device}, and "
            f"{free / 1e9:.1f} GB are free; close other programs, or choose a smaller model (suno/bark-small)"
        )


def set_exams(checkpoint: Checkpoint, examples: Sequence[Example], place: Placement) -> list[Comparison]:
    """The judge's way from each sentence to its sound, a few dozen tokens long, one network at a time."""
    layout = checkpoint.layout
    jobs: list[Any] = [greedy_semantic(layout, p.ids, p.voice, SEMANTIC_STEPS) for p in examples]
    comparisons = [_walk_all(checkpoint, "semantic", jobs, place)]
    tokens = [without_stop(job, path) for job, path in zip(jobs, comparisons[0].paths, strict=True)]
    # Where there is nothing to say some token is said, so that all stages have something to do.
    tokens = [found if len(found) else np.zeros(1, np.int32) for found in tokens]
    jobs = [greedy_coarse(layout, found, p.voice, COARSE_STEPS) for found, p in zip(tokens, examples, strict=True)]
    comparisons.append(_walk_all(checkpoint, "coarse", jobs, place))
    codes = [unflatten_codes(path, layout) for path in comparisons[1].paths]
    jobs = [greedy_fine(layout, found, p.voice, FINE_HISTORY) for found, p in zip(codes, examples, strict=True)]
    refiner = build_network(checkpoint, "fine", place)
    windows = [refiner.refine(job) for job in jobs]
    passes = [teacher_force_fine(refiner, job, window) for job, window in zip(jobs, windows, strict=True)]
    comparisons.append(Comparison("fine", jobs, windows, ForcedPass.joined(passes)))
    del refiner
    codec = build_network(checkpoint, "codec", place)
    spoken = [np.ascontiguousarray(window.T) for window in windows]
    nothing = ForcedPass([], np.zeros(0, np.int32))
    comparisons.append(Comparison("codec", [], spoken, nothing, [codec.decode(codes) for codes in spoken]))
    return comparisons


def _walk_all(checkpoint: Checkpoint, stage: str, jobs: Sequence[Any], place: Placement) -> Comparison:
    decoder = build_network(checkpoint, stage, place)
    passes = [teacher_force(decoder, job) for job in jobs]
    return Comparison(stage, jobs, [one.tokens for one in passes], ForcedPass.joined(passes))


def answer(network: Any, comparison: Comparison) -> ForcedPass:
    """What another network says along the same paths, of the semantic, coarse or fine stage."""
    questions = list(zip(comparison.jobs, comparison.paths, strict=True))
    if comparison.stage == "fine":
        return ForcedPass.joined([teacher_force_fine(network, job, path) for job, path in questions])
    return ForcedPass.joined([teacher_force(network, job, path) for job, path in questions])
