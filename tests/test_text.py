"""Text to ids: equal to transformers' BertTokenizer on a full-size vocabulary, and to golden ids without it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from barkfast.errors import CheckpointError, InputError, MissingFileError
from barkfast.text import Tokenizer, check_text, load_tokenizer, normalize_whitespace
from barkfast.weights import demo

N_ENTRIES = 119_547  # as in bert-base-multilingual-cased

PROMPTS = {
    "en": "Hello, my name is Suno. And, uh - and I like pizza. [laughs] But I also have OTHER interests!",
    "de": "Der Dreißigjährige Krieg (1618-1648) war ein verheerender Konflikt; größer wäre keiner gewesen.",
    "es": "¿Qué hora es? ¡Mañana será otro día, señor! Son las 15:30.",
    "fr": "Où est-ce qu'elle a acheté ces œufs à l'œillet ? C'était l'été, n'est-ce pas…",
    "hi": "नमस्ते, मेरा नाम बार्क है। क्या आप मुझे सुन सकते हैं?",
    "it": "Perché no? È così: l'uomo non sa più dov'è la città.",
    "ja": "こんにちは、私の名前はバークです。東京タワーへ行きましょう！ｶﾀｶﾅ",
    "ko": "안녕하세요, 제 이름은 바크입니다. 한국어로 말할 수 있어요.",
    "pl": "Zażółć gęślą jaźń, proszę pana. Źdźbło trawy kosztuje 3,50 zł.",
    "pt": "Não há ninguém que ame a dor por si só; coração, pão e ação.",
    "ru": "Привет, меня зовут Барк. Съешь ещё этих мягких французских булок, да выпей чаю.",
    "tr": "İstanbul'da ığdır ağacı var mı? Şöyle böyle, çok güzel günler.",
    "zh": "你好，我的名字是巴克。今天天气很好，我们去公园散步吧。",
    "music": "♪ In the jungle, the mighty jungle, the lion barks tonight ♪",
    "capitals": "I can't BELIEVE it — WOMAN: what?! [MAN] Yes... [clears throat] [gasps] [sighs]",
    "dashes": "well—no, I mean – er, twenty-one ― or 3−2, and a – b -- c",
    "emoji": "I ❤️ pizza 🍕🍕 and 👩‍👩‍👧 families 🇩🇪!",
    "combining": "cafe\u0301 naï\u0308ve Z\u0335a\u0323lgo e\u0301e\u0301 और ज़",
    "control": "zero\u0000width\u200bspace\u00adsoft\ufeffbom\u0007bell\u2028line\u0085next\ufffdend",
    "special": "a [MASK] b[SEP]c [CLS] [UNK] [PAD] [mask] [ SEP ] [unused1]",
    "long word": "Donaudampfschifffahrtsgesellschaft" * 4 + " " + "a" * 100 + " " + "b" * 101,
    "rare scripts": "ᚠᛇᚻ 𐍈 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 㐀 𠀀 豈 ﷺ עברית العربية ไทย",
    "money": "$5 €10 £3 ¥700 100% #1 @home C++ 1st ½ ² ™ ©",
    "blanks": "  tabs\tand\nnew\r\nlines \u00a0 and \u3000 wide  ",
    "long": "This is one of very many sentences, and together they have more than 256 tokens. " * 20,
}

# Made with transformers' BertTokenizer on the vocabulary below.
GOLDEN = {
    "en": """
        47642 276 115 47646 47648 47650 47652 117 47655 265 115 47658 116 47660 144 47662 47665 262 117 162
        47766 282 48056 280 164 47675 144 47677 47680 47683 247 47687 47728 280 281 280 104
    """,
    "hi": """
        47814 47840 115 47819 47822 47824 2583 47827 2534 47830 47832 47834 47837 47839 47827 2564 134
    """,
    "ja": """
        47871 2929 3414 37851 2736 28199 27751 2737 3026 3070 2993 2921 2907 3415 33163 26822 2817 3057 3070
        2938 41574 2703 2944 2905 2953 2888 3476 3593 3762 3752 3767
    """,
    "ko": """
        47876 22282 115 11502 47881 47883 17242 117 47888 47890 9962 47891 22282 117
    """,
    "ru": """
        47961 2183 2196 115 47966 47969 2196 47973 117 47977 2206 47981 47983 47986 47984 47990 47993 47995
        2188 115 47999 48001 2187 48004 2208 117
    """,
    "tr": """
        48008 275 263 282 273 110 171 262 48013 279 48017 867 48021 48022 134 48025 266 48029 266 115 48033
        48035 273 48038 47725 117
    """,
    "zh": """
        27002 29591 3487 31787 37022 28199 30065 32841 30734 27493 3415 26852 29507 29507 34350 31138 29591
        3487 31787 26886 28117 27526 28935 32637 34175 28225 3415
    """,
    "emoji": """
        144 48136 47665 262 48138 47660 100 48145 48148 48149 104
    """,
    "combining": """
        48070 267 266 1427 47647 801 1434 47681 161 1479 262 1461 273 268 276 172 1427 266 1427 2454 2610
        2462 2622
    """,
    "control": """
        193 47725 276 284 270 265 281 269 280 277 48018 47808 276 267 281 263 276 274 263 266 47643 47661
        275 48128 266 285 47688 275 265
    """,
    "special": """
        168 103 169 102 170 101 100 0 162 180 48109 272 164 162 154 234 245 164 162 188 275 282 280 266 265
        214 164
    """,
}


def make_vocabulary() -> list[str]:
    """A WordPiece vocabulary as large as mBERT's: specials in their places, characters, pieces of words, padding."""
    entries = dict.fromkeys(["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    scripts = [
        *((0x21, 0x7E), (0xA1, 0x24F), (0x2B0, 0x36F), (0x370, 0x52F), (0x900, 0x97F), (0x3040, 0x30FF)),
        *((0x2010, 0x2027), (0x20A0, 0x20BF), (0x2190, 0x21FF), (0x266A, 0x266B), (0x3001, 0x301F), (0xFF01, 0xFF9F)),
        *((0x1100, 0x11FF), (0xAC00, 0xD7A3)),
    ]
    for first, last in scripts:
        characters = [chr(code) for code in range(first, last + 1)]
        entries |= dict.fromkeys(characters) | dict.fromkeys("##" + c for c in characters)
    entries |= dict.fromkeys(chr(code) for code in range(0x4E00, 0x9FFF))
    for prompt in list(PROMPTS.values())[:17]:
        for word in prompt.split():
            entries |= dict.fromkeys([word[:2], word[:4], "##" + word[2:4], "##" + word[2:], "##" + word[4:]])
    entries.pop("##", None)
    entries.pop("", None)
    padding = (f"q{i:06d}" for i in range(N_ENTRIES))
    while len(entries) < N_ENTRIES:
        entries[next(padding)] = None
    return list(entries)


@dataclass(frozen=True)
class FakeCheckpoint:
    """The fields that `load_tokenizer` reads from a checkpoint."""

    name: str = "some model"
    folder: Path | None = None
    repo: str | None = None


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocabulary, laid out as on the hub."""
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "vocab.txt").write_text("\n".join(make_vocabulary()) + "\n", encoding="utf-8")
    (path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 512}')
    return path


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_path(folder)


@pytest.fixture(scope="session")
def reference(folder: Path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (the extra `reference`)")
    return transformers.BertTokenizer.from_pretrained(str(folder))


def test_vocabulary_is_of_full_size(tokenizer: Tokenizer):
    assert tokenizer.vocab_size == N_ENTRIES
    assert tokenizer.encode("[PAD][UNK][CLS][SEP][MASK]") == [0, 100, 101, 102, 103]


@pytest.mark.parametrize("name", PROMPTS)
def test_ids_equal_transformers(tokenizer: Tokenizer, reference, name: str):
    for text in (PROMPTS[name], normalize_whitespace(PROMPTS[name])):
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False)


def test_ids_equal_transformers_on_every_character(tokenizer: Tokenizer, reference):
    codes = [c for c in range(0x30000) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(codes), 512):
        text = " ".join(f"a{chr(code)}b {chr(code)}" for code in codes[start : start + 512])
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False), hex(codes[start])


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_ids(tokenizer: Tokenizer, name: str):
    assert tokenizer.encode(PROMPTS[name]) == [int(i) for i in GOLDEN[name].split()]


def test_long_text_is_not_cut(tokenizer: Tokenizer):
    assert len(tokenizer.encode(PROMPTS["long"])) > 256


def test_decode_returns_what_ids_keep(tokenizer: Tokenizer):
    assert tokenizer.decode(tokenizer.encode("Hello, my name is Suno.")) == "Hello, my name is Suno."


def test_every_form_gives_the_same_ids(tokenizer: Tokenizer, folder: Path, tmp_path: Path):
    saved = tmp_path / "tokenizer.json"
    tokenizer._tokenizer.save(str(saved))
    forms = [folder / "vocab.txt", saved, tmp_path]
    for prompt in (PROMPTS["de"], PROMPTS["zh"], PROMPTS["special"]):
        assert [Tokenizer.from_path(form).encode(prompt) for form in forms] == [tokenizer.encode(prompt)] * 3


def test_a_tokenizer_file_that_pads_and_cuts_does_neither(tmp_path: Path):
    import tokenizers

    raw = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    raw.enable_padding(length=8)
    raw.enable_truncation(2)
    raw.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_path(tmp_path).encode("a a a") == [1, 1, 1]


def test_windows_line_ends_and_odd_separators_keep_ids(tmp_path: Path):
    (tmp_path / "vocab.txt").write_bytes("[PAD]\r\n[UNK]\r\n\u2028\r\n\x1c\r\na\r\n".encode())
    assert Tokenizer.from_path(tmp_path).encode("a") == [4]


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_tokenizer_config_is_honoured(tmp_path: Path, form: str):
    entries = ["[UNK]", "Été", "ete", "été"]
    if form == "vocab.txt":
        (tmp_path / form).write_text("\n".join(entries), encoding="utf-8")
    else:
        Tokenizer.from_vocabulary(entries)._tokenizer.save(str(tmp_path / form))
    assert Tokenizer.from_path(tmp_path).encode("Été") == [1]
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"do_lower_case": True}))
    assert Tokenizer.from_path(tmp_path).encode("Été") == [2]
    config.write_text(json.dumps({"do_lower_case": True, "strip_accents": False}))
    assert Tokenizer.from_path(tmp_path).encode("Été") == [3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.txt", b"\xff\xfe not utf-8"),
        ("vocab.txt", b"no\nunknown\ntoken\n"),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"version": "1.0"}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.from_path(tmp_path)


def test_a_damaged_config_is_named(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        Tokenizer.from_path(tmp_path)


def test_load_prefers_the_path_then_the_variable_then_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i, name in enumerate(("path", "variable", "model")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_text("\n".join(["[UNK]", *["-"] * i, "a"]))
    checkpoint = FakeCheckpoint(folder=tmp_path / "model")
    assert load_tokenizer(checkpoint).origin == str(tmp_path / "model" / "vocab.txt")
    monkeypatch.setenv("BARKFAST_TOKENIZER", str(tmp_path / "variable"))
    assert load_tokenizer(checkpoint).origin == str(tmp_path / "variable" / "vocab.txt")
    assert load_tokenizer(checkpoint, tmp_path / "path").origin == str(tmp_path / "path" / "vocab.txt")


def test_load_falls_back_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def fetch(repo: str, filename: str, *, optional: bool = False) -> Path | None:
        asked.append((repo, filename))
        if (repo, filename) == ("bert-base-multilingual-cased", "vocab.txt"):
            (tmp_path / filename).write_text("[UNK]\na\n")
            return tmp_path / filename
        if optional:
            return None
        raise MissingFileError(f"{filename} of {repo} is out of reach")

    monkeypatch.setattr("barkfast.text.fetch_from_hub", fetch)
    assert load_tokenizer(FakeCheckpoint(repo="suno/bark")).encode("a") == [1]
    assert ("suno/bark", "vocab.txt") in asked and asked.index(("suno/bark", "vocab.txt")) == 1


def test_the_demo_voice_keeps_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BARKFAST_TOKENIZER", "elsewhere")
    tokenizer = load_tokenizer(FakeCheckpoint(name="demo", folder=demo.FOLDER))
    assert tokenizer.decode(tokenizer.encode("Hi you 2!")) == "hi you two!"


def test_nothing_found_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MissingFileError, match="BARKFAST_TOKENIZER") as error:
        load_tokenizer(FakeCheckpoint(name="my/model", folder=tmp_path, repo="suno/bark"))
    for place in ("my/model", str(tmp_path), "suno/bark", "bert-base-multilingual-cased", "HF_HUB_OFFLINE"):
        assert place in str(error.value)
    monkeypatch.setenv("BARKFAST_TOKENIZER", str(tmp_path / "gone"))
    with pytest.raises(MissingFileError, match="BARKFAST_TOKENIZER.*gone"):
        load_tokenizer(FakeCheckpoint())
    with pytest.raises(MissingFileError, match="other"):
        load_tokenizer(FakeCheckpoint(), tmp_path / "other")


def test_whitespace_is_collapsed_as_in_the_reference():
    assert normalize_whitespace("  a\t b\n\nc\u00a0\u3000d ") == "a b c d"
    assert check_text(" Hello\nthere ") == "Hello there"


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u00a0", None, 5, b"bytes", ["list"], "broken \udcff byte"])
def test_unusable_text_is_refused(text: object):
    with pytest.raises(InputError, match="text is"):
        check_text(text)
