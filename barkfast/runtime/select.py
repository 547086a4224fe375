"""Which device, dtype and engine a request gets, and why."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from barkfast.config import CodecConfig, FineConfig, GPTConfig, truthy
from barkfast.errors import EngineError, InputError
from barkfast.models.encodec import EncodecDecoder
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT
from barkfast.runtime.decoder import Codec, Decoder, Refiner
from barkfast.runtime.torch_ import TorchCodec, TorchDecoder, TorchRefiner

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run the networks, and whether it can be used here."""

    name: str
    available: bool
    reason: str


def describe_engines() -> list[Engine]:
    """Every engine, present or not, with the reason."""
    absent = "not part of this version of barkfast; the torch engine serves this device"
    return [
        Engine("torch", True, f"plain torch {torch.__version__}, any device"),
        Engine("cpu", False, absent),
        Engine("cuda", False, absent),
    ]


def resolve_device(device: str = "auto") -> str:
    """Choose and check a device: the argument, else $BARKFAST_DEVICE, else cuda, mps (only if enabled), cpu."""
    if device == "auto":
        device = os.environ.get("BARKFAST_DEVICE") or "auto"
    if device == "auto":
        if torch.cuda.device_count() > 0:
            return "cuda"
        return "mps" if torch.backends.mps.is_available() and truthy(os.environ.get("SUNO_ENABLE_MPS")) else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise InputError(f"device is {device!r}; expected auto, cpu, cuda, cuda:N or mps")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        raise InputError(f"device is {device!r}, but torch {torch.__version__} sees {count} CUDA devices; use cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device is {device!r}, but torch {torch.__version__} has no MPS here; use cpu")
    return device


def resolve_dtype(dtype: str = "auto", device: str = "cpu") -> torch.dtype:
    """Choose a dtype: the argument, else $BARKFAST_DTYPE, else bfloat16 where a GPU has it natively.

    Otherwise float16 on CUDA and float32 elsewhere.
    """
    if dtype == "auto":
        dtype = os.environ.get("BARKFAST_DTYPE") or "auto"
    if dtype == "auto":
        if not device.startswith("cuda"):
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    name = DTYPE_ALIASES.get(dtype, dtype)
    if name not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def resolve_engine(engine: str = "auto") -> str:
    """Choose an engine: the argument, else $BARKFAST_ENGINE, else the best that is present."""
    if engine == "auto":
        engine = os.environ.get("BARKFAST_ENGINE") or "auto"
    engines = {e.name: e for e in describe_engines()}
    if engine == "auto":
        return "torch"
    if engine not in engines:
        raise InputError(f"engine is {engine!r}; expected auto, {', '.join(engines)}")
    if not engines[engine].available:
        raise EngineError(f"engine {engine!r} is not available: {engines[engine].reason}; use engine='auto'")
    return engine


def _load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the checkpoint's tensors the model's parameters, without copying them."""
    model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(False).eval()


def build_decoder(config: GPTConfig, tensors: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> Decoder:
    """A decoder for the semantic or coarse network."""
    with torch.device("meta"):
        model = GPT(config)
    _load(model, tensors)
    return TorchDecoder(model.to(device, dtype))


def build_refiner(config: FineConfig, tensors: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> Refiner:
    """A refiner for the fine network."""
    with torch.device("meta"):
        model = FineGPT(config)
    _load(model, tensors)
    model.tie()
    return TorchRefiner(model.to(device, dtype))


def build_codec(config: CodecConfig, tensors: Mapping[str, Tensor], device: str) -> Codec:
    """The codec's decoder, in float32 as in the reference: it is small, and rounding would be heard."""
    with torch.device("meta"):
        model = EncodecDecoder(config)
    _load(model, tensors)
    return TorchCodec(model.to(device, torch.float32))
