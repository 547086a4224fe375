"""Text to token ids: whitespace, then WordPiece as in bert-base-multilingual-cased."""

import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from barkfast.checks import check_choice, show
from barkfast.errors import CheckpointError, InputError, MissingFileError
from barkfast.files import expand
from barkfast.weights import fetch_from_hub
from barkfast.weights.files import read_json
from barkfast.weights.tokenizer_files import BERT_REPOS, find_tokenizer_file, named_tokenizer, tokenizer_repos

if TYPE_CHECKING:
    import tokenizers

    from barkfast.weights import Checkpoint

logger = logging.getLogger(__name__)

# What to do with a text of more tokens than slots: cut it, with a warning, or raise an error.
Overflow = Literal["cut", "error"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def normalize_whitespace(text: str) -> str:
    """Collapse runs of whitespace to one space and strip the ends."""
    return re.sub(r"\s+", " ", text).strip()


def check_text(text: object) -> str:
    """Return the text with normalized whitespace. Raises: InputError unless it is a valid str that is not blank."""
    if not isinstance(text, str):
        raise InputError(f"text is {show(text)}; expected a str")
    normalized = normalize_whitespace(text)
    if not normalized:
        raise InputError(f"text is {text!r}: nothing to say; expected at least one visible character")
    if any("\ud800" <= character <= "\udfff" for character in normalized):
        raise InputError(f"text is {normalized[:80]!r}: it holds bytes that are not valid UTF-8; fix its encoding")
    return normalized


def check_overflow(overflow: str) -> None:
    """Raise InputError unless `overflow` is "cut" or "error"."""
    check_choice("overflow", overflow, get_args(Overflow))


class Tokenizer:
    """WordPiece with BERT's normalization; the ids are those of transformers' BertTokenizer.

    Args:
        origin: where it came from, for messages.
        spell_out: "english" for a model that knows only words, such as the demo voice: numbers and the like are first
            replaced by words (barkfast.normalize.english). None uses the text unchanged.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", origin: str = "memory", spell_out: str | None = None) -> None:
        if spell_out not in (None, "english"):
            raise CheckpointError(f"{origin}: spell_out is {spell_out!r}; barkfast spells out 'english' alone")
        # A tokenizer.json may enable padding or truncation; the stages do both themselves.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._spells_out = spell_out is not None
        self.origin = origin

    @classmethod
    def from_vocabulary(cls, vocabulary: Sequence[str], origin: str = "memory", **settings: Any) -> "Tokenizer":
        """Create a tokenizer from the entries of a vocab.txt.

        Args:
            vocabulary: the entries, in the order of their ids; `##` marks a token inside a word.
            origin: where they came from.
            settings: as in a tokenizer_config.json: do_lower_case, tokenize_chinese_chars, strip_accents, spell_out.
        """
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers

        ids = {token: i for i, token in enumerate(vocabulary)}
        if "[UNK]" not in ids:
            raise CheckpointError(f"a vocabulary of {len(ids)} entries without [UNK]; expected a BERT vocabulary")
        tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            strip_accents=settings.get("strip_accents"),
            lowercase=settings.get("do_lower_case", False),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        # So that "[MASK]" in a text is one token, as in transformers. Only tokens in the vocabulary: it must not grow.
        tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
        return cls(tokenizer, origin, settings.get("spell_out"))

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read a tokenizer.json, a vocab.txt, or a folder with either.

        The settings of a tokenizer_config.json beside it are applied (do_lower_case and the like).

        Raises:
            MissingFileError: there is no tokenizer at `path`.
            CheckpointError: the file is not a tokenizer.
        """
        path = expand(path)
        file = find_tokenizer_file(path)
        if file is None:
            raise MissingFileError(f"no tokenizer at {path}; expected a tokenizer.json, a vocab.txt, or a folder of it")
        settings = _read_settings(file.with_name("tokenizer_config.json"))
        if file.suffix == ".json":
            spell_out = settings.pop("spell_out", None)
            return cls(_read_tokenizer_json(file, settings), str(file), spell_out)
        try:
            with open(file, encoding="utf-8") as lines:
                # Not splitlines(): it also splits at separators that are entries of real vocabularies.
                vocabulary = [line.rstrip("\n") for line in lines]
            return cls.from_vocabulary(vocabulary, str(file), **settings)
        except (UnicodeDecodeError, CheckpointError) as error:
            raise CheckpointError(f"{file} is not a BERT vocabulary: {error}") from error

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text, without [CLS] and [SEP]; `add_special_tokens` as in transformers, but only False."""
        if add_special_tokens:
            raise InputError("add_special_tokens is True; Bark reads text without [CLS] and [SEP], so leave it out")
        if self._spells_out:
            from barkfast.normalize.english import spell_out

            text = spell_out(text)
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:
            # The tokenizers library raises plain Exception, for example for a vocabulary without its unknown token.
            raise CheckpointError(f"the tokenizer {self.origin} cannot read {text[:80]!r}: {error}") from error

    def check(self, text: str) -> None:
        """Raise InputError for a text that the model cannot speak at all; warn of letters that it does not know."""
        if self._spells_out:
            from barkfast.normalize.english import check_english

            check_english(text)

    def leaves_out(self, text: str) -> bool:
        """Whether a valid text gives no speech, because it has only signs, or tags such as `[laughs]`."""
        if not self._spells_out:
            return False
        from barkfast.normalize.english import is_silent

        return is_silent(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, except for what tokenization dropped."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()


def fit_text(text: str, tokenizer: Tokenizer, n_slots: int, overflow: Overflow = "cut") -> list[int]:
    """A text's token ids, at most `n_slots` of them; a longer text is cut with a warning, or raises InputError."""
    tokenizer.check(text)
    ids = tokenizer.encode(text)
    if len(ids) > n_slots:
        if overflow == "error":
            raise InputError(f"the text has {len(ids)} tokens and {n_slots} fit; split it into shorter pieces")
        share = round((len(ids) - n_slots) / len(ids) * 100, 1)
        logger.warning("warning, text too long, lopping of last %s%%", share)
    return ids[:n_slots]


def _read_settings(path: Path) -> dict[str, Any]:
    """The settings of a tokenizer_config.json that change ids; empty if there is no such file."""
    if not path.is_file():
        return {}
    config = read_json(path)
    names = ("do_lower_case", "tokenize_chinese_chars", "strip_accents", "spell_out")
    settings = {name: config[name] for name in names if config.get(name) is not None}
    for name, value in settings.items():
        if name != "spell_out" and not isinstance(value, bool):
            raise CheckpointError(f"{path}: {name} is {value!r}; expected true or false")
    return settings


def _read_tokenizer_json(path: Path, settings: dict[str, Any]) -> "tokenizers.Tokenizer":
    import tokenizers

    try:
        text = path.read_text(encoding="utf-8")
        description = json.loads(text)
        normalizer = description.get("normalizer") or {}
        if settings and normalizer.get("type") == "BertNormalizer":
            # As in transformers, the configuration overrides the file.
            ours = {"do_lower_case": "lowercase", "tokenize_chinese_chars": "handle_chinese_chars"}
            normalizer.update({ours.get(name, name): value for name, value in settings.items()})
            text = json.dumps(description)
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:
        # The tokenizers library raises plain Exception for whatever it cannot parse.
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from error


def _fetch(repo: str) -> Path:
    """A repository's tokenizer, from the cache or the hub; the smaller file first."""
    # The settings first: they must be beside the tokenizer file when it is read.
    fetch_from_hub(repo, "tokenizer_config.json", optional=True)
    file = fetch_from_hub(repo, "vocab.txt", optional=True) or fetch_from_hub(repo, "tokenizer.json")
    if file is None:
        raise MissingFileError(f"{repo} has no tokenizer.json and no vocab.txt")
    return file


def load_tokenizer(checkpoint: "Checkpoint", path: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The tokenizer of a model: `path`, else $BARKFAST_TOKENIZER, else the model's own, else mBERT's from the hub.

    If none is found, random weights get a stand-in, with a warning.

    Raises:
        MissingFileError: no tokenizer was found; the message has every place searched.
    """
    from barkfast.weights.random import STAND_IN, is_random

    if path is not None:
        return Tokenizer.from_path(path)
    named = named_tokenizer(checkpoint)
    if named is not None:
        try:
            return Tokenizer.from_path(named)
        except MissingFileError as error:
            raise MissingFileError(f"BARKFAST_TOKENIZER: {error}") from error
    places = ["BARKFAST_TOKENIZER (not set)"]
    if checkpoint.folder is not None:
        if find_tokenizer_file(checkpoint.folder) is not None:
            return Tokenizer.from_path(checkpoint.folder)
        places.append(f"{checkpoint.folder} (no tokenizer.json, no vocab.txt)")
    for repo in tokenizer_repos(checkpoint):
        try:
            return Tokenizer.from_path(_fetch(repo))
        except MissingFileError as error:
            places.append(f"{repo} ({error})")
    if is_random(checkpoint.name):
        logger.warning(
            "no tokenizer was found for %s: a stand-in spells its texts letter by letter; to have the tokens of a real "
            "one set BARKFAST_TOKENIZER",
            checkpoint.name,
        )
        return Tokenizer.from_vocabulary(STAND_IN, "a stand-in that spells letters, for random weights")
    raise MissingFileError(
        f"no tokenizer for {checkpoint.name}; looked in: {'; '.join(places)}. Set BARKFAST_TOKENIZER to the vocab.txt "
        f"or tokenizer.json of {BERT_REPOS[0]}, or to a folder that holds it"
    )
