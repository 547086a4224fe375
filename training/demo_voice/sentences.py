"""Stage `sentences`: held-out sentences with the phones of the training voice, for the tests in tests/demo."""

import json
from itertools import cycle

from .work import Work

N = 200
# One in EVERY sentences is from a pattern, so that any prefix of the list is a fair mixture.
EVERY = 4
ABOUT = (
    "Sentences kept out of the demo voice's training, with the phones that the training voice said, and texts of "
    "several short sentences of words that no short sentence of the training has; `make demo-voice`"
)
SIZES = range(2, 7)  # short sentences in a text


def mix(items: list[dict], kinds: list[str], n: int = N, every: int = EVERY) -> list[dict[str, str]]:
    """`n` sentences of two kinds, interleaved, each with its text, kind and phones."""
    by_kind: dict[str, list[dict[str, str]]] = {"wordnet": [], "template": []}
    for item, kind in zip(items, kinds, strict=True):
        by_kind[kind].append({"text": item["text"], "kind": kind, "phones": " ".join(item["phones"])})
    queues = {kind: iter(found) for kind, found in by_kind.items()}
    return [next(queues["template" if i % every == every - 1 else "wordnet"]) for i in range(n)]


def make_texts(items: list[dict]) -> list[dict]:
    """Texts of two to six held-out short sentences in rotation, each with the phones of every sentence."""
    texts, sizes, at = [], cycle(SIZES), 0
    while at + (n := next(sizes)) <= len(items):
        *before, last = items[at : at + n]
        marked = [one["text"] if one["text"][-1] in ".?!" else f"{one['text']}." for one in before]
        phones = [one["phones"] for one in items[at : at + n]]
        texts.append({"text": " ".join([*marked, last["text"]]), "phones": phones})
        at += n
    return texts


def run(work: Work) -> dict[str, int]:
    kinds = [item["kind"] for item in work.read_json("corpus.json")["held_out"]]
    found = mix(work.read_json("data/held_out.json"), kinds)
    texts = make_texts(work.read_json("data/held_out_short.json"))
    spelled = [text | {"phones": [" ".join(phones) for phones in text["phones"]]} for text in texts]
    lists = {"sentences": found, "short_texts": spelled}
    lines = {name: ",\n".join(map(json.dumps, items)) for name, items in lists.items()}
    blocks = "".join(f',\n"{name}": [\n{block}\n]' for name, block in lines.items())
    work.write_text("held_out.json", f'{{"about": {json.dumps(ABOUT)}{blocks}}}\n')
    return {"sentences": len(found), "short_texts": len(texts)}
