"""The pipeline as users call it, on the built-in demo model."""

import logging
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import barkfast
from barkfast import Bark, InputError, VoiceError
from barkfast.components import COMPONENTS
from barkfast.runtime.engines import describe_engines

TEXT = "Hello, this is a test."
SHORT = {"max_duration_s": 0.5}


@pytest.fixture(scope="module", params=["torch", "cpu"])
def bark(request: pytest.FixtureRequest) -> Bark:
    """The demo model on each engine that a CPU has."""
    engine = {engine.name: engine for engine in describe_engines()}[request.param]
    if not engine.available:
        pytest.skip(engine.reason)
    return Bark("random:demo", device="cpu", engine=engine.name)


@pytest.fixture(scope="module")
def spoken(bark: Bark) -> barkfast.Generation:
    return bark.generate(TEXT, seed=7, **SHORT)


def same(a: barkfast.Generation, b: barkfast.Generation) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("semantic", "coarse", "fine", "audio"))


def test_a_generation_holds_every_stage_in_its_shape(bark: Bark, spoken: barkfast.Generation) -> None:
    frames = spoken.fine.shape[1]
    assert spoken.semantic.shape == (25,)
    assert spoken.semantic.dtype == np.int64
    assert spoken.coarse.shape == (2, frames)
    assert spoken.fine.shape == (8, frames)
    assert spoken.coarse.dtype == spoken.fine.dtype == np.int32
    assert np.array_equal(spoken.fine[:2], spoken.coarse)
    assert spoken.audio.shape == (frames * 320,)
    assert spoken.audio.dtype == np.float32
    assert spoken.sample_rate == bark.sample_rate == 24_000
    assert spoken.duration == pytest.approx(0.5, abs=0.03)
    assert set(spoken.timings) == {"semantic", "coarse", "fine", "codec"}
    assert spoken.real_time_factor == pytest.approx(sum(spoken.timings.values()) / spoken.duration)
    assert 0.01 < np.abs(spoken.audio).max() < 1


def test_the_same_seed_gives_the_same_sound_and_another_seed_another(bark: Bark, spoken: barkfast.Generation) -> None:
    assert same(spoken, bark.generate(TEXT, seed=7, **SHORT))
    assert not same(spoken, bark.generate(TEXT, seed=8, **SHORT))


def test_manual_seed_rules_where_no_seed_is_given(bark: Bark, spoken: barkfast.Generation) -> None:
    torch.manual_seed(7)
    first = bark.generate(TEXT, **SHORT)
    assert not same(first, bark.generate(TEXT, **SHORT))
    torch.manual_seed(7)
    assert same(first, bark.generate(TEXT, **SHORT))
    # Other engines use a counter-based generator, with a seed that torch's generator draws.
    assert same(first, spoken) == (bark.components.engine == "torch")


def test_greedy_needs_no_seed(bark: Bark) -> None:
    greedy = {"text_temp": 0, "waveform_temp": 0, "fine_temp": 0, **SHORT}
    before = torch.get_rng_state()
    assert same(bark.generate(TEXT, **greedy), bark.generate(TEXT, seed=1, **greedy))
    assert torch.equal(before, torch.get_rng_state())


def test_a_saved_voice_can_be_spoken_with(bark: Bark, tmp_path: Path) -> None:
    long = bark.generate(TEXT, seed=1, max_duration_s=1.5)
    bark.save_voice(tmp_path / "me.npz", long)
    with_file = bark.generate(TEXT, tmp_path / "me.npz", seed=2, **SHORT)
    assert same(with_file, bark.generate(TEXT, long.prompt, seed=2, **SHORT))
    assert not same(with_file, bark.generate(TEXT, seed=2, **SHORT))


def test_audio_is_saved_under_the_format_of_its_suffix(spoken: barkfast.Generation, tmp_path: Path) -> None:
    spoken.save(tmp_path / "a.wav")
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.frames, info.subtype) == (24_000, len(spoken.audio), "PCM_16")


def test_a_long_text_is_cut_with_a_warning_or_refused(bark: Bark, caplog: pytest.LogCaptureFixture) -> None:
    text = "abcd " * 80
    with pytest.raises(InputError, match="320 tokens and 256 fit"):
        bark.generate(text, overflow="error", **SHORT)
    with caplog.at_level(logging.WARNING):
        cut = bark.generate(text, seed=3, **SHORT)
    assert "text too long, lopping of last 20.0%" in caplog.text
    assert same(cut, bark.generate("abcd " * 64, seed=3, **SHORT))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": "  \n"}, InputError, "nothing to say"),
        ({"text": 5}, InputError, "5"),
        ({"text": TEXT, "overflow": "wrap"}, InputError, "overflow is 'wrap'"),
        ({"text": TEXT, "text_temp": -1}, InputError, "text_temp is -1"),
        ({"text": TEXT, "fine_temp": -1}, InputError, "fine_temp is -1"),
        ({"text": TEXT, "seed": "lucky"}, InputError, "seed is 'lucky'"),
        ({"text": TEXT, "voice": "v2/en_speaker_66"}, VoiceError, "v2/en_speaker_6"),
        ({"text": TEXT, "voice": 3}, VoiceError, "3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_refused_before_anything_is_loaded(arguments: dict, error: type, message: str) -> None:
    bark = Bark("random:demo", device="cpu")
    with pytest.raises(error, match=message):
        bark.generate(**arguments)
    assert not bark.components.models


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"dtype": "int3"}, "dtype is 'int3'"),
        ({"engine": "warp"}, "engine is 'warp'"),
        ({"engine": "cuda"}, "engine 'cuda' is not available"),
    ],
)
def test_what_cannot_run_here_is_refused_at_once(
    options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(barkfast.BarkfastError, match=message):
        Bark("random:demo", **options)


def test_tokens_from_elsewhere_are_checked(bark: Bark) -> None:
    good = np.arange(50)
    with pytest.raises(InputError, match="list"):
        bark.generate_coarse([1, 2, 3])
    with pytest.raises(InputError, match="float64 array"):
        bark.generate_coarse(good / 2)
    with pytest.raises(InputError, match="empty"):
        bark.generate_coarse(good[:0])
    n = bark.layout.semantic.vocab_size
    with pytest.raises(InputError, match=f"0 to {n}; expected 0 to {n - 1}"):
        bark.generate_coarse(np.array([0, n]))
    with pytest.raises(InputError, match="shape \\(50,\\)"):
        bark.generate_fine(good)
    with pytest.raises(InputError, match="8 codebooks; expected 1 to 7"):
        bark.generate_fine(np.zeros((8, 4), int))
    with pytest.raises(InputError, match="-1 to 0"):
        bark.decode(np.array([[-1, 0]] * 8))
    with pytest.raises(InputError, match="max_coarse_history is 59"):
        bark.generate_coarse(good, max_history=59)
    with pytest.raises(InputError, match="sliding_window_len is 139"):
        bark.generate_coarse(good, sliding_window=139)


def test_environment_chooses_model_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_MODEL", "random:nano")
    monkeypatch.setenv("BARKFAST_DEVICE", "cpu")
    monkeypatch.setenv("BARKFAST_DTYPE", "bf16")
    monkeypatch.setenv("BARKFAST_ENGINE", "torch")
    bark = Bark()
    assert bark.checkpoint.name.startswith("random:nano")
    assert bark.components.load("coarse").dtype == torch.bfloat16
    monkeypatch.setenv("BARKFAST_DTYPE", "int7")
    with pytest.raises(InputError, match="int7"):
        Bark()


def test_offloading_moves_each_network_in_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Bark("random:demo", device="cpu").generate(TEXT, seed=1, **SHORT)
    monkeypatch.setenv("SUNO_OFFLOAD_CPU", "True")
    bark = Bark("random:demo", device="cpu")
    bark.load()
    moves: list[tuple[str, str]] = []
    for part in COMPONENTS:
        network = bark.components.network(part)
        monkeypatch.setattr(network, "to", lambda device, part=part: moves.append((part, device)))
        bark.components.devices[part] = f"accelerator of {part}"
    assert same(plain, bark.generate(TEXT, seed=1, **SHORT))
    assert moves == [move for part in COMPONENTS for move in ((part, f"accelerator of {part}"), (part, "cpu"))]


def test_half_precision_speaks_too(spoken: barkfast.Generation) -> None:
    half = Bark("random:demo", device="cpu", dtype="bfloat16", engine="torch").generate(TEXT, seed=7, **SHORT)
    assert half.audio.shape == spoken.audio.shape
    assert np.isfinite(half.audio).all()


def test_reloading_by_force_looks_for_the_files_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_MODEL", "random:demo")
    bark = Bark(device="cpu", engine="torch")
    small = bark.components.load("coarse").model.config
    monkeypatch.setenv("BARKFAST_MODEL", "random:nano")
    assert bark.components.load("coarse").model.config == small
    assert bark.components.load("coarse", force=True).model.config != small


def test_memory_comes_back_when_parts_are_dropped() -> None:
    bark = Bark("random:demo", device="cpu")
    bark.load()
    assert set(bark.components.models) == set(COMPONENTS)
    bark.components.drop("coarse")
    assert set(bark.components.models) == set(COMPONENTS) - {"coarse"}
    bark.components.drop()
    assert not bark.components.models


def test_it_stands_in_for_bark() -> None:
    """The names and calls of Suno's README, under `import barkfast as bark`, in its own process."""
    script = """
        import numpy as np
        import barkfast as bark
        from barkfast import SAMPLE_RATE, generate_audio, preload_models
        from barkfast.generation import codec_decode, generate_coarse, generate_fine, generate_text_semantic

        preload_models()
        from barkfast.generation import models
        assert set(models) == {"text", "coarse", "fine", "codec"} and set(models["text"]) == {"model", "tokenizer"}
        semantic = generate_text_semantic("Hi there", max_gen_duration_s=0.3, min_eos_p=0.05, silent=True)
        coarse = generate_coarse(semantic, use_kv_caching=True, silent=True)
        audio = codec_decode(generate_fine(coarse))
        assert audio.dtype == np.float32 and len(audio) == coarse.shape[1] * 320 and SAMPLE_RATE == 24_000
        full, audio = bark.semantic_to_waveform(semantic, silent=True, output_full=True, seed=1)
        bark.save_as_prompt("voice.npz", full)
        again = bark.semantic_to_waveform(semantic, history_prompt="voice.npz", silent=True)
        assert len(again) == len(audio)
        bark.generation.clean_models("fine")
        assert "fine" not in models
    """
    code = "import os; os.chdir(os.environ['HERE'])\n" + textwrap.dedent(script)

    with tempfile.TemporaryDirectory() as here:
        environment = {**os.environ, "BARKFAST_MODEL": "random:demo", "HERE": here}
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
