"""A GPT's weights as the kernels read them: in the storage dtype, the layers' matrices optionally in int8."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from barkfast.config import FineConfig, GPTConfig

T = TypeVar("T", bound="Moveable")


class Moveable:
    """A dataclass of tensors and other Moveables that moves between devices as a whole."""

    def to(self: T, device: torch.device) -> T:
        """Return it on `device`."""
        return replace(self, **{f.name: _move(getattr(self, f.name), device) for f in fields(self)})  # type: ignore


def _move(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor | Moveable):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_move(item, device) for item in value)
    return value


@dataclass(frozen=True)
class Norm(Moveable):
    """Layer norm: weight and bias (n_embd,) in the storage dtype."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Matrix(Moveable):
    """A linear layer.

    Args:
        weight: (n_out, n_in) in the storage dtype, or int8.
        scale: (n_out,) float32, the factors of int8 weights; None for other weights.
        bias: (n_out,) in the storage dtype.
    """

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def dense(self, scratch: Tensor) -> Tensor:
        """The weight in the storage dtype; an int8 one is dequantized into `scratch`, which each call overwrites."""
        if self.scale is None:
            return self.weight
        out = scratch[: self.weight.numel()].view(self.weight.shape)
        return torch.mul(self.weight, self.scale[:, None], out=out)


@dataclass(frozen=True)
class Layer(Moveable):
    """One transformer layer."""

    norm_1: Norm
    qkv: Matrix
    out: Matrix
    norm_2: Norm
    fc: Matrix
    proj: Matrix


@dataclass(frozen=True)
class Network(Moveable):
    """A GPT, or the fine network.

    Args:
        wpe: (block_size, n_embd) position table.
        tables: token tables; one, (1, vocabulary, n_embd), for a GPT, one per codebook for the fine network.
        heads: output matrices (vocabulary, n_embd); one for a GPT, one per predicted codebook for the fine network.
        dtype: storage dtype of weights and activations.
        scratch: buffer for the largest matrix, dequantized; empty unless matrices are int8.
    """

    config: GPTConfig
    dtype: torch.dtype
    wpe: Tensor
    tables: Tensor
    layers: tuple[Layer, ...]
    norm: Norm
    heads: tuple[Tensor, ...]
    scratch: Tensor


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round (n_out, n_in) weights to int8, symmetrically per output channel: (int8 weights, float32 scales)."""
    scale = (weight.float().abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def load_network(
    config: GPTConfig,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    int8: bool = False,
) -> Network:
    """Put a checkpoint's tensors (names as in barkfast.models) on `device`.

    Args:
        dtype: storage dtype.
        int8: store the layers' matrices as int8; heads, tables and norms stay in `dtype`.
    """

    def take(name: str) -> Tensor:
        return tensors[name].to(device, dtype).contiguous()

    def take_norm(name: str) -> Norm:
        return Norm(take(f"{name}.weight"), take(f"{name}.bias") if f"{name}.bias" in tensors else None)

    def take_matrix(name: str) -> Matrix:
        bias = take(f"{name}.bias") if f"{name}.bias" in tensors else None
        if not int8:
            return Matrix(take(f"{name}.weight"), None, bias)
        # Quantized from the checkpoint's own precision: rounding to `dtype` first would add an error.
        weight, scale = quantize(tensors[f"{name}.weight"].to(device))
        return Matrix(weight.contiguous(), scale, bias)

    layers = []
    for i in range(config.n_layer):
        name = f"transformer.h.{i}"
        layers.append(
            Layer(
                norm_1=take_norm(f"{name}.ln_1"),
                qkv=take_matrix(f"{name}.attn.c_attn"),
                out=take_matrix(f"{name}.attn.c_proj"),
                norm_2=take_norm(f"{name}.ln_2"),
                fc=take_matrix(f"{name}.mlp.c_fc"),
                proj=take_matrix(f"{name}.mlp.c_proj"),
            )
        )
    if isinstance(config, FineConfig):
        # As FineGPT.tie(): a head is also the input table of the codebook it predicts.
        heads = [take(f"lm_heads.{i}.weight") for i in range(config.n_codes_total - config.n_codes_given)]
        untied = [take(f"transformer.wtes.{k}.weight") for k in range(config.n_codes_total)]
        untied[1 : 1 + len(heads)] = heads
        tables = torch.stack(untied)
        heads = [tables[i + 1] for i in range(len(heads))]
    else:
        tables = take("transformer.wte.weight")[None]
        heads = [take("lm_head.weight")]
    return Network(
        config=config,
        dtype=dtype,
        wpe=take("transformer.wpe.weight"),
        tables=tables,
        layers=tuple(layers),
        norm=take_norm("transformer.ln_f"),
        heads=tuple(heads),
        scratch=torch.empty(4 * config.n_embd**2 if int8 else 0, device=device, dtype=dtype),
    )
