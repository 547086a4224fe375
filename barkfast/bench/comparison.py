"""What `barkfast verify` compares: engines and dtypes, and sentences with voices as jobs of each stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from barkfast.bench.check import Reference, ask_reference
from barkfast.bench.machine import free_memory
from barkfast.bench.roofline import PROCESS_BYTES, network_bytes
from barkfast.bench.teacher_forced import Voice, greedy_coarse, greedy_fine, greedy_semantic, without_stop
from barkfast.bench.workload import full_voice, is_random
from barkfast.config import DTYPE_ALIASES, DTYPES
from barkfast.errors import BarkfastError, InputError
from barkfast.runtime import select
from barkfast.runtime.engines import describe_engines
from barkfast.stages.coarse import unflatten_codes
from barkfast.text import SPECIAL_TOKENS, Tokenizer, find_tokenizer_file, load_tokenizer
from barkfast.voices import check_voice, find_voices, load_voice
from barkfast.voices.locations import local_locations
from barkfast.weights import STAGES, Checkpoint

# Per sentence: tokens of the semantic and coarse stage, and frames of a voice before those that the fine stage fills.
SEMANTIC_STEPS, COARSE_STEPS, FINE_HISTORY = 24, 48, 72


@dataclass(frozen=True)
class Configuration:
    """An engine with a dtype on a device; `reason` says why it cannot be compared, empty if it can."""

    engine: str
    dtype: str
    device: str
    reason: str = ""

    @property
    def placement(self) -> select.Placement:
        """Where and how its networks run."""
        return select.Placement(self.engine, self.device, self.device, self.dtype)


def find_configurations(
    device: str, engines: Sequence[str] | None = None, dtypes: Sequence[str] | None = None
) -> list[Configuration]:
    """All but the reference itself, those that cannot be compared with the reason.

    Args:
        device: a resolved name. The cpu engine runs on the CPU whatever it is.
        engines, dtypes: None for all.

    Raises: InputError for unknown names, or if nothing is left.
    """
    known = {engine.name: engine for engine in describe_engines(device)}
    wanted = list(known) if engines is None else list(engines)
    names = None if dtypes is None else [DTYPE_ALIASES.get(dtype, dtype) for dtype in dtypes]
    for what, given, expected in (("engine", wanted, known), ("dtype", names or (), DTYPES)):
        for name in given:
            if name not in expected:
                raise InputError(f"{what} is {name!r}; expected {', '.join(expected)}")
    found: list[Configuration] = []
    for engine in wanted:
        where = "cpu" if engine == "cpu" else device
        if not known[engine].available:
            found.append(Configuration(engine, "", where, known[engine].reason))
            continue
        found += [
            Configuration(engine, dtype, where, _find_obstacle(engine, dtype, where, asked=names is not None))
            for dtype in select.ENGINE_DTYPES[engine]
            if (names is None or dtype in names) and (engine, dtype) != ("torch", "float32")
        ]
    if not found:
        raise InputError(
            f"nothing to compare: {', '.join(wanted)} with {', '.join(names or ())}; torch float32 is the reference, "
            "and `barkfast info` lists the engines"
        )
    return found


def _find_obstacle(engine: str, dtype: str, device: str, *, asked: bool) -> str:
    """Why an engine that is present cannot run a dtype on a device; empty if it can."""
    if (engine, device, dtype) == ("torch", "cpu", "float16") and not asked:
        return "CPUs convert float16 in every operation, which takes long; ask for it by its name"
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
    """One sentence; `code` is that of its language, as in the names of Suno's voices."""

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
    """A tokenizer that spells every sentence, for random weights, which have none."""
    characters = sorted({character for prompt in PROMPTS for character in prompt.text} - {" "})
    return Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters)], "made up")


@dataclass(frozen=True)
class Example:
    """A sentence as the model takes it.

    Args:
        tokenizer: the model's; `ids` are the text's, (n,) int32.
        voice, voice_name: None where the model has none for the language.
    """

    prompt: Prompt
    tokenizer: Tokenizer
    ids: np.ndarray
    voice: Voice | None
    voice_name: str | None


def read_examples(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[Example]:
    """Sentences with ids and voices; random weights get a tokenizer that spells, and made-up voices.

    Raises: MissingFileError if a trained model's tokenizer is not found.
    """
    random = is_random(checkpoint)
    own = checkpoint.folder and find_tokenizer_file(checkpoint.folder)
    tokenizer = load_tokenizer(checkpoint) if own or not random else spelling_tokenizer()
    # The hub is not asked for voices, which mean nothing to random weights.
    local = {name: place.description for place in local_locations(checkpoint, None) for name in place.names}
    locations = local if random else find_voices(checkpoint)
    examples: list[Example] = []
    unreachable: set[str] = set()
    for number, prompt in enumerate(prompts):
        name, voice = _find_voice(prompt, checkpoint, locations, unreachable)
        if voice is None and random:
            name, voice = "made up", full_voice(checkpoint.layout, number)
        ids = np.array(tokenizer.encode(prompt.text)[: checkpoint.layout.semantic.n_slots], np.int32)
        examples.append(Example(prompt, tokenizer, ids, voice, name))
    return examples


def _find_voice(
    prompt: Prompt, checkpoint: Checkpoint, locations: Mapping[str, str], unreachable: set[str]
) -> tuple[str | None, Voice | None]:
    """The name and arrays of a voice for a language; locations that fail are added to `unreachable`, and left out."""
    names = [prompt.voice, *(name for name in locations if f"{prompt.code}_speaker_" in name)]
    for name in dict.fromkeys(names):
        location = locations.get(name)
        if location is None or location in unreachable:
            continue
        try:
            voice = load_voice(name, checkpoint)
            assert voice is not None
            check_voice(voice, checkpoint.layout)
            return name, voice
        except BarkfastError:
            # Not found, or made for another model: the other voices there are no better.
            unreachable.add(location)
    return None, None


def require_memory(checkpoint: Checkpoint, device: str, *, together: bool = False) -> None:
    """Raise InputError, before anything is loaded, unless the networks in float32 fit into the device's free memory.

    Args:
        together: all three of them; otherwise one at a time, as it is read and as it runs.
    """
    sizes = [network_bytes(checkpoint.stage(stage).config, "float32") for stage in STAGES]
    need = PROCESS_BYTES + (sum(sizes) + max(sizes) if together else 2 * max(sizes))
    free = free_memory(device)
    if need > free:
        raise InputError(
            f"comparing {checkpoint.name} in float32 needs about {need / 1e9:.1f} GB of memory on {device}, and "
            f"{free / 1e9:.1f} GB are free; close other programs, or choose a smaller model (suno/bark-small)"
        )


def make_references(checkpoint: Checkpoint, examples: Sequence[Example], device: str) -> list[Reference]:
    """The reference's answers for each stage, from the text to a few dozen tokens of sound, one network at a time."""
    layout = checkpoint.layout

    def ask(stage: str, jobs: Sequence[Any]) -> Reference:
        return ask_reference(checkpoint, stage, jobs, device)

    semantic = ask("semantic", [greedy_semantic(layout, one.ids, one.voice, SEMANTIC_STEPS) for one in examples])
    tokens = [without_stop(job, path) for job, path in zip(semantic.jobs, semantic.paths, strict=True)]
    # Where the text has no tokens there is one, so that all stages have something to do.
    tokens = [found if len(found) else np.zeros(1, np.int32) for found in tokens]
    pairs = list(zip(tokens, examples, strict=True))
    coarse = ask("coarse", [greedy_coarse(layout, found, one.voice, COARSE_STEPS) for found, one in pairs])
    codes = zip([unflatten_codes(path, layout) for path in coarse.paths], examples, strict=True)
    fine = ask("fine", [greedy_fine(layout, found, one.voice, FINE_HISTORY) for found, one in codes])
    return [semantic, coarse, fine, ask("codec", [np.ascontiguousarray(window.T) for window in fine.paths])]
