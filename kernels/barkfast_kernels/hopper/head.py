"""The end of a decode step in one kernel: norm_head and sample for rows without a top-k or top-p filter."""

import torch
from torch import Tensor

from barkfast_kernels.hopper.constants import MOST_BATCH, MOST_BLOCKS, MOST_HEAD_ROWS, MOST_SLICES, ROWS_AT_ONCE
from barkfast_kernels.hopper.ops import RESERVED_BYTES, Loader, Shape, later


def head_rows(n_candidates: int, blocks: int) -> int:
    """Weight rows of each slice per block."""
    return -(-n_candidates // blocks)


def head_bytes(shape: Shape, n_candidates: int, n_slices: int, blocks: int) -> int:
    """Shared memory for a block's weights, bytes: its rows of all slices; of the last, at least ROWS_AT_ONCE."""
    own = head_rows(n_candidates, blocks)
    rows = (n_slices - 1) * own + max(own, ROWS_AT_ONCE)
    return rows * shape.n_embd * shape.dtype.itemsize


def why_not_head(shape: Shape, n_candidates: int, n_slices: int, blocks: int, room: int | None = None) -> str | None:
    """Why the kernel does not support a vocabulary, or None; for the network see `ops.why_not`.

    Args:
        n_candidates: columns of `logits`.
        room: limit of shared memory per block in bytes (the device's shared_memory_per_block_optin); None is no limit.
    """
    if blocks > MOST_BLOCKS or n_slices > MOST_SLICES:
        return f"{blocks} blocks and {n_slices} slices; at most {MOST_BLOCKS} and {MOST_SLICES} are possible"
    own = head_rows(n_candidates, blocks)
    if own > MOST_HEAD_ROWS:
        return f"a block would have {own} of {n_candidates} candidates, more than {MOST_HEAD_ROWS}"
    needed = head_bytes(shape, n_candidates, n_slices, blocks) + RESERVED_BYTES
    if room is not None and needed > room:
        return f"a block's part of the head needs {needed} bytes of shared memory, and it can have {room}"
    return None


class HeadDraw:
    """Final layer norm, logits, draw, stop rules and embedding, for up to eight rows.

    It owns the buffers through which its blocks communicate, so its launches must be in order on one stream.

    Args:
        blocks: number of blocks that share the candidates, at most one per multiprocessor.
        program: the compiled program of the shape.
        device: where it runs.
    """

    def __init__(self, shape: Shape, blocks: int, program: Loader, device: torch.device) -> None:
        self.shape, self.blocks, self._program = shape, min(blocks, MOST_BLOCKS), program
        # (score, column, largest, total) of each row and block, and how many blocks have arrived.
        self._found = torch.zeros(MOST_BATCH, self.blocks, 4, device=device)
        self._arrived = torch.zeros(1, dtype=torch.int32, device=device)

    def serves(self, n_candidates: int, n_slices: int) -> bool:
        """Whether it supports such a vocabulary; see why_not_head."""
        return why_not_head(self.shape, n_candidates, n_slices, self.blocks, self._program.room) is None

    def __call__(
        self,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor | None,
        weight: Tensor,
        slices: Tensor,
        stop_row: int,
        logits: Tensor,
        tokens: Tensor,
        wte: Tensor,
        wpe: Tensor,
        rows: Tensor,
        slots: Tensor,
        *,
        stage: int,
        pdl: bool,
        ahead: Tensor | None = None,
    ) -> None:
        """Do the work of barkfast_kernels.norm_head and sample, with their arguments; noise is not stored.

        Rows with a top-k or top-p filter are skipped: those two handle them.

        Args:
            x: (n_slots, n_embd) float32; read, then overwritten with the drawn token's embedding.
            norm_weight, norm_bias: (n_embd,), bias optional.
            weight: (vocabulary, n_embd) in the storage dtype, also in int8 networks; constant.
            slices: (n_slices, 2) int32, first vocabulary row and width of each; constant.
            stop_row: vocabulary row of the stop token; -1 if there is none.
            logits: (batch, largest width + 1 if there is a stop token) float32, out.
            tokens: (n_slots, block_size) int32.
            wte, wpe: (vocabulary, n_embd), (block_size, n_embd) in the storage dtype; constant.
            rows: (batch,) int32, batch up to 8; constant.
            slots: (n_slots, WORDS) int32; STATUS, DRAWN and POSITION are written.
            stage: number of the network, so that each network has its own random numbers.
            pdl, ahead: see barkfast_kernels.launch.

        Raises: ValueError for more rows, slices or candidates than it supports.
        """
        batch, n_candidates = logits.shape
        n_slices = len(slices)
        if batch > MOST_BATCH or len(rows) != batch:
            raise ValueError(f"{len(rows)} rows with {batch} rows of logits; expected equal numbers up to {MOST_BATCH}")
        reason = why_not_head(self.shape, n_candidates, n_slices, self.blocks)
        if reason:
            raise ValueError(f"head_draw cannot draw from these candidates: {reason}")
        # Requested for every launch: all networks of one shape share the function and its shared memory limit.
        kernel = self._program.kernel(
            "head_draw",
            threads=self.shape.n_embd // 4,
            shared_bytes=head_bytes(self.shape, n_candidates, n_slices, self.blocks),
            carveout=self.shape.variant.carveout,
        )
        args = (x, norm_weight, norm_bias, weight, slices, stop_row, logits, tokens, wte, wpe, rows, slots)
        # Every block has at least one candidate.
        blocks = min(self.blocks, n_candidates)
        numbers = (n_slices, n_candidates, head_rows(n_candidates, blocks), stage, batch)
        scratch = (self._found, self._arrived)
        kernel.launch((blocks, 1, 1), (*args, *scratch, *numbers, *later(ahead, pdl)), pdl=pdl)
