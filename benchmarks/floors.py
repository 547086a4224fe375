"""The fewest bytes a decode step must read, and the operations of a prefill or a fine pass; by arithmetic alone."""

from dataclasses import dataclass

from barkfast.config import FineConfig, GPTConfig

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}

# Bandwidth in GB/s and dense bf16 TFLOP/s by the datasheet, under the names the driver gives.
DATASHEET = {
    "NVIDIA H100 80GB HBM3": (3350, 989),
    "NVIDIA H200": (4800, 989),
}


@dataclass(frozen=True, slots=True)
class StepBytes:
    """What one step reads: the layers' weights, the head's rows that may be drawn, keys and values."""

    layers: int
    head: int
    kv: int

    @property
    def total(self) -> int:
        return self.layers + self.head + self.kv


def step_bytes(
    config: GPTConfig, *, dtype: str, context: float, candidates: int, batch: int = 1, storage: str = "bfloat16"
) -> StepBytes:
    """Bytes of one step of a batch: weights once, keys and values once per sequence.

    Args:
        dtype: of the layers' matrices.
        context: positions attended to, the token's own included, on average.
        candidates: head rows, over all slices that are drawn from.
        storage: of all else, where the matrices are int8; else their own.
    """
    other = BYTES[storage if dtype == "int8" else dtype]
    width = config.n_embd
    per_layer = 12 * width * width * BYTES[dtype] + 2 * width * other
    if dtype == "int8":
        per_layer += 9 * width * 4
    if config.bias:
        per_layer += (9 + 2) * width * other
    return StepBytes(
        layers=config.n_layer * per_layer + (1 + config.bias) * width * other,
        head=candidates * width * other,
        kv=round(batch * config.n_layer * 2 * width * context * other),
    )


def kernel_bytes(
    config: GPTConfig, *, dtype: str, context: float, candidates: int, batch: int = 1, storage: str = "bfloat16"
) -> dict[str, int]:
    """Bytes per step that each kernel must read, by a piece of the kernel's name."""
    other = BYTES[storage if dtype == "int8" else dtype]
    square = config.n_layer * config.n_embd**2 * BYTES[dtype]
    parts = step_bytes(config, dtype=dtype, context=context, candidates=candidates, batch=batch, storage=storage)
    return {
        "norm_qkv": 3 * square,
        "linear_qkv": 3 * square,
        "decode_attention": parts.kv,
        "attention_out": square,
        "norm_fc_gelu": 4 * square,
        "linear_gelu": 4 * square,
        "proj_residual": 4 * square,
        "linear_partial": 5 * square,
        "norm_head": candidates * config.n_embd * other,
        "linear_head": candidates * config.n_embd * other,
    }


def pass_flop(config: GPTConfig, length: int) -> float:
    """Floating-point operations of `length` positions through the layers; half the scores are masked in a GPT."""
    causal = not isinstance(config, FineConfig)
    multiply = 2 * 12 * config.n_embd**2 * length
    attend = 4 * length * length * config.n_embd * (0.5 if causal else 1)
    return config.n_layer * (multiply + attend)


def fine_flop(config: FineConfig, length: int, first_codebook: int) -> float:
    """Operations of filling a window: one pass, and one head, per codebook."""
    passes = config.n_codes_total - first_codebook
    return passes * (pass_flop(config, length) + 2 * length * config.n_embd * config.output_vocab_size)
