"""Which device, dtype and engine a request gets, and why."""

import importlib.metadata
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from barkfast.config import CodecConfig, FineConfig, GPTConfig, truthy
from barkfast.errors import BarkfastError, EngineError, InputError
from barkfast.models.encodec import EncodecDecoder
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT
from barkfast.runtime.decoder import Codec, Decoder, Refiner
from barkfast.runtime.torch_ import TorchCodec, TorchDecoder, TorchRefiner

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
DTYPE_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
MIN_TRITON = (3, 4)
MIN_CAPABILITY = (7, 0)


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run the networks, and whether it can be used here."""

    name: str
    available: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a network is to run.

    Args:
        engine, device: resolved names.
        home: where its weights wait while it is not used.
        dtype: storage; torch.int8 stands for int8 matrices and the device's best dtype for the rest.
        n_slots: sequences at a time, of engines that run several.
    """

    engine: str
    device: str
    home: str
    dtype: torch.dtype
    n_slots: int = 1

    @property
    def storage(self) -> torch.dtype:
        """What activations and cache are stored in."""
        return half_dtype(self.device) if self.dtype == torch.int8 else self.dtype


def describe_engines(device: str = "cuda") -> list[Engine]:
    """Every engine, present or not on `device` (of CUDA devices: the current one), with the reason."""
    return [
        Engine("torch", True, f"plain torch {torch.__version__}, any device"),
        Engine("cpu", False, "not part of this version of barkfast; the torch engine serves this device"),
        _describe_cuda(device),
    ]


def _describe_cuda(device: str) -> Engine:
    def no(reason: str) -> Engine:
        return Engine("cuda", False, f"{reason}; the torch engine serves instead")

    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return no("Triton is not installed (torch's CUDA builds bring it along; else pip install 'triton>=3.4')")
    if tuple(map(int, version.split(".")[:2])) < MIN_TRITON:
        return no(f"Triton {version} is too old, 3.4 or newer is needed")
    if importlib.util.find_spec("barkfast_kernels") is None:
        return no("the package barkfast_kernels is missing: install barkfast again")
    if torch.version.hip is not None:
        return no("on AMD GPUs (ROCm) the kernels have not been tried")
    if torch.cuda.device_count() > 0:
        major, minor = torch.cuda.get_device_capability(device if device.startswith("cuda") else None)
        if (major, minor) < MIN_CAPABILITY:
            return no(f"compute capability {major}.{minor} is too old for Triton")
        return Engine("cuda", True, f"Triton {version}, CUDA {torch.version.cuda}, compute capability {major}.{minor}")
    if truthy(os.environ.get("TRITON_INTERPRET")):
        return Engine("cuda", True, f"Triton {version}'s interpreter on the CPU: for tests, very slow")
    return no("torch sees no CUDA device")


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


def half_dtype(device: str) -> torch.dtype:
    """bfloat16 where it is native, else float16 on CUDA and float32 on other devices."""
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def resolve_dtype(dtype: str = "auto", device: str = "cpu", engine: str = "torch") -> torch.dtype:
    """Choose and check a dtype: the argument, else $BARKFAST_DTYPE, else `half_dtype`.

    torch.int8 stands for int8 matrices, which only the cuda engine has.
    """
    if dtype == "auto":
        dtype = os.environ.get("BARKFAST_DTYPE") or "auto"
    if dtype == "auto":
        return half_dtype(device)
    name = DTYPE_ALIASES.get(dtype, dtype)
    if name not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    if name == "int8" and engine != "cuda":
        raise InputError(f"dtype is 'int8', which the {engine} engine does not have; use a CUDA device, or bfloat16")
    if name == "bfloat16" and device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] < 8:
        raise InputError(
            f"dtype is {dtype!r}, which {torch.cuda.get_device_name(device)} only emulates; use float16 or auto"
        )
    return DTYPES[name]


def resolve_engine(engine: str = "auto", device: str = "cpu") -> str:
    """Choose and check an engine: the argument, else $BARKFAST_ENGINE, else the best for the (resolved) device."""
    if engine == "auto":
        engine = os.environ.get("BARKFAST_ENGINE") or "auto"
    engines = {e.name: e for e in describe_engines(device)}
    if engine == "auto":
        return "cuda" if device.startswith("cuda") and engines["cuda"].available else "torch"
    if engine not in engines:
        raise InputError(f"engine is {engine!r}; expected auto, {', '.join(engines)}")
    if not engines[engine].available:
        raise EngineError(f"engine {engine!r} is not available: {engines[engine].reason}; use engine='auto'")
    if engine == "cuda" and not device.startswith("cuda") and torch.cuda.device_count() > 0:
        raise InputError(f"engine is 'cuda', but device is {device!r}; use device='cuda'")
    return engine


def _load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the checkpoint's tensors the model's parameters, without copying them."""
    model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(False).eval()


Network = TypeVar("Network", Decoder, Refiner, Codec)


def _build(what: str, place: Placement, cuda: Callable[[], Network], plain: Callable[[], Network]) -> Network:
    """What the placement's engine makes; if the cuda engine cannot, the torch engine's, with one warning."""
    if place.engine != "cuda":
        return plain()
    try:
        return cuda()
    except BarkfastError:
        raise
    except Exception as error:
        # Whatever Triton, its compiler or the driver may raise: the other engine gives the same, only slower.
        reason = " ".join(str(error).split())[:300]
        logger.warning("the cuda engine failed for the %s, the torch engine serves instead, slower: %s", what, reason)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return plain()


def build_decoder(stage: str, config: GPTConfig, tensors: Mapping[str, Tensor], place: Placement) -> Decoder:
    """A decoder for the semantic or coarse network, which `stage` names."""

    def cuda() -> Decoder:
        from barkfast.runtime.cuda.decoder import CudaDecoder

        decoder = CudaDecoder(
            config,
            tensors,
            stage=stage,
            device=_torch_device(place.device),
            home=_torch_device(place.home),
            dtype=place.storage,
            int8=place.dtype == torch.int8,
            n_slots=place.n_slots,
        )
        if place.home == place.device:
            decoder.warm_up()
        return decoder

    def plain() -> Decoder:
        with torch.device("meta"):
            model = GPT(config)
        _load(model, tensors)
        return TorchDecoder(model.to(place.home, place.storage), stage=stage)

    return _build(f"{stage} network", place, cuda, plain)


def build_refiner(config: FineConfig, tensors: Mapping[str, Tensor], place: Placement) -> Refiner:
    """A refiner for the fine network."""

    def cuda() -> Refiner:
        from barkfast.runtime.cuda.refiner import CudaRefiner

        refiner = CudaRefiner(
            config,
            tensors,
            device=_torch_device(place.device),
            home=_torch_device(place.home),
            dtype=place.storage,
        )
        if place.home == place.device:
            refiner.warm_up()
        return refiner

    def plain() -> Refiner:
        with torch.device("meta"):
            model = FineGPT(config)
        _load(model, tensors)
        model.tie()
        return TorchRefiner(model.to(place.home, place.storage))

    return _build("fine network", place, cuda, plain)


def build_codec(config: CodecConfig, tensors: Mapping[str, Tensor], place: Placement) -> Codec:
    """The codec's decoder: float16 on the cuda engine unless float32 is asked for, float32 as in the reference else."""

    def model() -> EncodecDecoder:
        with torch.device("meta"):
            model = EncodecDecoder(config)
        _load(model, tensors)
        return model

    def cuda() -> Codec:
        from barkfast.runtime.cuda.codec import CudaCodec

        dtype = torch.float32 if place.storage == torch.float32 else torch.float16
        codec = CudaCodec(model(), device=_torch_device(place.device), home=_torch_device(place.home), dtype=dtype)
        if place.home == place.device:
            codec.warm_up()
        return codec

    return _build("codec", place, cuda, lambda: TorchCodec(model().to(place.home, torch.float32)))


def _torch_device(name: str) -> torch.device:
    """The device with its index, so that "cuda" and "cuda:0" are the same."""
    device = torch.device(name)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
