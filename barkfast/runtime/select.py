"""Choose device, dtype and engine, and build the networks on them."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from barkfast.config import DTYPE_ALIASES, DTYPES, CodecConfig, FineConfig, GPTConfig, truthy
from barkfast.errors import BarkfastError, EngineError, InputError
from barkfast.models.encodec import EncodecDecoder
from barkfast.models.fine import FineGPT
from barkfast.models.gpt import GPT
from barkfast.native import native_status
from barkfast.runtime.decoder import Codec, Decoder, Refiner
from barkfast.runtime.engines import choose_isa, describe_engines
from barkfast.runtime.torch_ import TorchCodec, TorchDecoder, TorchRefiner

logger = logging.getLogger(__name__)

# Engine -> the dtypes that it supports.
ENGINE_DTYPES = {
    "torch": ("float32", "bfloat16", "float16"),
    "cpu": ("float32", "bfloat16", "int8", "int4"),
    "cuda": ("float32", "bfloat16", "float16", "int8"),
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a network runs.

    Args:
        engine, device: resolved names.
        storage_device: where its weights are while it is not used.
        dtype: storage dtype of the weights, one of barkfast.config.DTYPES; int8 and int4 apply to the matrices only.
        n_slots: sequences at a time, for engines that run several.
        may_fall_back: whether the torch engine may replace this one if it fails: true if the user did not name it.
        fallback: why this is the torch engine and not the device's own; None without a fallback.
    """

    engine: str
    device: str
    storage_device: str
    dtype: str
    n_slots: int = 1
    may_fall_back: bool = False
    fallback: str | None = None

    @property
    def storage(self) -> torch.dtype:
        """The torch dtype of parameters, activations and cache.

        If the cpu engine cannot run a network, the torch engine does in float32, its only fast dtype on CPUs.
        """
        if self.engine == "cpu":
            return torch.float32
        return torch_dtype(half_dtype(self.device) if self.dtype == "int8" else self.dtype)


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


def half_dtype(device: str) -> str:
    """bfloat16 where it is native, else float16 on CUDA and float32 on other devices."""
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype of that name."""
    return getattr(torch, name)


def default_dtype(device: str, engine: str) -> str:
    """A fast dtype of sufficient quality."""
    return "bfloat16" if engine == "cpu" else half_dtype(device)


def resolve_dtype(dtype: str = "auto", device: str = "cpu", engine: str = "torch") -> str:
    """Choose and check a dtype: the argument, else $BARKFAST_DTYPE, else `default_dtype`."""
    if dtype == "auto":
        dtype = os.environ.get("BARKFAST_DTYPE") or "auto"
    if dtype == "auto":
        return default_dtype(device, engine)
    name = DTYPE_ALIASES.get(dtype, dtype)
    if name not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    if engine == "cpu" and name == "float16":
        raise InputError(f"dtype is {dtype!r}, which CPUs have to convert at every use; use bfloat16 or float32")
    if name not in ENGINE_DTYPES[engine]:
        having = " or ".join(f"engine {other!r}" for other, names in ENGINE_DTYPES.items() if name in names)
        raise InputError(
            f"dtype is {dtype!r}, which the {engine} engine does not have; "
            f"use {', '.join(ENGINE_DTYPES[engine])}, or {having} where it is available"
        )
    if name == "bfloat16" and device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] < 8:
        raise InputError(
            f"dtype is {dtype!r}, which {torch.cuda.get_device_name(device)} only emulates; use float16 or auto"
        )
    return name


def resolve_engine(engine: str = "auto", device: str = "cpu") -> str:
    """Choose and check an engine: the argument, else $BARKFAST_ENGINE, else the best for the (resolved) device."""
    if engine == "auto":
        engine = os.environ.get("BARKFAST_ENGINE") or "auto"
    if engine in ("auto", "cpu") and device == "cpu" and native_status()[0]:
        _check_cpu_settings()
    engines = {e.name: e for e in describe_engines(device)}
    if engine == "auto":
        best = device.partition(":")[0]
        return best if best in engines and engines[best].available else "torch"
    if engine not in engines:
        raise InputError(f"engine is {engine!r}; expected auto, {', '.join(engines)}")
    if not engines[engine].available:
        raise EngineError(f"engine {engine!r} is not available: {engines[engine].reason}; use engine='auto'")
    if engine == "cpu" and device != "cpu":
        raise InputError(f"engine is 'cpu', but device is {device!r}; use device='cpu'")
    if engine == "cuda" and not device.startswith("cuda") and torch.cuda.device_count() > 0:
        raise InputError(f"engine is 'cuda', but device is {device!r}; use device='cuda'")
    return engine


def why_torch(engine: str, device: str) -> str | None:
    """Why "auto" falls back to the torch engine although the device has its own; None if it does not."""
    if is_chosen(engine):
        return None
    own = {e.name: e for e in describe_engines(device)}.get(device.partition(":")[0])
    return None if own is None or own.available else f"the {own.name} engine is not available: {own.reason}"


@cache
def warn_of_fallback(reason: str) -> None:
    """Log once why the torch engine is used."""
    logger.warning("%s", reason)


def is_chosen(engine: str) -> bool:
    """Whether the user named an engine, by the argument or $BARKFAST_ENGINE."""
    return engine != "auto" or (os.environ.get("BARKFAST_ENGINE") or "auto") != "auto"


def _check_cpu_settings() -> None:
    """Raise InputError for an instruction-set level or a number of threads that this machine does not have."""
    from barkfast.runtime.cpu.threads import count_threads

    choose_isa()
    count_threads()


def _load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the checkpoint's tensors the model's parameters, without copying them."""
    model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(False).eval()


Network = TypeVar("Network", Decoder, Refiner, Codec)
Builders = Mapping[str, Callable[[], Network]]


def _build(what: str, placement: Placement, builders: Builders[Network], plain: Callable[[], Network]) -> Network:
    """Build a network with the placement's engine; with the torch engine and one warning where a fallback is allowed.

    Raises: EngineError if the engine fails and no fallback is allowed, or the error is no reason for one.
    """
    if placement.engine not in builders:
        network = plain()
        network.fallback = placement.fallback
        return network
    try:
        return builders[placement.engine]()
    except BarkfastError:
        raise
    except Exception as error:
        # Drivers and kernel compilers raise errors of their own kinds.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if not placement.may_fall_back or not _is_reason_to_fall_back(error):
            raise EngineError(
                f"the {placement.engine} engine failed for the {what}: {reason}; use engine='torch', or 'auto', which "
                "falls back to it where this engine cannot run a network, has no memory, or cannot compile its kernels"
            ) from error
        logger.warning(
            "the %s engine failed for the %s, the torch engine serves instead, slower: %s",
            placement.engine,
            what,
            reason,
        )
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    network = plain()
    network.fallback = f"the {placement.engine} engine failed: {reason}"
    return network


def _is_reason_to_fall_back(error: Exception) -> bool:
    """Whether the error shows that the engine lacks something here, rather than a bug, so that torch may replace it.

    Its kernels do not support the network's size; no memory; no compiler, or a kernel that does not compile.
    """
    if isinstance(error, NotImplementedError | MemoryError | torch.OutOfMemoryError | OSError | ImportError):
        return True
    if type(error).__module__.startswith("triton."):
        return True
    return isinstance(error, RuntimeError) and "C compiler" in str(error)


def _require_fit(reason: str | None) -> None:
    """Raise NotImplementedError if there is a reason why the engine cannot run the network."""
    if reason:
        raise NotImplementedError(reason)


def build_decoder(
    stage: str,
    config: GPTConfig,
    tensors: Mapping[str, Tensor],
    placement: Placement,
    content: Callable[[], str] | None = None,
) -> Decoder:
    """A decoder for the semantic or coarse network, which `stage` names.

    Args:
        content: returns an id of the tensors' content, for the cpu engine's cache of packed weights; None: no cache.
    """

    def cpu() -> Decoder:
        from barkfast.runtime.cpu.decoder import CpuDecoder
        from barkfast.runtime.cpu.levels import choose_level
        from barkfast.runtime.cpu.packing import fits
        from barkfast.runtime.cpu.store import open_packed
        from barkfast.runtime.cpu.threads import shared_pool

        _require_fit(fits(config))
        pool = shared_pool()
        packed = open_packed(
            config, tensors, placement.dtype, what=f"the {stage} network", content=content, threads=pool.size
        )
        isa = choose_level(placement.dtype)
        return CpuDecoder(
            config, packed, stage=stage, pool=pool, n_slots=placement.n_slots, dtype=placement.dtype, isa=isa
        )

    def cuda() -> Decoder:
        from barkfast.runtime.cuda.decoder import CudaDecoder

        decoder = CudaDecoder(
            config,
            tensors,
            stage=stage,
            device=_torch_device(placement.device),
            storage_device=_torch_device(placement.storage_device),
            dtype=placement.storage,
            int8=placement.dtype == "int8",
            n_slots=placement.n_slots,
        )
        if placement.storage_device == placement.device:
            decoder.warm_up()
        return decoder

    def plain() -> Decoder:
        with torch.device("meta"):
            model = GPT(config)
        _load(model, tensors)
        return TorchDecoder(model.to(placement.storage_device, placement.storage), stage=stage)

    return _build(f"{stage} network", placement, {"cpu": cpu, "cuda": cuda}, plain)


def build_refiner(
    config: FineConfig, tensors: Mapping[str, Tensor], placement: Placement, content: Callable[[], str] | None = None
) -> Refiner:
    """A refiner for the fine network. Args: as `build_decoder`."""

    def cpu() -> Refiner:
        from barkfast.runtime.cpu.levels import choose_level
        from barkfast.runtime.cpu.packing import fits
        from barkfast.runtime.cpu.refiner import CpuRefiner
        from barkfast.runtime.cpu.store import open_packed
        from barkfast.runtime.cpu.threads import shared_pool

        _require_fit(fits(config))
        pool = shared_pool()
        packed = open_packed(
            config, tensors, placement.dtype, what="the fine network", content=content, threads=pool.size
        )
        return CpuRefiner(config, packed, pool=pool, dtype=placement.dtype, isa=choose_level(placement.dtype))

    def cuda() -> Refiner:
        from barkfast.runtime.cuda.refiner import CudaRefiner

        refiner = CudaRefiner(
            config,
            tensors,
            device=_torch_device(placement.device),
            storage_device=_torch_device(placement.storage_device),
            dtype=placement.storage,
        )
        if placement.storage_device == placement.device:
            refiner.warm_up()
        return refiner

    def plain() -> Refiner:
        with torch.device("meta"):
            model = FineGPT(config)
        _load(model, tensors)
        model.tie()
        return TorchRefiner(model.to(placement.storage_device, placement.storage))

    return _build("fine network", placement, {"cpu": cpu, "cuda": cuda}, plain)


def build_codec(config: CodecConfig, tensors: Mapping[str, Tensor], placement: Placement) -> Codec:
    """The codec's decoder: float32 as in the reference; on the cuda engine float16, unless float32 is requested."""

    def cpu() -> Codec:
        from barkfast.runtime.cpu.codec import CpuCodec, fits
        from barkfast.runtime.cpu.threads import shared_pool

        _require_fit(fits(config))
        return CpuCodec(config, tensors, pool=shared_pool())

    def model() -> EncodecDecoder:
        with torch.device("meta"):
            model = EncodecDecoder(config)
        _load(model, tensors)
        return model

    def cuda() -> Codec:
        from barkfast.runtime.cuda.codec import CudaCodec

        dtype = torch.float32 if placement.storage == torch.float32 else torch.float16
        codec = CudaCodec(
            model(),
            device=_torch_device(placement.device),
            storage_device=_torch_device(placement.storage_device),
            dtype=dtype,
        )
        if placement.storage_device == placement.device:
            codec.warm_up()
        return codec

    def plain() -> Codec:
        return TorchCodec(model().to(placement.storage_device, torch.float32))

    return _build("codec", placement, {"cpu": cpu, "cuda": cuda}, plain)


def _torch_device(name: str) -> torch.device:
    """The device with its index, so that "cuda" and "cuda:0" are the same."""
    device = torch.device(name)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
