"""The kernel launches of a decode step, which draws one token for every row of a batch, in one of two ways.

The vector kernels hold their part of each matrix in registers (Triton) or shared memory (CUDA) and multiply the batch's
rows with it one by one: few, fused kernels, best for one to eight sequences. The matrix kernels use matrix
instructions. In both, a row's result does not depend on the rest of the batch; between them it differs in the last
bits, so a decoder uses only one of them.
"""

import os
from dataclasses import dataclass
from functools import partial
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
from barkfast_kernels.hopper import VECTOR_ROWS, HeadDraw, HopperOps, Shape, why_not
from barkfast_kernels.launch import INTERPRETED, multiprocessors
from barkfast_kernels.norm_fc_gelu import norm_fc_gelu
from barkfast_kernels.norm_head import norm_head
from barkfast_kernels.norm_qkv import norm_qkv
from barkfast_kernels.proj_residual import proj_residual
from barkfast_kernels.residual_norm import residual_norm
from barkfast_kernels.sample import sample
from barkfast_kernels.variant import Variant

Slices = tuple[tuple[int, int], ...]

# Parts that attention splits a context into, so that one sequence's heads fill the device; fewer in the interpreter.
CONTEXT_SPLITS = 2 if INTERPRETED else 8
# Kernels per layer, in the vector way.
LAUNCHES = 5


def triton_operations(variant: Variant) -> Any:
    """The five operations of a layer in Triton."""
    return SimpleNamespace(
        splits=CONTEXT_SPLITS,
        norm_qkv=partial(norm_qkv, variant=variant),
        decode_attention=partial(decode_attention, variant=variant),
        attention_out=partial(attention_out, variant=variant),
        norm_fc_gelu=partial(norm_fc_gelu, variant=variant),
        proj_residual=partial(proj_residual, variant=variant),
    )


def shape_of(network: Network, variant: Variant) -> Shape:
    """The sizes and settings that the CUDA kernels are compiled for."""
    config, int8 = network.config, network.layers[0].qkv.scale is not None
    debug = os.environ.get("BARKFAST_DEBUG_KERNELS", "0") not in ("", "0")
    return Shape(config.n_embd, config.n_head, config.block_size, network.dtype, int8, variant, debug)


def hopper_operations(network: Network, variant: Variant, device: torch.device, *, one_slot: bool) -> HopperOps:
    """The five operations of a layer in CUDA.

    Args:
        one_slot: whether the decoder has only one slot.

    Raises: EngineError if they cannot run this network on the device.
    """
    shape = shape_of(network, variant)
    reason = why_not(shape, device)
    if reason:
        raise EngineError(f"the CUDA kernels of a step cannot be used: {reason}; use a variant with Triton's")
    return HopperOps(shape, one_slot=one_slot)


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary rows that jobs draw from, and buffers for their logits.

    Args:
        ranges: [first, end) of each slice.
        slices: (n_slices, 2) int32 on the device: first row and width of each.
        stop_row: the stop token's row, part of every draw; -1 for none.
        logits, noise: (n_slots, widest slice + stop row) float32; by row of the batch, of the last step.
    """

    ranges: Slices
    slices: Tensor
    stop_row: int
    logits: Tensor
    noise: Tensor

    @classmethod
    def allocate(cls, ranges: Slices, stop_row: int, n_slots: int, device: torch.device) -> "Vocabulary":
        """Allocate on `device` for up to `n_slots` rows."""
        width = max(end - first for first, end in ranges) + (stop_row >= 0)
        table = torch.tensor([[first, end - first] for first, end in ranges], dtype=torch.int32)
        logits, noise = torch.empty(2, n_slots, width, device=device)
        return cls(ranges, table.to(device), stop_row, logits, noise)


class DecodeStep:
    """The launches of one step on fixed buffers.

    Args:
        network, state: the weights, and the state of the slots.
        stage: the network's number in the key of random numbers, see STAGE_KEYS.
        options: which kernels run, and how they are launched.
    """

    def __init__(self, network: Network, state: State, *, stage: int, options: Options) -> None:
        self.network, self.state, self.stage, self.pdl = network, state, stage, options.pdl
        config, n_slots, device = network.config, len(state.x), state.x.device
        width = config.n_embd
        self.vector = n_slots <= VECTOR_ROWS
        self.variant = variant = options.variant
        self.in_cuda = self.vector and variant.kernels == "cuda"
        self._operations: Any = (
            hopper_operations(network, variant, device, one_slot=n_slots == 1)
            if self.in_cuda
            else triton_operations(variant)
        )
        self._head: HeadDraw | None = None
        if self.in_cuda and variant.fused_head:
            made = self._operations
            self._head = HeadDraw(made.shape, multiprocessors(device), made.program, device)
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
            # Sums over inputs are split as well; the norm that follows adds the parts.
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
        ahead = self._weights_ahead(vocabulary, filtered)
        for i, (layer, keys, values) in enumerate(zip(self.network.layers, self._keys, self._values, strict=True)):
            if self.vector:
                self._layer_by_vectors(layer, keys, values, rows, ahead[LAUNCHES * i :])
            else:
                y = self._layer_by_matrices(layer, keys, values, rows, y, y_bias)
                y_bias = layer.proj.bias
        self._draw(rows, vocabulary, y, y_bias, filtered, ahead[LAUNCHES * len(self.network.layers) :])

    def _weights_ahead(self, vocabulary: Vocabulary, filtered: bool) -> list[Tensor | None]:
        """For each launch of a vector step, the weights to prefetch into L2: those needed `l2_ahead` launches later."""
        first = min(first for first, _ in vocabulary.ranges)
        end = max(end for _, end in vocabulary.ranges)
        own: list[Tensor | None] = []
        for layer in self.network.layers:
            own += [layer.qkv.weight, None, layer.out.weight, layer.fc.weight, layer.proj.weight]
        own.append(self.network.heads[0][first:end])
        if filtered or self._fused_head(vocabulary) is None:
            own.append(None)
        distance = self.variant.l2_ahead if self.vector else 0
        return own[distance:] + own[:distance] if distance else [None] * len(own)

    def _fused_head(self, vocabulary: Vocabulary) -> HeadDraw | None:
        """The kernel that computes both the head and the draw, for rows without filters; None if it cannot."""
        head = self._head
        if head is None or not head.serves(vocabulary.logits.shape[1], len(vocabulary.slices)):
            return None
        return head

    def draw(self, rows: Tensor, vocabulary: Vocabulary, *, filtered: bool) -> None:
        """Draw from x as the last layer left it: the last part of a step, after a prefill."""
        self._draw(rows, vocabulary, None, None, filtered, [None, None])

    def _layer_by_vectors(
        self, layer: Layer, keys: Tensor, values: Tensor, rows: Tensor, ahead: list[Tensor | None]
    ) -> None:
        x, slots, pdl = self.state.x, self.state.slots, self.pdl
        do, batch = self._operations, len(rows)
        q, parts, stats, hidden = (t[:batch] for t in (self._q, self._partial, self._stats, self._hidden))
        norm, matrix = layer.norm_1, layer.qkv
        do.norm_qkv(
            *(x, norm.weight, norm.bias, matrix.weight, matrix.scale, matrix.bias),
            *(q, keys, values, rows, slots),
            pdl=pdl,
            ahead=ahead[0],
        )
        do.decode_attention(q, keys, values, parts, stats, rows, slots, pdl=pdl, ahead=ahead[1])
        matrix = layer.out
        do.attention_out(
            *(x, parts, stats, matrix.weight, matrix.scale, matrix.bias, rows, slots), pdl=pdl, ahead=ahead[2]
        )
        norm, matrix = layer.norm_2, layer.fc
        do.norm_fc_gelu(
            *(x, norm.weight, norm.bias, matrix.weight, matrix.scale, matrix.bias),
            *(hidden, rows, slots),
            pdl=pdl,
            ahead=ahead[3],
        )
        matrix = layer.proj
        do.proj_residual(*(x, hidden, matrix.weight, matrix.scale, matrix.bias, rows, slots), pdl=pdl, ahead=ahead[4])

    def _layer_by_matrices(
        self, layer: Layer, keys: Tensor, values: Tensor, rows: Tensor, y: Tensor | None, y_bias: Tensor | None
    ) -> Tensor:
        """`y` and `y_bias`: the previous layer's output, not yet added to x; return this layer's y."""
        x, slots, pdl = self.state.x, self.state.slots, self.pdl
        batch = len(rows)
        scratch = (self._q, self._partial, self._stats, self._hidden, self._h)
        q, parts, stats, hidden, h = (t[:batch] for t in scratch)
        norm, matrix = layer.norm_1, layer.qkv
        residual_norm(x, y, y_bias, norm.weight, norm.bias, h, rows, slots, pdl=pdl)
        linear_qkv(h, matrix.weight, matrix.scale, matrix.bias, q, keys, values, rows, slots, pdl=pdl)
        decode_attention(q, keys, values, parts, stats, rows, slots, pdl=pdl, variant=self.variant)
        combine_splits(parts, stats, h, rows, slots, pdl=pdl)
        linear_partial(h, layer.out.weight, layer.out.scale, self._out_sums, pdl=pdl)
        norm, matrix = layer.norm_2, layer.fc
        residual_norm(x, self._out_sums, layer.out.bias, norm.weight, norm.bias, h, rows, slots, pdl=pdl)
        linear_gelu(h, matrix.weight, matrix.scale, matrix.bias, hidden, pdl=pdl)
        linear_partial(hidden, layer.proj.weight, layer.proj.scale, self._proj_sums, pdl=pdl)
        return self._proj_sums

    def _draw(
        self,
        rows: Tensor,
        vocabulary: Vocabulary,
        y: Tensor | None,
        y_bias: Tensor | None,
        filtered: bool,
        ahead: list[Tensor | None],
    ) -> None:
        state, network, pdl = self.state, self.network, self.pdl
        norm, head = network.norm, network.heads[0]
        batch = len(rows)
        slices, stop_row = vocabulary.slices, vocabulary.stop_row
        logits, noise = vocabulary.logits[:batch], vocabulary.noise[:batch]
        rest = (slices, stop_row, logits, noise, rows, state.slots)
        fused = self._fused_head(vocabulary)
        if fused is not None and (batch > 1 or not filtered):
            fused(
                *(state.x, norm.weight, norm.bias, head, slices, stop_row, logits),
                *(state.tokens, network.tables[0], network.wpe, rows, state.slots),
                stage=self.stage,
                pdl=pdl,
                # If rows with filters follow, their kernel reads the same weights.
                ahead=None if filtered else ahead[0],
            )
            if not filtered:
                return
        if self.vector:
            norm_head(
                *(state.x, norm.weight, norm.bias, head, *rest),
                stage=self.stage,
                only_filtered=fused is not None,
                pdl=pdl,
                variant=self.variant,
                ahead=ahead[0],
            )
        else:
            h = self._h[:batch]
            residual_norm(state.x, y, y_bias, norm.weight, norm.bias, h, rows, state.slots, pdl=pdl)
            linear_head(h, head, *rest, stage=self.stage, pdl=pdl)
        sample(
            *(logits, noise, slices, stop_row, state.tokens, network.tables[0], network.wpe, state.x),
            *(rows, state.slots),
            filtered=filtered,
            only_filtered=fused is not None,
            pdl=pdl,
            variant=self.variant,
            ahead=ahead[1],
        )
