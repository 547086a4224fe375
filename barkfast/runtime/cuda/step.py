"""One token for every row of a batch: the launches of a decode step, in one of two ways.

The vector way keeps its share of each matrix in registers, or in CUDA rather than Triton in shared memory, and
multiplies the batch's rows with it one by one: few, fused kernels, best for one to eight sequences. The matrix way uses
matrix instructions. A row's result does not depend on its batch mates in either, but differs in the last bits between
them, so an engine keeps to one.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from barkfast.errors import EngineError
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.network import Layer, Network
from barkfast.runtime.cuda.state import State
from barkfast_kernels.attention_out import attention_out
from barkfast_kernels.batch_linear import linear_gelu, linear_head, linear_partial, linear_qkv, partial_splits
from barkfast_kernels.decode_attention import combine_splits, decode_attention
from barkfast_kernels.hopper import HopperOps, Shape, why_not
from barkfast_kernels.launch import INTERPRETED
from barkfast_kernels.norm_fc_gelu import norm_fc_gelu
from barkfast_kernels.norm_head import norm_head
from barkfast_kernels.norm_qkv import norm_qkv
from barkfast_kernels.proj_residual import proj_residual
from barkfast_kernels.residual_norm import residual_norm
from barkfast_kernels.sample import sample

Slices = tuple[tuple[int, int], ...]

# Rows up to which the vector way is used: beyond, its multiplications take longer than reading the weights.
VECTOR_ROWS = 8
# Parts that a context is divided into, so that one sequence's heads fill the device; there is none in the interpreter.
CONTEXT_SPLITS = 2 if INTERPRETED else 8
TRITON = SimpleNamespace(
    splits=CONTEXT_SPLITS,
    norm_qkv=norm_qkv,
    decode_attention=decode_attention,
    attention_out=attention_out,
    norm_fc_gelu=norm_fc_gelu,
    proj_residual=proj_residual,
)


def shape_of(network: Network) -> Shape:
    """What the CUDA kernels are compiled for."""
    config, int8 = network.config, network.layers[0].qkv.scale is not None
    return Shape(config.n_embd, config.n_head, config.block_size, network.dtype, int8)


def hopper_operations(network: Network, device: torch.device) -> HopperOps:
    """A layer's five operations in CUDA.

    Errors: EngineError if they cannot serve the network there.
    """
    shape = shape_of(network)
    reason = why_not(shape, device)
    if reason:
        raise EngineError(f"the CUDA kernels of a step cannot be used: {reason}; use a variant with Triton's")
    return HopperOps(shape)


@dataclass(frozen=True)
class Vocabulary:
    """Which vocabulary rows a job may draw from, and room for their logits.

    Args:
        ranges: [first, end) of each slice.
        slices: (n_slices, 2) int32 on the device: first row and width of each.
        stop_row: the stop token's row, which competes too; -1 for none.
        logits, noise: (n_slots, widest slice + stop row) float32; by row of the batch, of the last step.
    """

    ranges: Slices
    slices: Tensor
    stop_row: int
    logits: Tensor
    noise: Tensor

    @classmethod
    def allocate(cls, ranges: Slices, stop_row: int, n_slots: int, device: torch.device) -> "Vocabulary":
        """On `device`, for up to `n_slots` rows."""
        width = max(end - first for first, end in ranges) + (stop_row >= 0)
        table = torch.tensor([[first, end - first] for first, end in ranges], dtype=torch.int32)
        logits, noise = torch.empty(2, n_slots, width, device=device)
        return cls(ranges, table.to(device), stop_row, logits, noise)


class DecodeStep:
    """The launches of one step on fixed buffers.

    Args:
        network, state: weights, and what is remembered by slot.
        stage: the number that keys this network's random numbers.
        options: how its kernels are launched, and which.
    """

    def __init__(self, network: Network, state: State, *, stage: int, options: Options) -> None:
        self.network, self.state, self.stage, self.pdl = network, state, stage, options.pdl
        config, n_slots, device = network.config, len(state.x), state.x.device
        width = config.n_embd
        self.vector = n_slots <= VECTOR_ROWS
        in_cuda = self.vector and options.variant.kernels == "cuda"
        self._operations: Any = hopper_operations(network, device) if in_cuda else TRITON
        splits = self._operations.splits
        self._keys, self._values = state.keys.unbind(), state.values.unbind()

        def scratch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(n_slots, *shape, device=device, dtype=dtype)

        self._q = scratch(width)
        self._partial = scratch(config.n_head, splits, config.head_dim)
        self._stats = scratch(config.n_head, splits, 2)
        self._hidden = scratch(4 * width, dtype=network.dtype)
        if not self.vector:
            self._h = scratch(width, dtype=network.dtype)
            # Sums over inputs are divided too, and added up by the norm that follows.
            matrices = (network.layers[0].out, network.layers[0].proj)
            self._out_sums, self._proj_sums = (
                torch.empty(partial_splits(matrix.weight, network.dtype), n_slots, width, device=device)
                for matrix in matrices
            )

    def run(self, rows: Tensor, vocabulary: Vocabulary, *, filtered: bool) -> None:
        """Process the pending token of each of `rows` (batch,) int32 slots, and draw the next.

        Args:
            filtered: whether any of them has a top-k or top-p filter.
        """
        y, y_bias = None, None
        for layer, keys, values in zip(self.network.layers, self._keys, self._values, strict=True):
            if self.vector:
                self._layer_by_vectors(layer, keys, values, rows)
            else:
                y = self._layer_by_matrices(layer, keys, values, rows, y, y_bias)
                y_bias = layer.proj.bias
        self._draw(rows, vocabulary, y, y_bias, filtered)

    def draw(self, rows: Tensor, vocabulary: Vocabulary, *, filtered: bool) -> None:
        """Draw from x as the last layer left it: the end of a step, for a prompt that was just read."""
        self._draw(rows, vocabulary, None, None, filtered)

    def _layer_by_vectors(self, layer: Layer, keys: Tensor, values: Tensor, rows: Tensor) -> None:
        x, slots, pdl = self.state.x, self.state.slots, self.pdl
        do, batch = self._operations, len(rows)
        q, partial, stats, hidden = (t[:batch] for t in (self._q, self._partial, self._stats, self._hidden))
        norm, matrix = layer.norm_1, layer.qkv
        do.norm_qkv(
            *(x, norm.weight, norm.bias, matrix.weight, matrix.scale, matrix.bias),
            *(q, keys, values, rows, slots),
            pdl=pdl,
        )
        do.decode_attention(q, keys, values, partial, stats, rows, slots, pdl=pdl)
        matrix = layer.out
        do.attention_out(x, partial, stats, matrix.weight, matrix.scale, matrix.bias, rows, slots, pdl=pdl)
        norm, matrix = layer.norm_2, layer.fc
        do.norm_fc_gelu(
            *(x, norm.weight, norm.bias, matrix.weight, matrix.scale, matrix.bias),
            *(hidden, rows, slots),
            pdl=pdl,
        )
        matrix = layer.proj
        do.proj_residual(x, hidden, matrix.weight, matrix.scale, matrix.bias, rows, slots, pdl=pdl)

    def _layer_by_matrices(
        self, layer: Layer, keys: Tensor, values: Tensor, rows: Tensor, y: Tensor | None, y_bias: Tensor | None
    ) -> Tensor:
        """`y` and `y_bias` are what the layer before has still to add to x; returns this layer's y."""
        x, slots, pdl = self.state.x, self.state.slots, self.pdl
        batch = len(rows)
        scratch = (self._q, self._partial, self._stats, self._hidden, self._h)
        q, partial, stats, hidden, h = (t[:batch] for t in scratch)
        norm, matrix = layer.norm_1, layer.qkv
        residual_norm(x, y, y_bias, norm.weight, norm.bias, h, rows, slots, pdl=pdl)
        linear_qkv(h, matrix.weight, matrix.scale, matrix.bias, q, keys, values, rows, slots, pdl=pdl)
        decode_attention(q, keys, values, partial, stats, rows, slots, pdl=pdl)
        combine_splits(partial, stats, h, rows, slots, pdl=pdl)
        linear_partial(h, layer.out.weight, layer.out.scale, self._out_sums, pdl=pdl)
        norm, matrix = layer.norm_2, layer.fc
        residual_norm(x, self._out_sums, layer.out.bias, norm.weight, norm.bias, h, rows, slots, pdl=pdl)
        linear_gelu(h, matrix.weight, matrix.scale, matrix.bias, hidden, pdl=pdl)
        linear_partial(hidden, layer.proj.weight, layer.proj.scale, self._proj_sums, pdl=pdl)
        return self._proj_sums

    def _draw(
        self, rows: Tensor, vocabulary: Vocabulary, y: Tensor | None, y_bias: Tensor | None, filtered: bool
    ) -> None:
        state, network, pdl = self.state, self.network, self.pdl
        norm, head = network.norm, network.heads[0]
        batch = len(rows)
        slices, stop_row = vocabulary.slices, vocabulary.stop_row
        logits, noise = vocabulary.logits[:batch], vocabulary.noise[:batch]
        rest = (slices, stop_row, logits, noise, rows, state.slots)
        if self.vector:
            norm_head(state.x, norm.weight, norm.bias, head, *rest, stage=self.stage, pdl=pdl)
        else:
            h = self._h[:batch]
            residual_norm(state.x, y, y_bias, norm.weight, norm.bias, h, rows, state.slots, pdl=pdl)
            linear_head(h, head, *rest, stage=self.stage, pdl=pdl)
        sample(
            *(logits, noise, slices, stop_row, state.tokens, network.tables[0], network.wpe, state.x),
            *(rows, state.slots),
            filtered=filtered,
            pdl=pdl,
        )
