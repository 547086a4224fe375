"""The fewest bytes that a decode step must read, and the operations of prompts, windows and frames; by arithmetic."""

from dataclasses import dataclass

from barkfast.config import CodecConfig, FineConfig, GPTConfig
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.packing import PANEL_ROWS
from barkfast.runtime.decoder import Decoder

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
        dtype: of the layers' matrices; int4 only the cpu engine has, see `packed_step_bytes`.
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


def packed_step_bytes(decoder: CpuDecoder, *, context: float, candidates: int, batch: int = 1) -> StepBytes:
    """`step_bytes` of a cpu engine's decoder, by the sizes of its packed weights."""
    config, layers, head = decoder.config, 0, 0
    for piece in decoder.packed.pieces:
        if piece.name.startswith("lm_head"):
            panels = -(-piece.rows // PANEL_ROWS)
            head += piece.size * -(-candidates // PANEL_ROWS) // panels
        elif piece.kind != "table":
            layers += piece.size
    # Keys and values are stored in int8, each head's with a scale, where the weights are quantized.
    number = {"float32": 4.0, "bfloat16": 2.0}.get(decoder.weight_dtype, 1.0 + 4 / config.head_dim)
    kv = 2 * config.n_layer * config.n_embd * number * context * batch
    return StepBytes(layers=layers, head=head, kv=round(kv))


def decoder_step_bytes(decoder: Decoder, *, context: float, candidates: int, batch: int = 1) -> StepBytes:
    """Bytes of one step of any engine's decoder; arguments as of `step_bytes`."""
    if isinstance(decoder, CpuDecoder):
        return packed_step_bytes(decoder, context=context, candidates=candidates, batch=batch)
    return step_bytes(
        decoder.config,
        dtype=decoder.weight_dtype,
        context=context,
        candidates=candidates,
        batch=batch,
        storage=decoder.storage_dtype,
    )


def kernel_bytes(
    config: GPTConfig, *, dtype: str, context: float, candidates: int, batch: int = 1, storage: str = "bfloat16"
) -> dict[str, int]:
    """Bytes per step that each kernel of the cuda engine must read, by a piece of the kernel's name."""
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


def codec_flop(config: CodecConfig, frames: int) -> float:
    """Operations of the codec's decoder for so many frames: convolutions and LSTM, without adding up codebooks."""
    width, length = config.n_filters * 2 ** len(config.ratios), frames
    total = config.dimension * width * config.kernel_size * length
    # Four gates, each of the input and of the state before.
    total += config.n_lstm_layers * 8 * width**2 * length
    for ratio in config.ratios:
        # Each input is spread over 2 * ratio outputs.
        total += width * (width // 2) * 2 * ratio * length
        width, length = width // 2, length * ratio
        hidden = width // config.compress
        block = width * hidden * (config.residual_kernel_size + 1) + config.conv_shortcut * width**2
        total += config.n_residual_layers * block * length
    total += width * config.last_kernel_size * length
    return 2.0 * total
