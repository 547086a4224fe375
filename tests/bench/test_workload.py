"""Workloads: settings resolved or refused, a clip and its counts, the bytes it must read, and its memory."""

from pathlib import Path

import numpy as np
import pytest

from barkfast.bench import machine, roofline
from barkfast.bench.roofline import count_work, decoder_step_bytes, pass_flop
from barkfast.bench.workload import FULL_VOICE, Workload, full_voice, is_random, open_bark, speak
from barkfast.config import Layout
from barkfast.errors import EngineError, InputError
from barkfast.stages.coarse import CoarseWindows
from barkfast.voices import check_voice
from barkfast.weights import open_model
from barkfast.weights.convert import convert

NANO = Workload("random:nano", "cpu", "float32", "torch", seconds=0.5)


def loaded(workload: Workload):
    bark = open_bark(workload)
    bark.load()
    return bark


@pytest.fixture(scope="module")
def bark():
    return loaded(NANO)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(seconds: float):
    with pytest.raises(InputError, match="expected a positive number"):
        Workload(seconds=seconds)


def test_settings_are_resolved():
    workload = Workload("random:nano", "cpu", "fp32", "torch").resolve()
    assert (workload.device, workload.engine, workload.dtype) == ("cpu", "torch", "float32")
    assert workload.resolve() == workload
    with pytest.raises(InputError, match="engine is 'jet'"):
        Workload(engine="jet").resolve()


def test_made_up_weights_are_known_as_such(tmp_path: Path):
    assert is_random(open_model("random:nano")) and is_random(open_model("random:demo"))
    folder = convert("random:nano", tmp_path / "model", voices=False)
    assert is_random(open_model(folder))
    # A model without a tokenizer can be measured too.
    folder = convert("random:nano", tmp_path / "silent", voices=False, tokenizer=False)
    assert not (folder / "vocab.txt").exists()
    assert open_bark(Workload(str(folder), "cpu", "float32", "torch")).components.load("text")


def test_the_full_voice_fills_every_history():
    layout = Layout()
    voice = full_voice(layout)
    check_voice(voice, layout)
    assert len(voice["semantic_prompt"]) >= layout.semantic.n_slots
    assert voice["coarse_prompt"].size >= layout.coarse.max_history
    assert voice["fine_prompt"].shape[1] >= layout.fine.max_history


def test_clips_are_as_long_as_asked_for_and_repeat_themselves(bark):
    clip = speak(bark, NANO, 3)
    assert clip.counts == {"semantic": 25, "coarse": 74, "fine": 37, "codec": 37}
    assert clip.audio_s == pytest.approx(37 / 75)
    assert all(seconds > 0 for seconds in clip.seconds.values())
    assert clip.first_audio_s == pytest.approx(sum(clip.seconds.values()))
    assert speak(bark, NANO, 3, seconds=0.1).counts["semantic"] == 5
    assert speak(bark, NANO, 4).counts == clip.counts


def test_a_clip_that_is_not_finite_is_no_clip(bark, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bark, "decode", lambda codes: np.full(10, np.nan))
    with pytest.raises(EngineError, match="not finite"):
        speak(bark, NANO, 0)


def test_what_a_clip_must_read_is_the_sum_of_its_steps(bark):
    work = count_work(bark, NANO)
    text, n = bark.checkpoint.stage("text").config, 25
    decoder, candidates = bark.components.network("text"), bark.layout.semantic.vocab_size
    # Prefill of 257 positions gives the first token; each other one takes a step that attends to one more.
    steps = [decoder_step_bytes(decoder, context=257 + i, candidates=candidates) for i in range(1, n)]
    head = steps[0].head
    assert work["semantic"].bytes == pytest.approx(head + sum(step.total for step in steps), rel=1e-6)
    assert work["semantic"].flop == pass_flop(text, 257)
    assert work["semantic"].operations > work["semantic"].flop
    assert work["fine"].flop == work["fine"].operations > 0 and work["codec"].flop > 0


def test_a_voice_makes_every_coarse_window_read_its_prompt(bark):
    plain, with_voice = (count_work(bark, Workload(**{**vars(NANO), "voice": voice})) for voice in ("none", FULL_VOICE))
    config = bark.checkpoint.stage("coarse").config
    # Two windows of 60 and 14 tokens; their prompts are 257 positions and the tokens drawn before.
    assert plain["coarse"].flop == pytest.approx(pass_flop(config, 257) + pass_flop(config, 257 + 60))
    assert with_voice["coarse"].flop > 2.5 * plain["coarse"].flop
    assert with_voice["coarse"].bytes > plain["coarse"].bytes


def test_a_window_that_extends_the_one_before_reads_no_prompt(bark):
    plain = count_work(bark, NANO)["coarse"]
    decoder = bark.components.network("coarse")
    decoder.reuse_prefix = True
    try:
        extended = count_work(bark, NANO)["coarse"]
    finally:
        decoder.reuse_prefix = False
    windows = CoarseWindows(np.zeros(25, int), bark.layout, None)  # type: ignore[arg-type]
    assert windows.n_windows == 2
    assert extended.flop == pass_flop(bark.checkpoint.stage("coarse").config, 257)
    assert extended.bytes > plain.bytes


def test_the_memory_that_is_needed_follows_the_sizes():
    def need(model: str, dtype: str, engine: str = "torch") -> float:
        return roofline.need_memory(Workload(model, "cpu", dtype, engine)) / 1e9

    # 99.5 + 2 * 7.7 + 9.3 + 9.3 million numbers of tables and heads, 3 * 85 of layers, and the fine network's tables.
    assert 1.6 + 0.8 < need("random:small", "float32") < 3.8
    assert need("random:small", "float32") > need("random:small", "bfloat16")
    assert need("random:large", "float32") > 1.9 * need("random:small", "float32")


def test_a_machine_that_is_too_small_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "memory_available", lambda: 10**9)
    workload = Workload("random:large", "cpu", "float32", "torch")
    with pytest.raises(InputError, match=r"the model needs about \d+\.\d GB of memory on cpu .* 1\.0 GB are free"):
        roofline.check_memory(workload)
    roofline.check_memory(Workload("random:nano", "cpu", "float32", "torch"))


def test_peaks_are_numbers_of_bytes():
    machine.restart_peaks()
    before = machine.read_peaks()
    held = np.ones(50_000_000 // 8)
    after = machine.read_peaks()
    assert before["device_bytes"] is None or before["device_bytes"] >= 0
    assert after["rss_bytes"] >= before["rss_bytes"] > 0
    assert held.nbytes == 50_000_000
