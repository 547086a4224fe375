"""The bytes and operations of each stage, and the memory that a workload needs; by arithmetic."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from barkfast.bench.machine import free_memory
from barkfast.bench.workload import Workload, voice_of
from barkfast.config import CodecConfig, FineConfig, GPTConfig, Sampling
from barkfast.errors import InputError
from barkfast.runtime.decoder import Decoder
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import count_steps, semantic_job
from barkfast.weights import STAGES
from barkfast.weights.shapes import codec_shapes, gpt_shapes

if TYPE_CHECKING:
    from barkfast.bark import Bark
    from barkfast.runtime.cpu.decoder import CpuDecoder

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
# Bytes per number of a matrix; int8 and int4 have a bfloat16 scale for every 32 numbers.
MATRIX_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0625, "int4": 0.5625}
# A process with torch in it, and what CUDA takes of a GPU for itself.
PROCESS_BYTES, CONTEXT_BYTES = 350e6, 500e6
# Buffers beside the weights: numbers per position of a fine window, and per sample of the codec's output.
WINDOW_NUMBERS, SAMPLE_NUMBERS = 24, 4
# Nothing here depends on how tokens are drawn.
SAMPLING = Sampling(0.7)


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


def packed_step_bytes(decoder: "CpuDecoder", *, context: float, candidates: int, batch: int = 1) -> StepBytes:
    """`step_bytes` of a cpu engine's decoder, by the sizes of its packed weights."""
    from barkfast.runtime.cpu.packing import PANEL_ROWS

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
    from barkfast.runtime.cpu.decoder import CpuDecoder

    if isinstance(decoder, CpuDecoder):
        return packed_step_bytes(decoder, context=context, candidates=candidates, batch=batch)
    config, dtype, storage = decoder.config, decoder.weight_dtype, decoder.storage_dtype
    return step_bytes(config, dtype=dtype, context=context, candidates=candidates, batch=batch, storage=storage)


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


@dataclass(frozen=True)
class Work:
    """Of one stage of a clip.

    Args:
        bytes: that must be read: weights once per step or pass, keys and values once per step.
        flop: floating-point operations that bound it: of prompts, windows, and frames.
        operations: all of them, those of decode steps too.
    """

    bytes: float
    flop: float
    operations: float


@dataclass
class _Decoding:
    """Adds up what prompts and steps of one decoder cost."""

    decoder: Decoder
    config: GPTConfig
    candidates: int
    bytes: float = 0.0
    flop: float = 0.0
    step_flop: float = 0.0

    def run_steps(self, context: int, passes: int, draws: int) -> None:
        """So many single tokens through the layers, the first one beside `context` others; so many drawn."""
        mean, config = context + (passes + 1) / 2, self.config
        one = decoder_step_bytes(self.decoder, context=mean, candidates=self.candidates)
        self.bytes += passes * (one.layers + one.kv) + draws * one.head
        layers = config.n_layer * (2 * 12 * config.n_embd**2 + 4 * mean * config.n_embd)
        self.step_flop += passes * layers + draws * 2 * self.candidates * config.n_embd

    def total(self) -> Work:
        return Work(self.bytes, self.flop, self.flop + self.step_flop)


def count_work(bark: "Bark", workload: Workload) -> dict[str, Work]:
    """Stage -> its work for a clip; the networks must be loaded, since each engine packs them differently."""
    layout, checkpoint = bark.layout, bark.checkpoint
    voice, components = voice_of(checkpoint, workload), bark.components
    text, fine = checkpoint.stage("text").config, checkpoint.stage("fine").config
    if not isinstance(fine, FineConfig):
        raise TypeError(f"the fine network's configuration is a {type(fine).__name__}")
    n_semantic = count_steps(workload.seconds, layout.semantic)
    job = semantic_job(np.arange(1), layout, SAMPLING, max_duration_s=workload.seconds, allow_early_stop=False)
    semantic = _Decoding(components.network("text"), text, layout.semantic.vocab_size)
    positions = len(job.prompt) - job.n_merged
    semantic.flop += pass_flop(text, positions)
    # The first token is drawn from the prompt itself.
    semantic.run_steps(positions, n_semantic - 1, n_semantic)
    tokens = np.random.default_rng(0).integers(0, layout.semantic.vocab_size, n_semantic)
    history = None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"])
    coarse = CoarseWindows(tokens, layout, SAMPLING, history=history)
    coarse_work = _count_coarse(bark, coarse)
    codes = coarse.codes()
    windows = FineWindows(codes, layout, SAMPLING, history=None if voice is None else voice["fine_prompt"])
    flop = windows.n_windows * fine_flop(fine, layout.fine.window, windows.n_given)
    # A pass per window and codebook that is not given.
    passes = windows.n_windows * (fine.n_codes_total - windows.n_given)
    fine_work = Work(passes * network_bytes(fine, workload.resolve().dtype), flop, flop)
    codec = checkpoint.codec()
    flop = codec_flop(codec.config, codes.shape[1])
    codec_work = Work(sum(tensor.nbytes for tensor in codec.tensors.values()), flop, flop)
    return {"semantic": semantic.total(), "coarse": coarse_work, "fine": fine_work, "codec": codec_work}


def _count_coarse(bark: "Bark", windows: CoarseWindows) -> Work:
    """Goes through all windows, with tokens of no meaning."""
    decoder, config = bark.components.network("coarse"), bark.checkpoint.stage("coarse").config
    coarse = _Decoding(decoder, config, bark.layout.codebook_size)
    # In float32 the torch engine reads every window's prompt from its beginning.
    reuses = getattr(decoder, "reuse_prefix", True)
    while (job := windows.next_job()) is not None:
        extends = reuses and job.continues_from is not None
        context = len(job.prompt) - extends
        coarse.flop += 0 if extends else pass_flop(config, context)
        # Where a cache is extended the token drawn last is read first; else the prompt gives the first token.
        coarse.run_steps(context, job.steps - 1 + extends, job.steps)
        windows.append(np.array([job.slices[i % len(job.slices)][0] for i in range(job.steps)]))
    return coarse.total()


def network_bytes(config: GPTConfig | FineConfig, dtype: str) -> float:
    """Bytes of one network's weights; tables and vectors are in bfloat16 where the matrices are integers."""
    other = 4 if dtype == "float32" else 2
    total = 0.0
    for key, shape in gpt_shapes(config).items():
        matrix = len(shape) == 2 and ".wte" not in key and ".wpe" not in key
        total += math.prod(shape) * (MATRIX_BYTES[dtype] if matrix else other)
    return total


def need_memory(workload: Workload) -> int:
    """Bytes that the workload takes on its device, estimated from its networks' sizes, rather too many than too few.

    Weights, caches, the buffers of the fine window and the codec, and on a CPU the process itself and the weights of
    one network as they are stored, from which the engine's are made.
    """
    workload = workload.resolve()
    checkpoint = workload.open()
    configs = [checkpoint.stage(stage).config for stage in STAGES]
    number = 4 if workload.dtype == "float32" else 2
    total = sum(network_bytes(config, workload.dtype) for config in configs)
    total += sum(2 * c.n_layer * c.block_size * c.n_embd * number for c in configs if not isinstance(c, FineConfig))
    widest = max(config.n_embd for config in configs)
    total += checkpoint.layout.fine.window * widest * WINDOW_NUMBERS * 4
    codec = CodecConfig()
    total += 4 * sum(math.prod(shape) for shape in codec_shapes(codec).values())
    total += workload.seconds * codec.sample_rate * codec.n_filters * SAMPLE_NUMBERS * 4
    if workload.device == "cpu":
        total += PROCESS_BYTES + max(network_bytes(config, "float32") for config in configs)
    else:
        total += CONTEXT_BYTES
    return round(total)


def check_memory(workload: Workload, what: str = "the model") -> None:
    """Raise InputError, which says how much is needed, unless the workload fits into its device's free memory."""
    workload = workload.resolve()
    need, free = need_memory(workload), free_memory(workload.device)
    if need > free:
        raise InputError(
            f"{what} needs about {need / 1e9:.1f} GB of memory on {workload.device} in {workload.dtype}, and "
            f"{free / 1e9:.1f} GB are free; close other programs, or choose a smaller model (suno/bark-small, "
            "random:small) or a dtype of fewer bits (bfloat16, int8)"
        )
