"""The others, in the same run, on the same weights, for the same clip: transformers' BarkModel, and `bark` itself.

Loaded as they run by default: BarkModel in a dtype that is asked for, `bark` with its autocast where it has one.
"""

import importlib.machinery
import sys
import time
import types
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from barkfast.config import FineConfig, GPTConfig
from barkfast.stages.semantic import count_steps
from barkfast.text import Tokenizer
from barkfast.weights import open_model
from benchmarks.plan import Plan
from benchmarks.record import NotRun
from benchmarks.sources import TEXT, source, vocabulary
from benchmarks.timing import in_row, summarize

SAMPLE_RATE = 24_000
Voice = Mapping[str, np.ndarray]


def steps(plan: Plan, size: str, clip_s: float | None = None) -> int:
    """Semantic tokens of the clip."""
    model = open_model(source(plan, size))
    return count_steps(clip_s or plan.clip_s, model.layout.semantic)


class Watch:
    """Seconds spent in calls, by name, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Any:
        """Time the block."""
        start = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Time every call of a method."""
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(label):
                return inner(*args, **kwargs)

        setattr(owner, name, timed)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def repeat(
    plan: Plan, watch: Watch, speak: Callable[[], int], n_semantic: int, *, most: int, leave: float
) -> dict[str, Any]:
    """A row: real-time factors and milliseconds per semantic token of up to `most` clips, one if time is short.

    Args:
        leave: seconds of the section that are to be left to others.
    """
    factors: list[float] = []
    per_token: list[float] = []
    begin = time.monotonic()
    while not factors or (
        len(factors) < most and plan.time_left - leave > 1.3 * (time.monotonic() - begin) / len(factors)
    ):
        watch.seconds.clear()
        torch.manual_seed(len(factors))
        with watch.time("all"):
            samples = speak()
        audio_s = samples / SAMPLE_RATE
        factors.append(watch.seconds["all"] / audio_s)
        per_token.append(watch.seconds.get("semantic", float("nan")) / n_semantic * 1e3)
    stages = {name: seconds for name, seconds in watch.seconds.items() if name != "all"}
    return {
        "audio_s": audio_s,
        "last_seconds": stages,
        "ms_per_semantic_token": summarize(per_token)["median"],
    } | in_row("real_time_factor", factors, 4)


def time_transformers(
    plan: Plan,
    size: str,
    dtype: torch.dtype,
    *,
    voice: Voice | None = None,
    most: int = 1,
    warm: bool = True,
    leave: float = 0,
    clip_s: float | None = None,
) -> dict[str, Any]:
    """BarkModel.generate, key-value cache and sampling as it comes, made to go on until the clip is as long.

    Args:
        clip_s: another length than the run's clips have.
    """
    try:
        import transformers
        from transformers import BarkModel
    except Exception as error:
        raise NotRun(f"transformers cannot be imported: {type(error).__name__}: {error}") from error
    folder = plan.models / size
    if not folder.is_dir():
        raise NotRun("there is no converted model to load")
    try:
        model = BarkModel.from_pretrained(str(folder), dtype=dtype)
    except TypeError:
        # The argument's name before 4.56.
        model = BarkModel.from_pretrained(str(folder), torch_dtype=dtype)
    model = model.to(plan.device).eval()
    watch = Watch(plan.device)
    watch.wrap(model.semantic, "generate", "semantic")
    watch.wrap(model.coarse_acoustics, "generate", "coarse")
    watch.wrap(model.fine_acoustics, "generate", "fine")
    watch.wrap(model, "codec_decode", "codec")
    n = steps(plan, size, clip_s)
    ids = torch.tensor([Tokenizer.from_path(vocabulary(plan.work)).encode(TEXT)], device=plan.device)
    mask = (torch.arange(256, device=plan.device) < ids.shape[1]).long()[None]
    ids = torch.nn.functional.pad(ids, (0, 256 - ids.shape[1]))
    history = None
    if voice is not None:
        history = {name: torch.from_numpy(np.asarray(part)).to(plan.device) for name, part in voice.items()}

    def speak(n_tokens: int) -> int:
        # Tokens exactly: random weights must not end the clip.
        with torch.inference_mode():
            limits = {"semantic_max_new_tokens": n_tokens, "semantic_min_new_tokens": n_tokens}
            return model.generate(ids, attention_mask=mask, history_prompt=history, **limits).shape[-1]

    if warm:
        speak(min(n, 50))
    row = repeat(plan, watch, lambda: speak(n), n, most=most, leave=leave)
    return row | {"version": transformers.__version__, "dtype": str(dtype).removeprefix("torch.")}


def import_reference() -> Any:
    """`bark.generation`, with a stand-in for torchaudio, of which `encodec` uses nothing here but the import."""
    try:
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
        raise NotRun(f"bark cannot be imported: {type(error).__name__}: {error}") from error
    return bark.generation


def load_reference(plan: Plan, size: str, generation: Any) -> None:
    """Put our weights into the reference's own modules, where its functions look for them."""
    from bark.model import GPT
    from bark.model import GPTConfig as Config
    from bark.model_fine import FineGPT
    from bark.model_fine import FineGPTConfig as FineConf
    from transformers import BertTokenizer

    model = open_model(source(plan, size))
    networks = {}
    for stage in ("text", "coarse", "fine"):
        weights = model.stage(stage)
        build, make = (FineGPT, FineConf) if stage == "fine" else (GPT, Config)
        network = build(make(**config_of(weights.config)))
        missing, unexpected = network.load_state_dict(
            {name: value.float() for name, value in weights.tensors.items()}, strict=False
        )
        wrong = [name for name in missing if not name.endswith(".attn.bias")] + list(unexpected)
        if wrong:
            raise RuntimeError(f"the reference's {stage} network does not take our weights: {wrong[:5]}")
        networks[stage] = network.eval().to(plan.device)
    tokenizer = BertTokenizer(str(vocabulary(plan.work)), do_lower_case=False)
    generation.models["text"] = {"model": networks["text"], "tokenizer": tokenizer}
    generation.models |= {"coarse": networks["coarse"], "fine": networks["fine"]}
    generation.models["codec"] = reference_codec(plan, generation)


def config_of(config: GPTConfig | FineConfig) -> dict[str, Any]:
    """Sizes under the reference's names, which are ours."""
    names = ["block_size", "input_vocab_size", "output_vocab_size", "n_layer", "n_head", "n_embd", "bias"]
    if isinstance(config, FineConfig):
        names += ["n_codes_total", "n_codes_given"]
    return {name: getattr(config, name) for name in names}


def reference_codec(plan: Plan, generation: Any) -> Any:
    """encodec's 24 kHz model with the weights it makes up itself: its time does not depend on them."""
    codec = generation.EncodecModel.encodec_model_24khz(pretrained=False)
    codec.set_target_bandwidth(6.0)
    return codec.eval().to(plan.device)


def time_reference(
    plan: Plan, size: str, *, voice: Voice | None = None, most: int = 1, warm: bool = True
) -> dict[str, Any]:
    """Its stages as its own `generate_audio` calls them, with its key-value cache."""
    generation = import_reference()
    load_reference(plan, size, generation)
    watch = Watch(plan.device)
    history = None if voice is None else dict(voice)

    def speak(seconds: float) -> int:
        with watch.time("semantic"):
            semantic = generation.generate_text_semantic(
                TEXT,
                history_prompt=history,
                temp=0.7,
                silent=True,
                max_gen_duration_s=seconds,
                allow_early_stop=False,
                use_kv_caching=True,
            )
        with watch.time("coarse"):
            coarse = generation.generate_coarse(
                semantic, history_prompt=history, temp=0.7, silent=True, use_kv_caching=True
            )
        with watch.time("fine"):
            fine = generation.generate_fine(coarse, history_prompt=history, temp=0.5)
        with watch.time("codec"):
            return np.asarray(generation.codec_decode(fine)).shape[-1]

    if warm:
        speak(min(1.0, plan.clip_s))
    row = repeat(plan, watch, lambda: speak(plan.clip_s), steps(plan, size), most=most, leave=0)
    with generation.autocast():
        autocast = str(torch.get_autocast_dtype("cuda")) if torch.is_autocast_enabled("cuda") else "none"
    return row | {"dtype": f"float32 weights, autocast {autocast.removeprefix('torch.')}"}
