"""Suno's `bark` on the weights of a checkpoint of ours: its modules, imported and filled, and the tokens it draws."""

import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from barkfast.bench.backends import NotInstalled, NotRun
from barkfast.bench.check import reference_placement
from barkfast.bench.compare import count_equal
from barkfast.bench.comparison import Example, require_memory
from barkfast.bench.teacher_forced import build_network
from barkfast.config import FineConfig, GPTConfig, Sampling
from barkfast.errors import BarkfastError, EngineError
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import Tokenizer
from barkfast.weights import STAGES, Checkpoint

# Of each sentence; about one window of the coarse stage.
SECONDS = 0.4
# A whole window of the fine stage takes long on a CPU: of so many sentences.
FINE_SENTENCES = 1
TOKENS, CODES = Sampling(0.7), Sampling(0.5)
# With their dependencies the last two would pull torchaudio, which nothing here needs.
INSTALL = "pip install 'barkfast[reference]' && pip install --no-deps tts-webui.bark==0.1.1 encodec==0.1.1"


def import_reference() -> ModuleType:
    """`bark.generation`, with a stand-in for torchaudio, of which `encodec` uses nothing here but the import.

    Raises: NotInstalled.
    """
    try:
        # transformers remembers its first answer, which must not be given while the stand-in is there.
        import transformers.utils

        transformers.utils.is_torchaudio_available()
        absent = "torchaudio" not in sys.modules
        if absent:
            stand_in = types.ModuleType("torchaudio")
            stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
            sys.modules["torchaudio"] = stand_in
        try:
            import bark.generation
        finally:
            if absent:
                del sys.modules["torchaudio"]
    except Exception as error:
        raise NotInstalled(say_absent("bark", error, INSTALL)) from error
    return bark.generation


def say_absent(name: str, error: Exception, install: str) -> str:
    """The message for a package that cannot be imported."""
    return f"{name} cannot be imported ({type(error).__name__}: {error}); install it: {install}"


class _BertLike:
    """Our tokenizer with the one method of its own that `bark` calls."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self._tokenizer.encode(text)


def load_reference(generation: Any, checkpoint: Checkpoint, tokenizer: Tokenizer, device: torch.device) -> None:
    """Put a checkpoint's weights into the reference's own modules, where its functions look for them.

    Its codec keeps the random weights that encodec gives it: its time does not depend on them.

    Raises: NotRun where the model has other tokens than Suno's; EngineError for weights that do not fit.
    """
    layout = checkpoint.layout
    known = (generation.SEMANTIC_VOCAB_SIZE, generation.CODEBOOK_SIZE)
    if (layout.semantic.vocab_size, layout.codebook_size) != known:
        raise NotRun(f"bark knows only Suno's tokens, and {checkpoint.name} has others")
    networks = {stage: _reference_network(checkpoint, stage, device) for stage in STAGES}
    generation.models["text"] = {"model": networks["text"], "tokenizer": _BertLike(tokenizer)}
    generation.models |= {"coarse": networks["coarse"], "fine": networks["fine"]}
    with warnings.catch_warnings():
        # Of a function's new name in torch.
        warnings.simplefilter("ignore", FutureWarning)
        codec = generation.EncodecModel.encodec_model_24khz(pretrained=False)
    codec.set_target_bandwidth(6.0)
    generation.models["codec"] = codec.eval().to(device)


def _reference_network(checkpoint: Checkpoint, stage: str, device: torch.device) -> torch.nn.Module:
    from bark.model import GPT
    from bark.model import GPTConfig as Config
    from bark.model_fine import FineGPT
    from bark.model_fine import FineGPTConfig as FineConf

    weights = checkpoint.stage(stage)
    build, make = (FineGPT, FineConf) if stage == "fine" else (GPT, Config)
    network = build(make(**_sizes(weights.config)))
    tensors = {name: value.float() for name, value in weights.tensors.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    wrong = [name for name in missing if not name.endswith(".attn.bias")] + list(unexpected)
    if wrong:
        raise EngineError(f"the reference's {stage} network does not take the weights: {wrong[:5]}")
    return network.eval().to(device)


def _sizes(config: GPTConfig | FineConfig) -> dict[str, Any]:
    """Under the reference's names, which are ours."""
    names = ["block_size", "input_vocab_size", "output_vocab_size", "n_layer", "n_head", "n_embd", "bias"]
    if isinstance(config, FineConfig):
        names += ["n_codes_total", "n_codes_given"]
    return {name: getattr(config, name) for name in names}


def run_windows(windows: CoarseWindows | FineWindows, run: Callable[[Any], np.ndarray]) -> np.ndarray:
    """All windows of a coarse or fine stage, one job after the other; returns the codes (codebooks, frames)."""
    while (job := windows.next_job()) is not None:
        windows.append(run(job))
    return windows.codes()


@dataclass(frozen=True)
class Drawn:
    """Tokens by sentence: semantic (n,), coarse and fine (codebooks, frames)."""

    semantic: list[np.ndarray]
    coarse: list[np.ndarray]
    fine: list[np.ndarray]


def compare_reference(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """A row per stage with the numbers of "tokens" and of "equal" ones; one with a "reason" if `bark` cannot be run.

    Both draw as they do by default, on the CPU in float32, each stage from what ours made of the stage before.
    """
    row = {"engine": "bark", "dtype": "float32", "device": "cpu", "reason": ""}
    try:
        generation = import_reference()
        require_memory(checkpoint, "cpu", together=True)
        ours = _draw_ours(checkpoint, examples)
        load_reference(generation, checkpoint, examples[0].tokenizer, torch.device("cpu"))
    except (NotRun, BarkfastError) as error:
        return [row | {"stage": "", "reason": " ".join(str(error).split())}]
    try:
        theirs = _draw_theirs(generation, examples, ours)
    finally:
        generation.clean_models()
    rows = []
    for stage in vars(ours):
        pairs = [(a.ravel(), b.ravel()) for a, b in zip(getattr(ours, stage), getattr(theirs, stage), strict=True)]
        tokens, equal = sum(max(len(a), len(b)) for a, b in pairs), sum(count_equal(b, a) for a, b in pairs)
        rows.append(row | {"stage": stage, "tokens": tokens, "equal": equal})
    return rows


def _draw_ours(checkpoint: Checkpoint, examples: Sequence[Example]) -> Drawn:
    """By the torch engine, one network at a time."""
    layout, placement, drawn = checkpoint.layout, reference_placement("cpu"), Drawn([], [], [])
    network: Any = build_network(checkpoint, "semantic", placement)
    for seed, one in enumerate(examples):
        torch.manual_seed(seed)
        history = None if one.voice is None else one.voice["semantic_prompt"]
        options: dict[str, Any] = {"min_eos_p": layout.semantic.min_eos_p, "max_duration_s": SECONDS}
        job = semantic_job(one.ids, layout, TOKENS, history=history, **options)
        drawn.semantic.append(network.run([job])[0].astype(np.int64))
    network = build_network(checkpoint, "coarse", placement)
    for seed, (one, tokens) in enumerate(zip(examples, drawn.semantic, strict=True)):
        torch.manual_seed(seed)
        past = None if one.voice is None else (one.voice["semantic_prompt"], one.voice["coarse_prompt"])
        windows = CoarseWindows(_at_least_one(tokens), layout, TOKENS, history=past)
        drawn.coarse.append(run_windows(windows, lambda job: network.run([job])[0]))
    network = build_network(checkpoint, "fine", placement)
    for seed, (one, codes) in enumerate(zip(examples[:FINE_SENTENCES], drawn.coarse, strict=False)):
        torch.manual_seed(seed)
        history = None if one.voice is None else one.voice["fine_prompt"]
        drawn.fine.append(run_windows(FineWindows(codes, layout, CODES, history=history), network.refine))
    return drawn


def _draw_theirs(generation: Any, examples: Sequence[Example], ours: Drawn) -> Drawn:
    """By `bark`, from our tokens of the stage before."""
    drawn = Drawn([], [], [])
    for seed, one in enumerate(examples):
        voice = None if one.voice is None else dict(one.voice)
        common = {"history_prompt": voice, "temp": TOKENS.temperature, "silent": True, "use_kv_caching": True}
        torch.manual_seed(seed)
        text = one.prompt.text
        drawn.semantic.append(generation.generate_text_semantic(text, max_gen_duration_s=SECONDS, **common))
        torch.manual_seed(seed)
        drawn.coarse.append(generation.generate_coarse(_at_least_one(ours.semantic[seed]), **common))
        if seed < FINE_SENTENCES:
            torch.manual_seed(seed)
            drawn.fine.append(generation.generate_fine(ours.coarse[seed], history_prompt=voice, temp=CODES.temperature))
    return drawn


def _at_least_one(tokens: np.ndarray) -> np.ndarray:
    """The tokens; one where there are none, which neither side would take."""
    return tokens if len(tokens) else np.zeros(1, np.int64)
