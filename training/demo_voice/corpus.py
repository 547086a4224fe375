"""Stage `corpus`: the text list, from WordNet's example sentences, patterns, and words of the CMU lexicon.

The seed and the data files determine the list. The files' checksums are checked: other versions give another list.
"""

import hashlib
import json
import random
import re
import string
from pathlib import Path

from .templates import draw_sentence
from .work import Work, words

SEED = 2023
WORDNET = Path("/usr/share/wordnet")  # Debian's wordnet-base 1:3.0-37
LEXICON = Path("/usr/share/festival/dicts/cmu/cmudict-0.4.out")  # Debian's festlex-cmu 2.4-2
SHA256 = {
    WORDNET / "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    WORDNET / "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
    WORDNET / "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    WORDNET / "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    LEXICON: "3b211f3371e4b57ff14525f284623ff8e84add2656690e24c885d05b62426fb6",
}
N_TEMPLATES = 11_000
N_WORD_LISTS = 6_000
N_HELD_OUT = {"wordnet": 200, "template": 60}
MAX_CHARACTERS = 110
N_SHORT, MAX_SHORT_WORDS = 6_000, 4
N_HELD_OUT_SHORT, N_HELD_OUT_WORDS = 400, 400
# Words that the tests use in short sentences; no short sentence of the training has them.
TEST_WORDS = words("apples pears plums")


def check_sources() -> None:
    """Raises: SystemExit if a data file is missing, or of another version than the list was made from."""
    for path, expected in SHA256.items():
        if not path.is_file():
            raise SystemExit(f"{path} is missing; apt-get install wordnet-base festlex-cmu festival festvox-us-slt-hts")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise SystemExit(f"{path} is another version than the text list was made from; its sum must be {expected}")


def clean_quote(quote: str) -> str | None:
    """An example sentence in the demo voice's letters, its attribution cut off; None if it is no plain sentence."""
    quote = re.split(r"- ?[A-Z]", quote)[0].replace("`", "'").strip()
    if not re.fullmatch(r"[A-Za-z' ,.?!-]+", quote) or re.search(r"--| -|- |\b[A-Z]{2,}|[,.?!]{2}|[a-z][.?!] ", quote):
        return None
    quote = re.sub(r"(?<![A-Za-z])'|'(?![A-Za-z])", "", quote.replace("-", " "))
    return re.sub(r"\s+", " ", re.sub(r"\s+([,.?!])", r"\1", quote)).strip(" ,").lower()


def read_wordnet() -> list[str]:
    """All usable example sentences, in the order of the files."""
    quotes = []
    for pos in ("adj", "adv", "noun", "verb"):
        for line in (WORDNET / f"data.{pos}").read_text(encoding="latin1").splitlines():
            _, bar, gloss = line.partition("| ")
            found = re.findall(r'"([^"]+)"', gloss) if bar else []
            quotes += [quote for quote in map(clean_quote, found) if quote and " " in quote]
    return [quote for quote in dict.fromkeys(quotes) if 8 <= len(quote) <= MAX_CHARACTERS]


def read_words() -> list[str]:
    """Words in both the CMU lexicon, which has their pronunciation, and WordNet, which shows that they are in use."""
    known = set(re.findall(r'^\("([a-z]{2,14})" ', LEXICON.read_text(encoding="latin1"), re.MULTILINE))
    lemmas = set()
    for pos in ("adj", "adv", "noun", "verb"):
        lines = (WORDNET / f"data.{pos}").read_text(encoding="latin1").splitlines()
        for fields in (line.split(" ") for line in lines if not line.startswith(" ")):
            lemmas |= {fields[4 + 2 * i].lower() for i in range(int(fields[3], 16))}
    return sorted(known & lemmas)


def make_corpus() -> dict[str, list[dict[str, str]]]:
    """Lists of {text, kind}: `train` (shuffled, so that any prefix is a fair sample), `held_out`, `make_short`'s."""
    rng = random.Random(SEED)
    quotes = read_wordnet()
    rng.shuffle(quotes)
    # Most people end a sentence with a mark, but most examples have none: most of those get a full stop.
    quotes = [quote if quote[-1] in ".?!" or rng.random() < 0.4 else f"{quote}." for quote in quotes]
    templates = list(dict.fromkeys(draw_sentence(rng) for _ in range(N_TEMPLATES)))
    known = read_words()
    rng.shuffle(known)
    word_lists, at = [], 0
    while len(word_lists) < N_WORD_LISTS and at < len(known):
        n = rng.choice((1, 2, 3, 4, 5))
        word_lists.append(" ".join(known[at : at + n]) + ".")
        at += n
    kinds = {"wordnet": quotes, "template": templates, "words": word_lists}
    held_out = [{"text": t, "kind": kind} for kind, n in N_HELD_OUT.items() for t in _pick_held_out(kinds[kind], n)]
    taken = {_bare(item["text"]) for item in held_out}
    train = [{"text": t, "kind": k} for k, texts in kinds.items() for t in texts if _bare(t) not in taken]
    rng.shuffle(train)
    quotes = [item["text"] for item in train if item["kind"] == "wordnet"]
    return {"held_out": held_out} | make_short(quotes, known) | {"train": train}


def make_short(quotes: list[str], known: list[str]) -> dict[str, list[dict[str, str]]]:
    """`short` and `held_out_short`: sentences of one to four words, which are joined to texts of several sentences.

    No word of `held_out_short` is in `short`. A separate seed keeps the other lists unchanged.
    """
    rng = random.Random(SEED + 1)
    # Plurals and past tenses are not lemmas, so half of the words come from running text.
    running = sorted({word for quote in quotes for word in _bare(quote).split() if len(word) > 2})
    away = TEST_WORDS + rng.sample(sorted(set(known) & set(running)), N_HELD_OUT_WORDS)
    kept = set(away)
    short: list[str] = []
    while len(short) < N_SHORT:
        text = _draw_short(rng, quotes, rng.choice((known, running)))
        if 0 < len(text.split()) <= MAX_SHORT_WORDS and not kept & set(_bare(text).split()):
            short.append(text)
    held_out = [_mark(rng, " ".join(rng.sample(away, rng.randint(1, 3)))) for _ in range(N_HELD_OUT_SHORT)]
    lists = {"held_out_short": held_out, "short": short}
    return {split: [{"text": text, "kind": "short"} for text in texts] for split, texts in lists.items()}


def _draw_short(rng: random.Random, quotes: list[str], vocabulary: list[str]) -> str:
    """Random words, adjacent words of a quote, a letter, or a pattern (which is often too long)."""
    kind = rng.randrange(20)
    if kind < 6:
        return _mark(rng, " ".join(rng.sample(vocabulary, rng.choice((1, 1, 2, 3)))))
    if kind < 11:
        quote = rng.choice(quotes).split()
        at = rng.randrange(len(quote))
        return _mark(rng, " ".join(quote[at : at + rng.randint(1, MAX_SHORT_WORDS)]).strip(",.?!"))
    return _mark(rng, rng.choice(string.ascii_lowercase)) if kind == 11 else draw_sentence(rng)


def _mark(rng: random.Random, text: str) -> str:
    """Add a closing mark; one in ten gets none, as at the end of a text."""
    return text + rng.choices((".", "!", "?", ""), (0.6, 0.15, 0.15, 0.1))[0]


def _bare(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text)


def _pick_held_out(texts: list[str], n: int) -> list[str]:
    """The last `n` texts of 8 to 64 characters: sentences for evaluation must fit one clip."""
    return [text for text in texts if 8 <= len(text) <= 64 and " " in text][-n:]


def run(work: Work) -> dict[str, int | str]:
    check_sources()
    corpus = make_corpus()
    content = json.dumps(corpus, indent=0)
    work.write_text("corpus.json", content)
    counts = {
        f"{split}_{kind}": sum(item["kind"] == kind for item in items)
        for split, items in corpus.items()
        for kind in sorted({item["kind"] for item in items})
    }
    return counts | {"sha256": hashlib.sha256(content.encode()).hexdigest()}
