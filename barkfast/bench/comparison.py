"""What engines are asked when they are compared: sentences with voices, and the judge's way through each stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barkfast.bench.environment import device_memory, memory_available
from barkfast.bench.memory import PROCESS_BYTES, network_bytes
from barkfast.bench.prompts import Prompt, spelling_tokenizer
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
from barkfast.errors import BarkfastError, InputError
from barkfast.runtime.select import Placement
from barkfast.stages.coarse import unflatten_codes
from barkfast.text import Tokenizer, find_tokenizer_file, load_tokenizer
from barkfast.voices import check_voice, find_voices, load_voice
from barkfast.voices.locations import local_locations
from barkfast.weights import STAGES, Checkpoint

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
