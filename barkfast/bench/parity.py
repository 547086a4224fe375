"""The tokens that Suno's `bark` draws from the same weights and random numbers, beside those of the torch engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from barkfast.bench.backends import NotRun
from barkfast.bench.compare import count_equal
from barkfast.bench.comparison import Example, judge_of, require_room
from barkfast.bench.reference import import_reference, load_reference
from barkfast.bench.teacher_forced import Voice, build_network
from barkfast.config import Sampling
from barkfast.errors import BarkfastError
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.weights import Checkpoint

# Of each sentence; about what one window of the coarse stage voices.
SECONDS = 0.4
# A whole window of the fine stage takes long on a CPU: of so many sentences.
FINE_PASSAGES = 1
TOKENS, CODES = Sampling(0.7), Sampling(0.5)


@dataclass(frozen=True)
class Drawn:
    """Tokens by sentence: semantic (n,), coarse and fine (codebooks, frames)."""

    semantic: Sequence[np.ndarray]
    coarse: Sequence[np.ndarray]
    fine: Sequence[np.ndarray]


def compare_reference(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """A row per stage with the numbers of "tokens" and of "equal" ones; one with a "reason" if `bark` cannot be run.

    Both draw as they do by default, on the CPU in float32, each stage from what ours made of the stage before.
    """
    row = {"engine": "bark", "dtype": "float32", "device": "cpu", "reason": ""}
    try:
        generation = import_reference()
        require_room(checkpoint, "cpu", together=True)
        ours = _draw_ours(checkpoint, examples)
        load_reference(generation, checkpoint, examples[0].tokenizer, torch.device("cpu"))
    except (NotRun, BarkfastError) as error:
        return [row | {"stage": "", "reason": " ".join(str(error).split())}]
    try:
        theirs = _draw_theirs(generation, examples, ours)
    finally:
        generation.clean_models()
    return [row | {"stage": stage} | _count(getattr(ours, stage), getattr(theirs, stage)) for stage in vars(ours)]


def _count(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> dict[str, int]:
    pairs = [(np.ravel(a), np.ravel(b)) for a, b in zip(ours, theirs, strict=True)]
    return {
        "tokens": sum(max(len(a), len(b)) for a, b in pairs),
        "equal": sum(count_equal(b, a) for a, b in pairs),
    }


def _draw_ours(checkpoint: Checkpoint, examples: Sequence[Example]) -> Drawn:
    layout, place = checkpoint.layout, judge_of("cpu")
    decoder = build_network(checkpoint, "semantic", place)
    semantic = []
    for seed, example in enumerate(examples):
        torch.manual_seed(seed)
        job = semantic_job(
            example.ids,
            layout,
            TOKENS,
            history=_part(example.voice, "semantic_prompt"),
            min_eos_p=layout.semantic.min_eos_p,
            max_duration_s=SECONDS,
        )
        semantic.append(decoder.run([job])[0].astype(np.int64))
    decoder = build_network(checkpoint, "coarse", place)
    coarse = []
    for seed, (example, tokens) in enumerate(zip(examples, semantic, strict=True)):
        torch.manual_seed(seed)
        voice = example.voice
        history = None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"])
        chain = CoarseWindows(_something(tokens), layout, TOKENS, history=history)
        while (window := chain.next_job()) is not None:
            chain.append(decoder.run([window])[0])
        coarse.append(chain.codes())
    refiner = build_network(checkpoint, "fine", place)
    fine = []
    for seed, (example, codes) in enumerate(zip(examples[:FINE_PASSAGES], coarse, strict=False)):
        torch.manual_seed(seed)
        windows = FineWindows(codes, layout, CODES, history=_part(example.voice, "fine_prompt"))
        while (question := windows.next_job()) is not None:
            windows.append(refiner.refine(question))
        fine.append(windows.codes())
    return Drawn(semantic, coarse, fine)


def _draw_theirs(generation: Any, examples: Sequence[Example], ours: Drawn) -> Drawn:
    semantic, coarse, fine = [], [], []
    for seed, example in enumerate(examples):
        voice = None if example.voice is None else dict(example.voice)
        common = {"history_prompt": voice, "temp": TOKENS.temperature, "silent": True, "use_kv_caching": True}
        torch.manual_seed(seed)
        semantic.append(generation.generate_text_semantic(example.prompt.text, max_gen_duration_s=SECONDS, **common))
        torch.manual_seed(seed)
        coarse.append(generation.generate_coarse(_something(ours.semantic[seed]), **common))
        if seed < FINE_PASSAGES:
            torch.manual_seed(seed)
            fine.append(generation.generate_fine(ours.coarse[seed], history_prompt=voice, temp=CODES.temperature))
    return Drawn(semantic, coarse, fine)


def _part(voice: Voice | None, key: str) -> np.ndarray | None:
    return None if voice is None else voice[key]


def _something(tokens: np.ndarray) -> np.ndarray:
    """The tokens; one where there are none, which neither side would take."""
    return tokens if len(tokens) else np.zeros(1, np.int64)
