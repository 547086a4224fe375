"""The demo voice's sizes and token ids, and its text tokenizer; shared by training and export."""

import re
import string

from barkfast.config import CoarseLayout, CodecConfig, FineConfig, GPTConfig, Layout, SemanticLayout

from .features import N_MELS
from .units import N_UNITS
from .work import words

PUNCTUATION = "',.?!"
# A WordPiece vocabulary of single characters for BERT's tokenizer: special tokens, letters that begin a word, letters
# inside a word, marks. Lower case only.
VOCABULARY = (
    words("[PAD] [UNK] [CLS] [SEP] [MASK]")
    + list(string.ascii_lowercase)
    + [f"##{letter}" for letter in string.ascii_lowercase]
    + list(PUNCTUATION)
)
TOKEN_IDS = {token: i for i, token in enumerate(VOCABULARY)}

CODEBOOK_SIZE = 512
N_CODEBOOKS = 8


def make_layout() -> Layout:
    """Units, the end token, text, text padding and the infer token, one after the other; likewise the coarse ids."""
    text_offset = N_UNITS + 1
    text_pad = text_offset + len(VOCABULARY)
    coarse_end = N_UNITS + 2 * CODEBOOK_SIZE
    return Layout(
        semantic=SemanticLayout(
            vocab_size=N_UNITS,
            pad_token=N_UNITS,
            text_offset=text_offset,
            text_pad_token=text_pad,
            infer_token=text_pad + 1,
        ),
        coarse=CoarseLayout(semantic_pad_token=coarse_end, infer_token=coarse_end + 1),
        codebook_size=CODEBOOK_SIZE,
    )


def _round_up(size: int) -> int:
    """Round a vocabulary size up to a multiple of 32, as in Bark."""
    return -(-size // 32) * 32


LAYOUT = make_layout()
_SEMANTIC_IN, _SEMANTIC_OUT = _round_up(LAYOUT.semantic.infer_token + 1), _round_up(N_UNITS + 1)
_COARSE, _FINE = _round_up(LAYOUT.coarse.infer_token + 1), _round_up(CODEBOOK_SIZE + 1)

T2S = GPTConfig(4, 3, 192, _SEMANTIC_IN, _SEMANTIC_OUT, bias=False)
COARSE = GPTConfig(3, 3, 192, _COARSE, _COARSE, bias=False)
FINE = FineConfig(2, 2, 128, _FINE, _FINE, bias=False, n_codes_total=N_CODEBOOKS)
CODEC = CodecConfig(codebook_size=CODEBOOK_SIZE, dimension=N_MELS, n_filters=12, n_lstm_layers=1)


def tokenize(text: str) -> tuple[list[int], list[int]]:
    """Token ids of a text in the corpus' letters and, for each, the number of its word (between spaces).

    The ids are those that BERT's WordPiece gives: an apostrophe is a word of its own, and what follows it begins one.
    """
    ids, words = [], []
    for number, word in enumerate(text.split()):
        for piece in re.findall(r"[a-z]+|[^a-z]", word):
            for i, character in enumerate(piece):
                ids.append(TOKEN_IDS[f"##{character}" if i else character])
                words.append(number)
    return ids, words
