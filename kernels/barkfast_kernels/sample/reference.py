import torch
from torch import Tensor

from barkfast_kernels.references import running_rows
from barkfast_kernels.slots import (
    DRAWN,
    FAILED,
    FINISHED,
    FORCED,
    HAS_STOP,
    LIMIT,
    MIN_P_F,
    PHASE,
    POSITION,
    STATUS,
    STOPPED,
    TEMPERATURE_F,
    TOP_K,
    TOP_P_F,
)


def filter_reference(logits: Tensor, top_p: float, top_k: int) -> Tensor:
    """(n,) `logits` with -inf where top-p, then top-k, remove; ties survive. Off: `top_p` above 1, `top_k` 0."""
    if top_p <= 1:
        ordered = logits.double().sort(descending=True).values
        mass = torch.cat([ordered.new_zeros(1), ordered.softmax(0).cumsum(0)])
        likelier = torch.searchsorted(-ordered, -logits.double(), right=False)
        logits = logits.masked_fill(mass[likelier] > top_p, -torch.inf)
    if top_k:
        kth = logits.sort(descending=True).values[min(top_k, len(logits)) - 1]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    return logits


def sample_reference(
    logits: Tensor,
    noise: Tensor,
    slices: Tensor,
    stop_row: int,
    tokens: Tensor,
    wte: Tensor,
    wpe: Tensor,
    x: Tensor,
    rows: Tensor,
    slots: Tensor,
    *,
    filtered: bool,
) -> None:
    """What `sample` computes, row by row."""
    for row, slot in running_rows(rows, slots):
        words, floats = slots[slot].tolist(), slots[slot].view(torch.float32).tolist()
        drawn = words[DRAWN.value]
        first, width = slices[(words[PHASE.value] + drawn) % len(slices)].tolist()
        has_stop = stop_row >= 0 and bool(words[HAS_STOP.value])
        values = logits[row, : width + has_stop]
        if not values.isfinite().all():
            slots[slot, STATUS.value] = FAILED.value
            continue
        if filtered:
            values = filter_reference(values, floats[TOP_P_F.value], words[TOP_K.value])
        # Kept as a tensor: on a GPU, torch divides by a Python number through its reciprocal.
        temperature = slots[slot, TEMPERATURE_F.value].view(torch.float32)
        if temperature == 0:
            best = int(values.argmax())
            probabilities = torch.zeros_like(values)
            probabilities[best] = 1
        else:
            best = int((values / temperature + noise[row, : len(values)]).argmax())
            probabilities = (values / temperature).softmax(0)
        forced = drawn < words[FORCED.value]
        min_p = floats[MIN_P_F.value]
        likely = has_stop and min_p <= 1 and float(probabilities[width]) >= min_p
        ended = not forced and (best == width or likely)
        if ended:
            tokens[slot, drawn] = stop_row
        elif not forced:
            tokens[slot, drawn] = first + best
        slots[slot, DRAWN.value] = drawn + 1
        position = words[POSITION.value] + 1
        slots[slot, POSITION.value] = position
        if ended:
            slots[slot, STATUS.value] = STOPPED.value
            continue
        if drawn + 1 == words[LIMIT.value]:
            slots[slot, STATUS.value] = FINISHED.value
        if position < tokens.shape[1]:
            x[slot] = wte[tokens[slot, drawn]].float() + wpe[position].float()
