"""Which rules a kernel of a step may break, each with its reason."""

from tools.step_model.rules import Allowed

_NEWEST = "the newest key and value are at the slot's position, which changes in every step"
_SINCE = "positions written after the block requested all that it knew of: none if steps directly follow one another"
_WORDS = "the slot's words say which token is forced and which logits are drawn from"
_EMBEDDING = "the row of the embedding is the token that was drawn or forced"
_LAST_BLOCK = "the last block draws from the results of all blocks, which they compute from their logits"
_DIVISION = "division by the temperature follows IEEE; numbers too small for the fast path call a function"
_CONVERTED = "its weights are converted to float32 while the vector is being loaded; 64 registers would spill"
# Tensors by which a token is drawn or forced.
_DRAWN = ("logits", "noise", "slots", "tokens", "found")
_EMBEDDED = {(table, drawn): _EMBEDDING for table in ("wte", "wpe") for drawn in _DRAWN}

# (source, kernel without its stage) -> what it may do.
ALLOWED: dict[tuple[str, str], Allowed] = {
    ("triton", "decode_attention"): Allowed(
        dependent={(tensor, "slots"): _NEWEST for tensor in ("keys", "values")},
        trips=(2, ""),
        registers=(128, "a split's keys and values are held in registers, so that they can be loaded ahead"),
    ),
    ("cuda", "decode_attention"): Allowed(
        dependent={(tensor, words): _SINCE for tensor in ("keys", "values") for words in ("slots", "newest")},
        trips=(2, ""),
        branches={tensor: _SINCE for tensor in ("keys", "values")},
    ),
    ("triton", "attention_out"): Allowed(
        registers=(80, "it holds the sums of all splits, so that they are requested at once")
    ),
    ("triton", "norm_fc_gelu"): Allowed(registers=(104, _CONVERTED)),
    ("triton", "proj_residual"): Allowed(registers=(98, _CONVERTED)),
    ("triton", "norm_head"): Allowed(
        trips=(3, "its weights occupy the registers that could hold the slot's words; it runs once per step"),
        registers=(128, "it is the last kernel but one, and with more registers it loads more rows at once"),
    ),
    ("triton", "sample"): Allowed(
        dependent={**{(tensor, "slots"): _WORDS for tensor in ("tokens", "slices", "logits", "noise")}, **_EMBEDDED},
        trips=(2, ""),
        calls=_DIVISION,
    ),
    ("cuda", "head_draw"): Allowed(
        dependent={
            **{(tensor, own): _LAST_BLOCK for tensor in ("found", "tokens", "logits") for own in ("slots", "x")},
            **_EMBEDDED,
        },
        trips=(3, ""),
        calls=_DIVISION,
        branches={tensor: _LAST_BLOCK for tensor in ("found", "tokens", "logits", "wte", "wpe")},
    ),
}


def allowed_for(source: str, name: str) -> Allowed:
    """The kernel's exceptions; `name` may end in the stage."""
    return ALLOWED.get((source, name.partition(" ")[0]), Allowed())
