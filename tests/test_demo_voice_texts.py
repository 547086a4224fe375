"""Texts of several short sentences for the demo voice: drawing, layout, scoring; training from an exported model."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from barkfast.config import Sampling
from barkfast.models.gpt import GPT
from barkfast.stages.semantic import semantic_job
from barkfast.weights.demo import FOLDER

pytest.importorskip("scipy", reason="scipy is not installed (the extra `reference`)")

from training.demo_voice import corpus, export, items, layout, sentences, t2s, train, units  # noqa: E402
from training.demo_voice.dataset import Utterances, save_utterances  # noqa: E402
from training.demo_voice.work import Work  # noqa: E402

SEMANTIC = layout.LAYOUT.semantic


def test_what_was_said_of_a_text_is_found_by_sentences() -> None:
    text = [phones.split() for phones in ("ae p ax l z", "p eh r z", "p l ah m z")]
    for said, expected in {
        "ae p ax l z p eh r z p l ah m z": [True, True, True],
        "ae p l eh s p er z p l ah m z": [True, True, True],
        "ae p ax l z": [True, False, False],
        "ax p l eh s p er z p l ah m z": [True, True, True],
        "ae p ax l z p l ah m z": [True, False, True],
        "p eh r z p l ah m z": [False, True, True],
        "": [False, False, False],
    }.items():
        assert units.sentences_said(said.split(), text) == expected, said


def test_no_held_out_word_is_in_a_short_sentence_of_the_training() -> None:
    known = [a + b + c for a in "bdfglmnprs" for b in "aeiou" for c in "bdfglmnprst"]
    quotes = [" ".join(known[at : at + 7]) for at in range(0, len(known), 7)]
    made = corpus.make_short(quotes, [*known, *corpus.TEST_WORDS])
    train_words, held_out_words = (
        {word for item in made[split] for word in re.findall("[a-z]+", item["text"])}
        for split in ("short", "held_out_short")
    )
    assert len(made["short"]) == corpus.N_SHORT and len(made["held_out_short"]) == corpus.N_HELD_OUT_SHORT
    assert not train_words & (held_out_words | set(corpus.TEST_WORDS))
    for item in made["short"] + made["held_out_short"]:
        assert re.fullmatch(r"[a-z' ,]+[.?!]?", item["text"]), item
        assert 1 <= len(item["text"].split()) <= corpus.MAX_SHORT_WORDS


def test_held_out_texts_are_of_two_to_six_sentences_each_with_a_mark() -> None:
    spoken = [{"text": f"word{'' if i % 3 else '!'}", "phones": ["b", "ax"]} for i in range(23)]
    texts = sentences.make_texts(spoken)
    assert [len(text["phones"]) for text in texts] == [2, 3, 4, 5, 6, 2]
    assert texts[1]["text"] == "word. word! word"


def say_all(folder: Path, split: str, texts: list[str]) -> Utterances:
    """Utterances of `texts`; the units of each are 10 times the utterance's number."""
    work = Work(folder)
    ids = [np.array(layout.tokenize(text)[0], np.int16) for text in texts]
    arrays = {
        "text": ids,
        "units": [np.full(10, i, np.int16) for i in range(len(texts))],
        "guide": [np.linspace(0, len(one) - 1, 10).astype(np.float32) for one in ids],
    }
    for name, array in arrays.items():
        save_utterances(work, split, name, array)
    return Utterances(folder / "data" / split, *arrays)


def test_texts_of_short_sentences_hold_each_sentence_with_a_mark_after_it(tmp_path: Path) -> None:
    short = say_all(tmp_path, "short", ["apples", "red pears.", "plums!", "why?"])
    long = say_all(tmp_path, "train", ["this one is longer."])
    marks = {layout.TOKEN_IDS[mark] for mark in ".?!"}
    counts = set()
    for step in range(60):
        texts = items.draw_short_texts(short, long, 300, np.random.default_rng(step))
        (n,) = {len(said) // 10 for _, said, _ in texts}
        assert len(texts) == 300 // (n * 10)
        for ids, said, guide in texts:
            assert sum(token in marks for token in ids[:-1]) == n - 1
            # The guide goes through every sentence in turn, from its first letter to its last token.
            assert (np.diff(guide) >= 0).all() and guide[0] == 0 and guide[-1] in (len(ids) - 1, len(ids) - 2)
            assert len(said) == 10 * n
        counts.add(n)
    assert counts == set(range(1, items.MOST_SHORT + 1))


def test_a_text_of_short_sentences_is_laid_out_as_in_generation(tmp_path: Path) -> None:
    short = say_all(tmp_path, "short", ["apples.", "pears", "plums!"])
    text = items.join([items.read_item(short, i) for i in range(3)])
    past = items.draw_history(short, np.random.default_rng(0))
    batch = t2s.lay_out([text], [past], t2s.N_SLOTS)
    ids = np.array(layout.tokenize("apples. pears. plums!")[0])
    job = semantic_job(ids, layout.LAYOUT, Sampling(), history=past)
    assert (np.concatenate([batch["text"][0], batch["history"][0]]) == job.prompt[: 2 * SEMANTIC.n_slots]).all()
    assert batch["targets"][0].tolist() == [*[0] * 10, *[1] * 10, *[2] * 10, SEMANTIC.pad_token]


def test_a_run_of_sentences_keeps_to_the_slots(tmp_path: Path) -> None:
    long = say_all(tmp_path, "train", ["a" * 100])
    kept = items.fit([items.read_item(long, 0)] * 4)
    assert len(kept) == 2
    assert len(items.fit([items.read_item(say_all(tmp_path, "huge", ["a" * 300]), 0)] * 2)) == 1


def test_an_export_takes_what_is_not_trained_from_the_model_it_starts_from(tmp_path: Path) -> None:
    facts = export.run(Work(tmp_path, start=FOLDER))
    assert set(facts["runs"].values()) == {export.START}
    names = {path.relative_to(tmp_path / "export").as_posix() for path in (tmp_path / "export").rglob("*.*")}
    assert {"model.safetensors", "config.json", "voices/calm.npz"} <= names
    for name in names - {"model.safetensors"}:
        assert (tmp_path / "export" / name).read_bytes() == (FOLDER / name).read_bytes(), name
    made, old = (export.load_file(folder / "model.safetensors") for folder in (tmp_path / "export", FOLDER))
    assert set(made) == set(old) and all(made[name].equal(old[name]) for name in old)


def test_a_model_that_was_trained_on_keeps_a_share_of_the_weights_it_began_with(tmp_path: Path) -> None:
    work, model = Work(tmp_path, start=FOLDER), GPT(layout.T2S)
    torch.save({"model": model.state_dict()}, work.path("t2s_full.pt"))
    began = train.load_exported(work, "text", GPT(layout.T2S)).lm_head.weight
    mixed = t2s.finished(work, "t2s_full").lm_head.weight
    torch.testing.assert_close(mixed, t2s.TUNE.keep * began + (1 - t2s.TUNE.keep) * model.lm_head.weight)
    assert t2s.finished(Work(tmp_path), "t2s_full").lm_head.weight.equal(model.lm_head.weight)
