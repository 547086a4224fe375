"""The memory that a workload needs, and what a process has taken of it."""

import ctypes
import gc
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from barkfast.bench.environment import device_memory, memory_available
from barkfast.bench.workload import Workload
from barkfast.config import CodecConfig, FineConfig, GPTConfig
from barkfast.errors import InputError
from barkfast.weights import STAGES
from barkfast.weights.shapes import codec_shapes, gpt_shapes

# Bytes per number of a matrix; int8 and int4 have a bfloat16 scale for every 32 numbers.
MATRIX_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0625, "int4": 0.5625}
# A process with torch in it, and what CUDA takes of a GPU for itself.
PROCESS_BYTES, CONTEXT_BYTES = 350e6, 500e6
# Buffers beside the weights: numbers per position of a fine window, and per sample of the codec's output.
WINDOW_NUMBERS, SAMPLE_NUMBERS = 24, 4


def network_bytes(config: GPTConfig | FineConfig, dtype: str) -> float:
    """Bytes of one network's weights; tables and vectors are in bfloat16 where the matrices are integers."""
    other = 4 if dtype == "float32" else 2
    total = 0.0
    for key, shape in gpt_shapes(config).items():
        matrix = len(shape) == 2 and ".wte" not in key and ".wpe" not in key
        total += math.prod(shape) * (MATRIX_BYTES[dtype] if matrix else other)
    return total


def need_memory(workload: Workload) -> int:
    """Bytes that the workload takes on its device, by the sizes of its networks and before any is loaded.

    Weights, caches, the buffers of the fine window and the codec, and on a CPU the process itself and the weights of
    one network as they are stored, out of which the engine's are made. An estimate, rather above than below.
    """
    workload = workload.resolve()
    checkpoint = workload.open()
    configs = [checkpoint.stage(stage).config for stage in STAGES]
    number = 4 if workload.dtype == "float32" else 2
    total = sum(network_bytes(config, workload.dtype) for config in configs)
    total += sum(2 * c.n_layer * c.block_size * c.n_embd * number for c in configs if not isinstance(c, FineConfig))
    widest = max(config.n_embd for config in configs)
    total += checkpoint.layout.fine.window * widest * WINDOW_NUMBERS * 4
    codec = CodecConfig()
    total += 4 * sum(math.prod(shape) for shape in codec_shapes(codec).values())
    total += workload.seconds * codec.sample_rate * codec.n_filters * SAMPLE_NUMBERS * 4
    if workload.device == "cpu":
        total += PROCESS_BYTES + max(network_bytes(config, "float32") for config in configs)
    else:
        total += CONTEXT_BYTES
    return round(total)


def check_memory(workload: Workload, what: str = "the model") -> None:
    """Raise InputError that says the need unless there is room for the workload on its device."""
    workload = workload.resolve()
    need, free = need_memory(workload), device_memory(workload.device)
    free = memory_available() if free is None else free
    if need > free:
        raise InputError(
            f"{what} needs about {need / 1e9:.1f} GB of memory on {workload.device} in {workload.dtype}, and "
            f"{free / 1e9:.1f} GB are free; close other programs, or choose a smaller model (suno/bark-small, "
            "random:small) or a dtype of fewer bits (bfloat16, int8)"
        )


def tidy() -> None:
    """Give back what is no longer used, so that it does not count as somebody's memory."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def restart_peaks() -> None:
    """From here on count the peaks anew; on systems other than Linux the process's stays that since its start."""
    tidy()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def read_peaks() -> dict[str, Any]:
    """The most that this process has had in use: "rss_bytes", mapped files included, and "device_bytes" or None."""
    device = torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else None
    return {"rss_bytes": _peak_resident(), "device_bytes": device}


def _peak_resident() -> int:
    """0 where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
