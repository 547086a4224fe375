"""Stage `sentences`: held-out sentences with the phones of the training voice, for the tests in tests/demo."""

import json

from .work import Work

N = 200
# Any first few of them are a fair mixture: every so many is from a pattern.
EVERY = 4
ABOUT = (
    "Sentences kept out of the demo voice's training, with the phones that the training voice said; `make demo-voice`"
)


def mix(items: list[dict], kinds: list[str], n: int = N, every: int = EVERY) -> list[dict[str, str]]:
    """The first `n` of two kinds by turns, each with its text, kind and phones."""
    by_kind: dict[str, list[dict[str, str]]] = {"wordnet": [], "template": []}
    for item, kind in zip(items, kinds, strict=True):
        by_kind[kind].append({"text": item["text"], "kind": kind, "phones": " ".join(item["phones"])})
    queues = {kind: iter(found) for kind, found in by_kind.items()}
    return [next(queues["template" if i % every == every - 1 else "wordnet"]) for i in range(n)]


def run(work: Work) -> dict[str, int]:
    kinds = [item["kind"] for item in work.read_json("corpus.json")["held_out"]]
    found = mix(work.read_json("data/held_out.json"), kinds)
    lines = ",\n".join(json.dumps(item) for item in found)
    work.write_text("held_out.json", f'{{"about": {json.dumps(ABOUT)},\n"sentences": [\n{lines}\n]}}\n')
    return {"sentences": len(found)}
