"""Models with random weights from a seed, in Suno's layout or the demo voice's: for benchmarks and tests."""

import math
import string
from dataclasses import replace

import torch

from barkfast.config import CodecConfig, FineConfig, GPTConfig, Layout
from barkfast.errors import InputError
from barkfast.weights import codec, demo, huggingface
from barkfast.weights.checkpoint import STAGES, Checkpoint, CodecWeights, MadeTensors, StageWeights
from barkfast.weights.files import Tensors, read_json
from barkfast.weights.shapes import Shapes, codec_shapes, encoder_shapes, gpt_shapes
from barkfast.weights.sources import Folder

# n_layer, n_head, n_embd of each size, and the codec's filters; small and large are Suno's.
SIZES = {"nano": (2, 2, 64, 4), "small": (12, 12, 768, 32), "large": (24, 16, 1024, 32)}
# `random:demo` has the sizes, tokens, tokenizer and voices of the demo voice.
NAMES = (*SIZES, demo.NAME)
# Untrained weights hardly ever draw the end token: at most four seconds.
_DEMO_STEPS = 200
# Increase this when the same seed gives other numbers.
RECIPE = 1
VOCABULARIES = {"text": (129_600, 10_048), "coarse": (12_096, 12_096), "fine": (1056, 1056)}

# The vocabulary of the stand-in tokenizer, for random weights if no tokenizer is found: any ids will do.
# It spells words letter by letter.
_LETTERS = string.digits + string.ascii_letters + string.punctuation
STAND_IN = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS))

# Measured: with this gain, random codes decode to noise with an rms of about 0.1.
_LAST_CONV_GAIN = 0.2

Sizes = tuple[Layout, dict[str, GPTConfig], CodecConfig]


def is_random(name: str) -> bool:
    """Whether a model's name stands for random weights, such as `random:nano`."""
    return name.split(":")[0] == "random"


def open_random(name: str) -> Checkpoint:
    """`random:nano|small|large|demo[:seed]`; each network is created on demand, with the same weights every time."""
    _, _, rest = name.partition(":")
    size, _, digits = rest.partition(":")
    if size not in NAMES or (digits and not digits.isdecimal()):
        raise InputError(
            f"unknown model {name!r}; expected random:SIZE or random:SIZE:SEED with SIZE one of "
            f"{', '.join(NAMES)} and SEED a whole number"
        )
    seed, own = int(digits or 0), size == demo.NAME
    layout, networks, decoder = _demo_sizes() if own else _suno_sizes(size)

    def read_stage(stage: str) -> StageWeights:
        config = networks[stage]
        tensors = MadeTensors(gpt_shapes(config), lambda: make_gpt(config, _generator(seed, stage)))
        content = f"recipe {RECIPE}, torch {torch.__version__}, {size}, seed {seed}, {stage}"
        return StageWeights(config, tensors, lambda: content)

    def read_codec() -> CodecWeights:
        return CodecWeights(decoder, make_codec(decoder, _generator(seed, "codec")), read_encoder)

    def read_encoder() -> Tensors:
        made = make_codec(decoder, _generator(seed, "codec"))
        codebooks = {key: value for key, value in made.items() if key.startswith("quantizer.")}
        shapes = {key: shape for key, shape in encoder_shapes(decoder).items() if key not in codebooks}
        return codebooks | _make(shapes, torch.Generator().manual_seed(-1 - seed), gain=1.0)

    folder = demo.FOLDER if own else None
    return Checkpoint(name, f"made from seed {seed}", layout, folder, None, read_stage, read_codec)


def _suno_sizes(size: str) -> Sizes:
    n_layer, n_head, n_embd, n_filters = SIZES[size]

    def network(stage: str) -> GPTConfig:
        return (FineConfig if stage == "fine" else GPTConfig)(n_layer, n_head, n_embd, *VOCABULARIES[stage], bias=False)

    return Layout(), {stage: network(stage) for stage in STAGES}, CodecConfig(n_filters=n_filters)


def _demo_sizes() -> Sizes:
    source = Folder(demo.FOLDER)
    layout, config = huggingface.read_layout(source), read_json(demo.FOLDER / "config.json")
    where = f"config.json of {source}"
    layout = replace(layout, semantic=replace(layout.semantic, max_steps=_DEMO_STEPS))
    networks = {stage: huggingface.read_config(stage, config[huggingface.SECTIONS[stage]], where) for stage in STAGES}
    return layout, networks, codec.read_config(config["codec_config"], layout.fine.n_codebooks, str(source))


def _generator(seed: int, stage: str) -> torch.Generator:
    """A separate generator for each network, so that weights do not depend on the order of opening."""
    index = (*STAGES, "codec").index(stage)
    return torch.Generator().manual_seed(seed * 4 + index)


def make_gpt(config: GPTConfig | FineConfig, generator: torch.Generator) -> Tensors:
    """Random weights, fp32, scaled so that outputs depend on the context and logits have a spread of about 2.

    With GPT-2's 0.02 everywhere a narrow network's output would be nearly uniform, and nearly independent of its
    context, so that tests would find no errors.
    """
    tensors: Tensors = {}
    for key, shape in gpt_shapes(config).items():
        if key.endswith(".bias"):
            tensors[key] = torch.zeros(shape)
        elif len(shape) == 1:
            tensors[key] = torch.ones(shape)
        elif key.startswith("lm_heads."):
            # The same tensor as the input table of the codebook it predicts.
            tensors[key] = tensors[f"transformer.wtes.{int(key.split('.')[1]) + 1}.weight"]
        else:
            spread = 2 if key.startswith(("lm_head", "transformer.wtes")) else 1
            std = 0.02 if key.startswith(("transformer.wte.", "transformer.wpe.")) else spread / math.sqrt(shape[1])
            tensors[key] = torch.empty(shape).normal_(0, std, generator=generator)
    return tensors


def make_codec(config: CodecConfig, generator: torch.Generator) -> Tensors:
    """Random weights, fp32, that keep the signal's amplitude across layers and give an audible output."""
    shapes = codec_shapes(config)
    codebooks = {key: shape for key, shape in shapes.items() if key.endswith("codebook.embed")}
    tensors = _make({key: shapes[key] for key in shapes if key not in codebooks}, generator, gain=_LAST_CONV_GAIN)
    std = 1 / math.sqrt(config.n_codebooks)
    return tensors | {key: torch.empty(shape).normal_(0, std, generator=generator) for key, shape in codebooks.items()}


def _make(shapes: Shapes, generator: torch.Generator, gain: float) -> Tensors:
    """The encoder's or the decoder's weights; `gain` scales its last convolution."""
    last = max(shapes, key=lambda key: int(key.split(".")[2])).rsplit(".conv.", 1)[0]
    tensors: Tensors = {}
    for key, shape in shapes.items():
        if ".bias" in key:
            tensors[key] = torch.zeros(shape)
        else:
            # A transposed convolution's weight is (in, out, 2 * stride), and two of its taps reach each sample.
            transposed = key.startswith("decoder.") and len(shape) == 3 and shape[0] == 2 * shape[1]
            fan_in = 2 * shape[0] if transposed else math.prod(shape[1:])
            scale = gain if key.startswith(f"{last}.") else 1.0
            tensors[key] = torch.empty(shape).normal_(0, scale / math.sqrt(fan_in), generator=generator)
    return tensors
