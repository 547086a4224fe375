"""The pure parts of the demo voice's training pipeline: text, units, layouts; nothing is trained here."""

import random
import re

import numpy as np
import pytest
import torch

from barkfast.config import Sampling
from barkfast.models.gpt import GPT, KVCache
from barkfast.stages.coarse import CoarseWindows, flatten_codes
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import Tokenizer

pytest.importorskip("scipy", reason="scipy is not installed (the extra `reference`)")

from training.demo_voice import coarse, fine, generate, layout, sentences, t2s, templates, train, units  # noqa: E402
from training.demo_voice.dataset import NO_GUIDE, align  # noqa: E402
from training.demo_voice.units import TABLE, Segment, Unit  # noqa: E402

SEMANTIC = layout.LAYOUT.semantic


def test_templates_keep_to_the_letters_that_the_tokenizer_knows() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        sentence = templates.draw_sentence(rng)
        assert re.fullmatch(r"[a-z' ,.?!]+", sentence), sentence
        assert "  " not in sentence


def test_token_ids_are_those_of_berts_tokenizer() -> None:
    tokenizer = Tokenizer.from_vocabulary(layout.VOCABULARY, do_lower_case=True)
    for text in ("hello, world!", "the cat's toy isn't here.", "o'clock", "a b c", "who's there?"):
        ids, words = layout.tokenize(text)
        assert ids == tokenizer.encode(text)
        assert words[-1] == len(text.split()) - 1


def make_clip() -> tuple[list[Segment], np.ndarray]:
    names = ["pau", "hh", "ah", "l", "ow", "pau"]
    phones = [Segment(0.2 * i, 0.2 * i + 0.2, name) for i, name in enumerate(names)]
    pitch = np.full(len(units.unit_times(1.2)), np.nan)
    pitch[20:30], pitch[30:40], pitch[40:50] = 150, 180, 250
    return phones, pitch


def test_units_say_phone_quarter_and_pitch_and_are_read_back() -> None:
    phones, pitch = make_clip()
    ids = units.encode_units(phones, pitch, (np.log2(165), np.log2(200)))
    said = [TABLE[i] for i in ids]
    assert units.read_phones(ids) == ["hh", "ah", "l", "ow"]
    assert said[12] == Unit("hh", 1, 1)
    assert {unit.level for unit in said if unit.phone == "ah" and unit.state == 1} == {0}
    assert {unit.level for unit in said if unit.phone == "ow" and unit.state == 1} == {2}
    assert [unit.state for unit in said[:10]] == sorted(unit.state for unit in said[:10])


def test_a_repeated_phone_is_read_twice_and_jitter_once() -> None:
    say = {state: units.IDS[Unit("s", state, 1)] for state in range(4)}
    assert units.read_phones([say[0], say[1], say[3], say[0], say[2]]) == ["s", "s"]
    assert units.read_phones([say[0], say[1], say[0], say[2], say[3]]) == ["s"]
    assert units.read_phones([units.N_UNITS, say[0]]) == ["s"]


def test_every_unit_is_there_once() -> None:
    assert len(set(TABLE)) == units.N_UNITS == 4 * len(units.UNVOICED) + 12 * len(units.VOICED)


@pytest.mark.parametrize("a, b, distance", [("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0)])
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert units.edit_distance(a, b) == distance


def test_alignment_goes_along_the_words_and_gives_up_where_they_differ() -> None:
    phones, _ = make_clip()
    guide = align("hel lo.", phones, [Segment(0, 0.6, "hel"), Segment(0.6, 1.0, "lo")], 59)
    assert guide[0] == 0 and guide[15] < 1 and 3 < guide[45] <= 5
    # The closing pause is aligned with the full stop.
    assert guide[-1] == 5
    assert (np.diff(guide[11:50]) >= 0).all()
    assert (align("one two three", phones, [Segment(0, 1, "onetwo")], 59) == NO_GUIDE).all()


def test_the_full_semantic_layout_is_that_of_generation() -> None:
    ids, said, past = np.array([7, 30, 31]), np.array([4, 5, 6]), np.arange(300)
    batch = t2s.lay_out([(ids, said, np.zeros(3))], [past], t2s.N_SLOTS)
    job = semantic_job(ids, layout.LAYOUT, Sampling(), history=past)
    n = SEMANTIC.n_slots
    assert (batch["text"][0].numpy() == job.prompt[:n]).all()
    assert (batch["history"][0].numpy() == job.prompt[n : 2 * n]).all()
    assert batch["units"][0].tolist() == [SEMANTIC.infer_token, 4, 5, 6]
    assert batch["targets"][0].tolist() == [4, 5, 6, SEMANTIC.pad_token]
    assert batch["positions"].tolist() == list(range(n + 4))


def test_training_sees_what_generation_computes() -> None:
    torch.manual_seed(0)
    model = GPT(layout.T2S).eval()
    ids, said = np.array([7, 30, 31]), np.array([4, 5, 6])
    batch = t2s.lay_out([(ids, said, np.zeros(3))], [None], t2s.N_SLOTS)
    logits, _ = t2s.forward(model, batch, guided=True)
    job = semantic_job(ids, layout.LAYOUT, Sampling())
    cache = KVCache(layout.T2S, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        hidden = model(torch.from_numpy(job.prompt)[None], cache, job.n_merged)
        for i, token in enumerate([*said, None]):
            expected = model.logits(hidden, 0, SEMANTIC.pad_token + 1)
            torch.testing.assert_close(logits[:, i], expected, atol=1e-4, rtol=1e-4)
            if token is not None:
                hidden = model(torch.tensor([[token]]), cache)


def test_sampling_in_training_gives_the_engines_greedy_tokens() -> None:
    torch.manual_seed(1)
    model = GPT(layout.T2S).eval()
    train.initialize(model, layout.T2S.n_layer)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    ids = np.array([7, 30, 31])
    batch = t2s.lay_out([(ids, np.zeros(0, int), np.zeros(0))], [np.arange(50)], t2s.N_SLOTS)
    ((said, _),) = generate.sample_units(model, batch, SEMANTIC.pad_token, 12, 0, torch.Generator())
    job = semantic_job(ids, layout.LAYOUT, Sampling(), history=np.arange(50))
    cache = KVCache(layout.T2S, device=torch.device("cpu"), dtype=torch.float32)
    expected: list[int] = []
    with torch.no_grad():
        hidden = model(torch.from_numpy(job.prompt)[None], cache, job.n_merged)
        while len(expected) < 12:
            expected.append(int(model.logits(hidden, 0, SEMANTIC.pad_token + 1).argmax()))
            hidden = model(torch.tensor([[expected[-1]]]), cache)
    assert said.tolist() == [token for token in expected if token != SEMANTIC.pad_token]


def speech(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = int(n * layout.LAYOUT.coarse.rate_hz / SEMANTIC.rate_hz)
    return rng.integers(units.N_UNITS, size=n), rng.integers(layout.CODEBOOK_SIZE, size=(2, frames))


@pytest.mark.parametrize("n_past, n_frames_less", [(0, 0), (40, 0), (131, 1), (400, 0), (401, 3)])
def test_coarse_windows_are_those_of_generation(n_past: int, n_frames_less: int) -> None:
    past = None
    if n_past:
        semantic, codes = speech(n_past, 1)
        past = (semantic, codes[:, : codes.shape[1] - n_frames_less])
    semantic, codes = speech(333, 2)
    windows = CoarseWindows(semantic, layout.LAYOUT, Sampling(), history=past)
    flat, n_slots = flatten_codes(codes, layout.LAYOUT), layout.LAYOUT.coarse.n_slots
    for number in range(windows.n_windows):
        job = windows.next_job()
        assert job is not None
        batch = coarse.lay_out([coarse.window_of(past, semantic, codes, number)], n_slots)
        new = flat[number * 60 : number * 60 + job.steps]
        prompt = np.concatenate([batch["slots"][0], batch["coarse"][0]])
        assert (prompt[: len(job.prompt)] == job.prompt).all()
        assert (batch["targets"][0][-len(new) :].numpy() == new).all()
        windows.append(new)


def test_coarse_losses_take_each_codebook_among_its_own_ids() -> None:
    torch.manual_seed(0)
    model = GPT(layout.COARSE)
    semantic, codes = speech(30, 3)
    example = coarse.stretch_from_start(semantic, codes)
    first, second = coarse.losses(model, coarse.lay_out([example], 32))
    assert first.item() == pytest.approx(np.log(layout.CODEBOOK_SIZE), rel=0.2)
    assert second.item() == pytest.approx(np.log(layout.CODEBOOK_SIZE), rel=0.2)


def test_the_fine_window_is_that_of_generation() -> None:
    rng = np.random.default_rng(0)
    past, now = (rng.integers(layout.CODEBOOK_SIZE, size=(n, 8)) for n in (100, 300))
    job = FineWindows(now[:, :2].T, layout.LAYOUT, Sampling(), history=past.T).next_job()
    assert job is not None
    codes = np.concatenate([past, now, np.full((624, 8), fine.PAD)])
    seen, targets = fine.hide(codes, 2, 100, 400)
    assert (seen == job.window).all()
    assert (targets[100:400] == now[:, 2]).all() and (np.delete(targets, np.s_[100:400]) == -100).all()
    # Later codebooks are filled from those before them.
    assert (fine.hide(codes, 5, 100, 400)[0][100:400, :5] == now[:, :5]).all()


def test_batches_hold_every_item_once_an_epoch_and_do_not_depend_on_what_came_before() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, size=500)
    pick = train.batches(lengths, 1000, seed=1)
    found, step = [], 0
    while len(found) < 500:
        found += list(pick(step))
        step += 1
    assert sorted(found) == list(range(500))
    assert (train.batches(lengths, 1000, seed=1)(step + 3) == pick(step + 3)).all()


def test_the_rate_rises_holds_and_falls() -> None:
    plan = train.Plan("x", steps=1000, rate=1.0, warmup=10)
    rates = [plan.rate_at(step) for step in (0, 9, 400, 750, 999)]
    assert rates == [pytest.approx(0.1), 1, 1, pytest.approx(0.5), pytest.approx(0.02, abs=0.001)]


def test_any_first_few_of_the_tests_sentences_are_a_fair_mixture() -> None:
    kinds = ["wordnet"] * 30 + ["template"] * 10
    items = [{"text": f"sentence {i}.", "phones": ["ax", "b"]} for i in range(40)]
    found = sentences.mix(items, kinds, n=20)
    assert [item["kind"] for item in found[:8]] == ["wordnet"] * 3 + ["template"] + ["wordnet"] * 3 + ["template"]
    assert found[3] == {"text": "sentence 30.", "kind": "template", "phones": "ax b"}
    assert len({item["text"] for item in found}) == 20
