"""What a step of the native engine must read, by the sizes of its packed weights; arithmetic for the torch engine."""

from barkfast.config import GPTConfig
from barkfast.runtime.decoder import Decoder
from benchmarks.floors import StepBytes, step_bytes

PANEL_ROWS = 16


def packed_step_bytes(decoder: Decoder, dtype: str, context: float, candidates: int, batch: int = 1) -> StepBytes:
    """Weights once, keys and values once per sequence.

    Args:
        dtype: of the decoder.
        context: positions attended to, the token's own included, on average.
        candidates: head rows that are drawn from.
    """
    config: GPTConfig = getattr(decoder, "config", None) or decoder.model.config  # type: ignore[attr-defined]
    if not hasattr(decoder, "_packed"):
        return step_bytes(config, dtype=dtype, context=context, candidates=candidates, batch=batch)
    layers, head = 0, 0
    for piece in decoder._packed.pieces:
        if piece.name.startswith("lm_head"):
            panels = -(-piece.rows // PANEL_ROWS)
            head += piece.size * -(-candidates // PANEL_ROWS) // panels
        elif piece.kind != "table":
            layers += piece.size
    number = 4 if dtype == "float32" else 2
    kv = 2 * config.n_layer * config.n_embd * number * context * batch
    return StepBytes(layers=layers, head=head, kv=round(kv))
