"""The built-in `demo` model: Bark's architecture, small, with a token layout of its own.

Until a trained one takes its place it is made from a seed, and speaks noise.
"""

import string

from barkfast.config import CoarseLayout, CodecConfig, FineConfig, GPTConfig, Layout, SemanticLayout
from barkfast.weights.checkpoint import Checkpoint, CodecWeights, StageWeights
from barkfast.weights.random import make_codec, make_stage, stage_generator

NAME = "demo"

_SEED = 2023
_SEMANTIC_UNITS = 160
_CODEBOOK_SIZE = 1024
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "\u266a\u2014\u2013\u2026\u2019"


def demo_vocabulary() -> list[str]:
    """Its WordPiece vocabulary, by id: special tokens, then single characters, alone and inside a word; cased."""
    characters = string.ascii_letters + string.digits
    return [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *characters,
        *("##" + character for character in characters),
        *_PUNCTUATION,
    ]


def demo_layout() -> Layout:
    """Its token ids: semantic units, the stop token, text, text padding and the infer token, one after the other."""
    text_offset = _SEMANTIC_UNITS + 1
    text_pad = text_offset + len(demo_vocabulary())
    coarse = CoarseLayout()
    coarse_end = _SEMANTIC_UNITS + coarse.n_codebooks * _CODEBOOK_SIZE
    return Layout(
        semantic=SemanticLayout(
            vocab_size=_SEMANTIC_UNITS,
            pad_token=_SEMANTIC_UNITS,
            text_offset=text_offset,
            text_pad_token=text_pad,
            infer_token=text_pad + 1,
            # Untrained, it hardly ever ends by itself: four seconds at the most.
            max_steps=200,
        ),
        coarse=CoarseLayout(semantic_pad_token=coarse_end, infer_token=coarse_end + 1),
        codebook_size=_CODEBOOK_SIZE,
    )


def open_demo() -> Checkpoint:
    """The demo model; its networks are made in well under two seconds, the same every time."""
    layout = demo_layout()

    def size_gpt(make: type[GPTConfig], n_in: int, n_out: int) -> GPTConfig:
        return make(n_layer=4, n_head=3, n_embd=192, input_vocab_size=n_in, output_vocab_size=n_out, bias=False)

    semantic_in, semantic_out = _round_up(layout.semantic.infer_token + 1), _round_up(_SEMANTIC_UNITS + 1)
    coarse_vocab, fine_vocab = _round_up(layout.coarse.infer_token + 1), _round_up(_CODEBOOK_SIZE + 1)
    configs = {
        "text": size_gpt(GPTConfig, semantic_in, semantic_out),
        "coarse": size_gpt(GPTConfig, coarse_vocab, coarse_vocab),
        "fine": size_gpt(FineConfig, fine_vocab, fine_vocab),
    }

    def read_stage(stage: str) -> StageWeights:
        return make_stage(configs[stage], _SEED, stage)

    def read_codec() -> CodecWeights:
        config = CodecConfig(n_codebooks=layout.fine.n_codebooks, codebook_size=_CODEBOOK_SIZE, n_filters=16)
        return CodecWeights(config, make_codec(config, stage_generator(_SEED, "codec")))

    return Checkpoint(NAME, "built in", layout, None, None, read_stage, read_codec)


def _round_up(size: int) -> int:
    """Vocabularies end on a multiple of 32, as Suno's do."""
    return -(-size // 32) * 32
