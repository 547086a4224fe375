"""Networks that the user's program supplies: torch modules put into `models`, and checkpoints loaded by path."""

import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from barkfast.components import Components
from barkfast.config import DTYPES, FineConfig, GPTConfig
from barkfast.errors import InputError
from barkfast.runtime import select
from barkfast.text import Tokenizer, load_tokenizer
from barkfast.weights import STAGES, suno
from barkfast.weights.shapes import check_tensors, gpt_shapes
from barkfast.weights.sources import Folder


def adopt(components: Components) -> None:
    """Replace each torch module in `components.models` by an engine's network that runs it.

    The modules have Suno's configuration and parameter names, those of `bark.model` and `bark.model_fine`. The engine
    shares their parameters where it can, and runs on their device.

    Raises:
        InputError: an entry is no such network.
    """
    with components.lock:
        for component, entry in list(components.models.items()):
            _adopt(components, component, entry)


def _adopt(components: Components, component: str, entry: Any) -> None:
    network = entry.get("model") if isinstance(entry, dict) else entry
    if not isinstance(network, torch.nn.Module):
        return
    if component not in STAGES:
        raise InputError(f"models[{component!r}] is {type(network).__name__}; expected what load_codec_model() returns")
    engine, device = _wrap(components, component, network)
    if component == "text":
        tokenizer = entry.get("tokenizer") if isinstance(entry, dict) else None
        components.models[component] = {"model": engine, "tokenizer": _wrap_tokenizer(components, tokenizer)}
    else:
        components.models[component] = engine
    components.devices[component] = device


def load_network(
    components: Components, path: str | os.PathLike[str], device: str, component: str, small: bool | None
) -> Any:
    """Load a separate network, not in `models`, from Suno's checkpoint at `path`; without that file, the model's."""
    file = Path(path)
    checkpoint = components.checkpoint(small)
    weights = suno.read_stage(file, component, Folder(file.parent)) if file.is_file() else checkpoint.stage(component)
    check_tensors(weights.tensors, gpt_shapes(weights.config), str(path))
    engine = _build(components, component, weights.config, weights.tensors, select.resolve_device(device))
    return {"model": engine, "tokenizer": load_tokenizer(checkpoint)} if component == "text" else engine


def load_codec(components: Components, device: str) -> Any:
    """Load a separate codec, not in `models`."""
    codec, target = components.checkpoint().codec(), select.resolve_device(device)
    network = select.build_codec(codec.config, codec.tensors, _placement(components, target, None))
    network.read_encoder = codec.read_encoder
    return network


def _wrap(components: Components, component: str, network: torch.nn.Module) -> tuple[Any, str]:
    what = f"models[{component!r}] ({type(network).__name__})"
    config = getattr(network, "config", None)
    sizes = suno.read_model_args(asdict(config) if is_dataclass(config) else config, component, what)  # type: ignore[arg-type]
    tensors = suno.clean_keys(network.state_dict())
    check_tensors(tensors, gpt_shapes(sizes), what)
    weight = next(network.parameters())
    device = "cpu" if weight.device.type == "cpu" else str(weight.device)
    return _build(components, component, sizes, tensors, device, str(weight.dtype).removeprefix("torch.")), device


def _build(
    components: Components,
    component: str,
    config: GPTConfig | FineConfig,
    tensors: Mapping[str, torch.Tensor],
    device: str,
    dtype: str | None = None,
) -> Any:
    placement = _placement(components, device, dtype)
    if isinstance(config, FineConfig):
        return select.build_refiner(config, tensors, placement)
    return select.build_decoder("semantic" if component == "text" else component, config, tensors, placement)


def _placement(components: Components, device: str, dtype: str | None) -> select.Placement:
    """The placement of the model's own networks, but with the given dtype if it is not float32 and is supported."""
    engine = select.resolve_engine(components.engine, device)
    wanted = (
        dtype if dtype in DTYPES and dtype != "float32" and dtype in select.ENGINE_DTYPES[engine] else components.dtype
    )
    return select.Placement(engine, device, device, select.resolve_dtype(wanted, device, engine), components.n_slots)


def _wrap_tokenizer(components: Components, tokenizer: Any) -> Tokenizer:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if tokenizer is None:
        return load_tokenizer(components.checkpoint())
    if not hasattr(tokenizer, "get_vocab"):
        raise InputError(
            f"models['text']['tokenizer'] is {type(tokenizer).__name__}; expected transformers' BertTokenizer, or the "
            "one of load_model()"
        )
    vocabulary = tokenizer.get_vocab()
    settings = {name: getattr(tokenizer, name) for name in ("do_lower_case",) if hasattr(tokenizer, name)}
    return Tokenizer.from_vocabulary(sorted(vocabulary, key=vocabulary.__getitem__), "the program", **settings)
