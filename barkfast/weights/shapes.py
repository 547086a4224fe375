"""The keys and shapes that weights must have, and a check of them."""

from collections.abc import Iterable, Mapping

import torch

from barkfast.config import CodecConfig, FineConfig, GPTConfig
from barkfast.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

MAX_LISTED = 8


def gpt_shapes(config: GPTConfig | FineConfig) -> Shapes:
    """Key -> shape of every tensor of one GPT, in Suno's naming.

    `bias` applies to the Linear layers of all networks, but only to the LayerNorms of the causal ones: the fine
    network's LayerNorms always have a bias.
    """
    d = config.n_embd
    fine = isinstance(config, FineConfig)
    shapes: Shapes = {}
    if isinstance(config, FineConfig):
        for i in range(config.n_codes_total):
            shapes[f"transformer.wtes.{i}.weight"] = (config.input_vocab_size, d)
        for i in range(config.n_codes_total - config.n_codes_given):
            shapes[f"lm_heads.{i}.weight"] = (config.output_vocab_size, d)
    else:
        shapes["transformer.wte.weight"] = (config.input_vocab_size, d)
        shapes["lm_head.weight"] = (config.output_vocab_size, d)
    shapes["transformer.wpe.weight"] = (config.block_size, d)

    def add(name: str, shape: tuple[int, ...], bias: bool) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    for i in range(config.n_layer):
        block = f"transformer.h.{i}"
        add(f"{block}.ln_1", (d,), fine or config.bias)
        add(f"{block}.attn.c_attn", (3 * d, d), config.bias)
        add(f"{block}.attn.c_proj", (d, d), config.bias)
        add(f"{block}.ln_2", (d,), fine or config.bias)
        add(f"{block}.mlp.c_fc", (4 * d, d), config.bias)
        add(f"{block}.mlp.c_proj", (d, 4 * d), config.bias)
    add("transformer.ln_f", (d,), fine or config.bias)
    return shapes


def codec_shapes(config: CodecConfig) -> Shapes:
    """Key -> shape of EnCodec's decoder and codebooks, weight norm folded.

    Layer numbers count the activations too: 0 convolution, 1 LSTM, then for each ratio ELU, transposed
    convolution, residual blocks; last ELU and convolution.
    """
    channels = config.n_filters * 2 ** len(config.ratios)
    shapes = _convolution("decoder.layers.0", channels, config.dimension, config.kernel_size)
    shapes |= _lstm("decoder.layers.1", config, channels)
    layer = 2
    for ratio in config.ratios:
        channels //= 2
        # Transposed: (in, out, kernel).
        name = f"decoder.layers.{layer + 1}.conv"
        shapes |= {f"{name}.weight": (2 * channels, channels, 2 * ratio), f"{name}.bias": (channels,)}
        layer += 2
        for _ in range(config.n_residual_layers):
            shapes |= _residual_block(f"decoder.layers.{layer}", config, channels)
            layer += 1
    shapes |= _convolution(f"decoder.layers.{layer + 1}", 1, channels, config.last_kernel_size)
    return shapes | _codebooks(config)


def encoder_shapes(config: CodecConfig) -> Shapes:
    """Key -> shape of EnCodec's encoder and codebooks, weight norm folded; layers are numbered as in the decoder."""
    channels, layer = config.n_filters, 1
    shapes = _convolution("encoder.layers.0", channels, 1, config.kernel_size)
    for ratio in reversed(config.ratios):
        for _ in range(config.n_residual_layers):
            shapes |= _residual_block(f"encoder.layers.{layer}", config, channels)
            layer += 1
        shapes |= _convolution(f"encoder.layers.{layer + 1}", 2 * channels, channels, 2 * ratio)
        channels *= 2
        layer += 2
    shapes |= _lstm(f"encoder.layers.{layer}", config, channels)
    shapes |= _convolution(f"encoder.layers.{layer + 2}", config.dimension, channels, config.last_kernel_size)
    return shapes | _codebooks(config)


def _codebooks(config: CodecConfig) -> Shapes:
    shape = (config.codebook_size, config.dimension)
    return {f"quantizer.layers.{i}.codebook.embed": shape for i in range(config.n_codebooks)}


def _convolution(name: str, n_out: int, n_in: int, kernel_size: int) -> Shapes:
    return {f"{name}.conv.weight": (n_out, n_in, kernel_size), f"{name}.conv.bias": (n_out,)}


def _lstm(name: str, config: CodecConfig, channels: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(config.n_lstm_layers):
        for side in ("ih", "hh"):
            shapes[f"{name}.lstm.weight_{side}_l{i}"] = (4 * channels, channels)
            shapes[f"{name}.lstm.bias_{side}_l{i}"] = (4 * channels,)
    return shapes


def _residual_block(name: str, config: CodecConfig, channels: int) -> Shapes:
    hidden = channels // config.compress
    shapes = _convolution(f"{name}.block.1", hidden, channels, config.residual_kernel_size)
    shapes |= _convolution(f"{name}.block.3", channels, hidden, 1)
    return shapes | (_convolution(f"{name}.shortcut", channels, channels, 1) if config.conv_shortcut else {})


def check_tensors(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise CheckpointError naming the keys that are missing, unexpected, or of the wrong shape or dtype."""
    problems = []
    missing, extra = shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys()
    if missing:
        problems.append(f"{len(missing)} missing: {list_some(missing)}")
    if extra:
        problems.append(f"{len(extra)} unexpected: {list_some(extra)}")
    wrong = [
        f"{key} is {tuple(tensors[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    if wrong:
        problems.append(f"{len(wrong)} of the wrong shape: {list_some(wrong)}")
    kinds = {key: value.dtype for key, value in tensors.items() if not value.is_floating_point()}
    if kinds:
        problems.append(f"{len(kinds)} not floating point: {list_some(f'{k} ({v})' for k, v in kinds.items())}")
    if problems:
        raise CheckpointError(f"{where} does not hold the tensors of a Bark model; " + "; ".join(problems))


def list_some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:MAX_LISTED])
    return shown if len(ordered) <= MAX_LISTED else f"{shown}, and {len(ordered) - MAX_LISTED} more"
