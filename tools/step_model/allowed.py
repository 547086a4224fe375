"""Which rules a kernel of a step may break, each with its reason."""

from tools.step_model.rules import Allowed

_ROW = "the newest key and value stand at the position, which the kernel ahead of the step has moved"
_EMBEDDING = "the embedding's row is the token that was drawn"
_WORDS = "which token is forced, and which logits are drawn from, is said by the slot's words"

# What the drawn token, or a forced one, comes from.
_DRAWN = ("logits", "noise", "slots", "tokens")

# (source, kernel without its stage) -> what it may do.
ALLOWED: dict[tuple[str, str], Allowed] = {
    ("triton", "decode_attention"): Allowed(
        dependent={(tensor, "slots"): _ROW for tensor in ("keys", "values")},
        trips=2,
        registers=(128, "a split's keys and values are held in registers, so that they can be loaded ahead"),
    ),
    ("cuda", "decode_attention"): Allowed(
        dependent={(tensor, words): _ROW for tensor in ("keys", "values") for words in ("slots", "newest")},
        trips=2,
    ),
    ("triton", "norm_head"): Allowed(
        registers=(128, "its rows are held in registers, in one wave of two blocks per multiprocessor"),
    ),
    ("triton", "sample"): Allowed(
        dependent={
            **{(tensor, "slots"): _WORDS for tensor in ("tokens", "slices", "logits", "noise")},
            **{
                (tensor, drawn): _EMBEDDING
                for tensor in ("wte", "wpe")
                for drawn in ("logits", "noise", "slots", "tokens")
            },
        },
        trips=3,
    ),
}


def allowed_for(source: str, name: str) -> Allowed:
    """What the kernel may do; `name` may end in the stage."""
    return ALLOWED.get((source, name.partition(" ")[0]), Allowed())
