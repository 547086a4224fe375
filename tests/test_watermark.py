"""The watermark: found where it is, not found where it is not, the same in streams, and PerTh's own."""

import asyncio
import importlib
import importlib.machinery
import io
import os
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from barkfast import Bark, Engine, watermark
from barkfast.audio import write_audio
from barkfast.cli import main
from barkfast.errors import CheckpointError, InputError
from barkfast.options import Request
from barkfast.watermark import MARKED, Frames, Marker, detect, detect_file, judge, mark

RATE = 24_000
TEXT, SEED = "Hello there my friend.", 1
INSTALLED = find_spec("perth") is not None
needs_weights = pytest.mark.skipif(not INSTALLED, reason="resemble-perth is not installed (the extra `watermark`)")


@pytest.fixture(scope="module")
def bark() -> Bark:
    return Bark("demo", device="cpu", engine="torch", dtype="float32")


@pytest.fixture(scope="module")
def plain(bark: Bark) -> np.ndarray:
    """A clip of about two seconds without a mark."""
    return bark.generate(TEXT, seed=SEED).audio


@pytest.fixture(scope="module")
def marked(plain: np.ndarray) -> np.ndarray:
    return mark(plain, RATE)


def in_chunks(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """What a Marker gives for chunks of these sizes, and for the rest."""
    marker, at, chunks = Marker(RATE), 0, []
    for size in [*sizes, len(samples)]:
        chunks.append(marker.add(samples[at : at + size]))
        at += size
    return [*chunks, marker.finish()]


@needs_weights
def test_the_mark_is_found_and_nothing_else(plain: np.ndarray, marked: np.ndarray):
    assert detect(marked, RATE) > 0.95 and detect(plain, RATE) < 0.05
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    assert detect(noise, RATE) < MARKED and detect(np.zeros(RATE, np.float32), RATE) == 0.0
    assert detect(np.zeros(0, np.float32), RATE) == 0.0


@needs_weights
def test_sound_without_low_frequencies_is_not_judged(plain: np.ndarray):
    spectrum = np.fft.rfft(plain)
    spectrum[np.fft.rfftfreq(len(plain), 1 / RATE) < 1000] = 0
    assert detect(np.fft.irfft(spectrum, len(plain)), RATE) == 0.0


@needs_weights
@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]
)
def test_every_format_keeps_it(plain: np.ndarray, marked: np.ndarray, kind: str, subtype: str | None):
    found = []
    for samples in (marked, plain):
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, RATE, subtype, format=kind)
        buffer.seek(0)
        found.append(detect(*soundfile.read(buffer, dtype="float32")))
    assert found[0] > MARKED > found[1]


@needs_weights
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_other_rates_keep_it(plain: np.ndarray, marked: np.ndarray, rate: int):
    def resample(samples: np.ndarray) -> np.ndarray:
        n, spectrum = round(len(samples) * rate / RATE), np.fft.rfft(samples)
        return (np.fft.irfft(spectrum[: n // 2 + 1], n) * (n / len(samples))).astype(np.float32)

    assert detect(resample(marked), rate) > MARKED > detect(resample(plain), rate)
    # It can also be added there.
    assert detect(mark(resample(plain), rate), rate) > MARKED


@needs_weights
def test_it_survives_cuts_and_is_found_in_long_sound(plain: np.ndarray, marked: np.ndarray):
    assert detect(marked[7000 : 7000 + RATE // 2], RATE) > MARKED > detect(plain[7000 : 7000 + RATE // 2], RATE)
    around = np.tile(plain, 12)
    assert detect(np.concatenate([around, marked, around]), RATE) > MARKED > detect(around, RATE)


@needs_weights
@pytest.mark.parametrize("sizes", [[], [1] * 50, [7680, 23_040], [5000, 0, 13, 20_000], [100_000]])
def test_chunks_make_no_difference(plain: np.ndarray, marked: np.ndarray, sizes: list[int]):
    joined = np.concatenate(in_chunks(plain, sizes))
    assert joined.dtype == np.float32 and np.array_equal(joined, marked) and len(joined) == len(plain)


@needs_weights
@pytest.mark.parametrize("n", [0, 1, 239, 240, 241, 767, 1536, 5000])
def test_any_length_is_kept(plain: np.ndarray, n: int):
    samples = plain[8000 : 8000 + n]
    result = mark(samples, RATE)
    assert result.shape == samples.shape and np.isfinite(result).all()
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *in_chunks(samples, [n // 3])]), result)


@needs_weights
def test_the_first_sound_does_not_wait_for_the_whole(plain: np.ndarray):
    first, *_ = in_chunks(plain, [7680])
    # Of the 0.32 s with which a stream starts; later a quarter of a second is held back at most.
    assert len(first) > 0.09 * RATE
    marker, n_out = Marker(RATE), 0
    for at in range(0, len(plain), 1000):
        n_out += len(marker.add(plain[at : at + 1000]))
        assert len(plain[: at + 1000]) - n_out < 0.3 * RATE


@needs_weights
def test_the_mark_has_no_clicks(plain: np.ndarray):
    """A jump would have all frequencies; the mark has none above 2 kHz, but what the edges of its windows leave."""
    marked = np.concatenate(in_chunks(plain, [3000] * 10))
    added = (marked - plain)[RATE // 10 : -RATE // 10].astype(np.float64)
    power = np.abs(np.fft.rfft(added * np.hanning(len(added)))) ** 2
    frequencies = np.fft.rfftfreq(len(added), 1 / RATE)
    assert power[frequencies > 2300].sum() < 1e-4 * power.sum()
    clicking = added + 0.02 * (np.arange(len(added)) % 3000 == 0)
    power = np.abs(np.fft.rfft(clicking * np.hanning(len(added)))) ** 2
    assert power[frequencies > 2300].sum() > 1e-4 * power.sum()


@needs_weights
def test_silence_stays_silent():
    assert not mark(np.zeros(RATE, np.float32), RATE).any()


@needs_weights
def test_generated_sound_is_marked_and_the_tokens_are_the_same(bark: Bark, plain: np.ndarray, marked: np.ndarray):
    generation = bark.generate(TEXT, seed=SEED, watermark=True)
    assert np.array_equal(generation.audio, marked)
    both = bark.generate_batch([{"text": TEXT, "watermark": True}, TEXT], seed=SEED)
    assert detect(both[0].audio, RATE) > MARKED > detect(both[1].audio, RATE)
    assert np.array_equal(both[1].audio, plain)


@needs_weights
@pytest.mark.parametrize("mode", ["exact", "low_latency"])
def test_a_stream_is_marked_as_the_whole(bark: Bark, mode: Any):
    def chunks(**options: Any) -> list[np.ndarray]:
        return list(bark.stream(TEXT, seed=SEED, mode=mode, each_sentence=False, **options))

    plain, marked = chunks(), chunks(watermark=True)
    assert len(marked) > 1 and detect(np.concatenate(marked), RATE) > MARKED
    assert np.array_equal(np.concatenate(marked), mark(np.concatenate(plain), RATE))


@needs_weights
def test_sentences_and_long_texts_are_marked(bark: Bark):
    text = "Hello there. Good morning to you."
    for sound in (bark.stream(text, seed=1, watermark=True), bark.generate_long(text, seed=1, watermark=True)):
        assert detect(np.concatenate(list(sound)), RATE) > MARKED


@needs_weights
def test_an_engine_marks(bark: Bark, marked: np.ndarray):
    async def speak() -> tuple[np.ndarray, np.ndarray]:
        async with Engine(bark, n_slots=2) as engine:
            whole = await engine.generate(TEXT, seed=SEED, watermark=True)
            async with engine.stream(TEXT, seed=SEED, watermark=True) as stream:
                return whole.audio, np.concatenate([chunk async for chunk in stream])

    whole, streamed = asyncio.run(speak())
    assert np.array_equal(whole, marked) and detect(streamed, RATE) > MARKED


@needs_weights
def test_the_packages_own_code_agrees(plain: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """PerTh's own networks and spectra, with stand-ins for the modules that it takes them from."""
    pytest.importorskip("scipy", reason="scipy is not installed (the extra `reference`)")
    theirs = import_perth(monkeypatch)
    # Their rate is 32 kHz; as if the clip had been recorded at it.
    expected = theirs.apply_watermark(plain, 32_000)
    actual = mark(plain, 32_000)[: len(expected)]
    added, difference = expected - plain[: len(expected)], actual - expected
    # They mirror the sound at its ends where silence is seen here.
    inner = slice(16 * 320 + 2048, -16 * 320 - 2048)
    assert np.linalg.norm(difference[inner]) < 1e-4 * np.linalg.norm(added[inner])
    assert np.linalg.norm(difference) < 0.02 * np.linalg.norm(added)
    for samples in (plain, actual, plain + 0.3 * added):
        own = float(theirs.get_watermark(samples[: len(expected)], 32_000, round=False))
        assert judge(samples[: len(expected)], 32_000) == pytest.approx(own, abs=0.02)


def import_perth(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's watermarker."""
    folder = Path(find_spec("perth").submodule_search_locations[0]) / "perth_net"

    class Spectrogram(torch.nn.Module):
        def __init__(self, n_fft: int, win_length: int, hop_length: int, window_fn: Any, **_: Any) -> None:
            super().__init__()
            self.n_fft, self.hop = n_fft, hop_length
            self.register_buffer("window", window_fn(win_length))

        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            return torch.stft(samples, self.n_fft, self.hop, window=self.window, return_complex=True)

    class InverseSpectrogram(Spectrogram):
        def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
            return torch.istft(spectrum, self.n_fft, self.hop, window=self.window)

    class TimeStretch(torch.nn.Module):
        def __init__(self, n_freq: int, **_: Any) -> None:
            super().__init__()
            self.register_buffer("phase_advance", torch.zeros(n_freq, 1))

    stand_ins = {
        "pkg_resources": {"resource_filename": lambda _, name: str(folder / name)},
        "librosa": {"resample": None},
        "torchaudio": {},
        "torchaudio.transforms": {
            "Spectrogram": Spectrogram,
            "InverseSpectrogram": InverseSpectrogram,
            "TimeStretch": TimeStretch,
        },
    }
    for name, content in stand_ins.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name in [name for name in sys.modules if name.partition(".")[0] == "perth"]:
        monkeypatch.delitem(sys.modules, name)
    module = importlib.import_module("perth.perth_net.perth_net_implicit.perth_watermarker")
    made = module.PerthImplicitWatermarker()
    for name in [name for name in sys.modules if name.partition(".")[0] == "perth"]:
        del sys.modules[name]
    return made


@needs_weights
def test_the_packages_code_is_never_imported(bark: Bark):
    code = """
import sys
import numpy as np
from barkfast.watermark import detect, mark
detect(mark(np.zeros(9000, np.float32), 24000), 24000)
print([name for name in sys.modules if name.split(".")[0] in ("perth", "librosa", "torchaudio", "pkg_resources")])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@needs_weights
def test_say_marks_and_detect_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    model = ["--model", "demo", "--device", "cpu", "--seed", "1", "--quiet"]
    assert main(["say", TEXT, *model, "-o", "plain.wav"]) == 0
    assert main(["say", TEXT, *model, "-o", "marked.mp3", "--watermark"]) == 0
    Path("text.txt").write_text("Hello there. Good morning to you.", encoding="utf-8")
    assert main(["say", "--file", "text.txt", *model, "-o", "long.flac", "--watermark"]) == 0
    capsys.readouterr()
    assert main(["detect", "plain.wav"]) == 1
    assert main(["detect", "marked.mp3"]) == 0
    assert main(["detect", "plain.wav", "marked.mp3", "long.flac"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [line[-1] for line in lines[2:]] == ["plain.wav", "marked.mp3", "long.flac"]
    assert [line[1].strip() for line in lines[2:]] == ["not marked", "marked", "marked"]
    assert float(lines[3][0]) > 0.9 > 0.1 > float(lines[2][0])
    assert main(["detect", "marked.mp3", "absent.wav"]) == 2
    printed = capsys.readouterr()
    assert "marked.mp3" in printed.out
    assert printed.err.startswith("barkfast: error: cannot read absent.wav") and printed.err.count("\n") == 1
    Path("text.wav").write_text("no sound", encoding="utf-8")
    assert main(["detect", "text.wav"]) == 2


@needs_weights
def test_all_channels_are_heard(tmp_path: Path, plain: np.ndarray, marked: np.ndarray):
    for name, samples in (("marked", marked), ("plain", plain)):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([samples, 0.5 * samples], axis=1), RATE)
    assert detect_file(tmp_path / "marked.wav") > MARKED > detect_file(tmp_path / "plain.wav")
    write_audio(tmp_path / "long.wav", np.concatenate([np.tile(plain, 9), marked]), RATE)
    assert detect_file(tmp_path / "long.wav") > MARKED


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where resemble-perth is not installed."""
    monkeypatch.setattr(watermark, "find_spec", lambda name: None)


@pytest.mark.usefixtures("absent")
def test_without_the_package_one_line_says_how_to_install_it(
    bark: Bark, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Bark, "load", lambda self: pytest.fail("it was loaded"))
    install = r"pip install 'barkfast\[watermark\]'"
    for call in (lambda: bark.generate("a", watermark=True), lambda: detect(np.zeros(9), RATE), lambda: Marker(RATE)):
        with pytest.raises(InputError, match=install):
            call()
    out = str(tmp_path / "a.wav")
    assert main(["say", "a", "--model", "demo", "--watermark", "-o", out]) == 1
    assert main(["detect", out]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("resemble-perth, which is not installed" in line for line in lines)


@pytest.mark.usefixtures("absent")
def test_sound_without_a_mark_needs_nothing(bark: Bark, plain: np.ndarray):
    assert np.array_equal(bark.generate(TEXT, seed=SEED, watermark=False).audio, plain)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_wrong_value_is_refused(value: Any):
    with pytest.raises(InputError, match="watermark is .*expected True or False"):
        Request("a", watermark=value)


def test_a_rate_that_is_too_low_is_refused():
    with pytest.raises(InputError, match="at least 8000 samples per second"):
        Frames(4000)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def test_weights_that_carry_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path.joinpath("perth", *watermark.WEIGHTS)
    path.parent.mkdir(parents=True)
    torch.save({"model": Evil()}, path)
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "perth")])
    monkeypatch.setattr(watermark, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        Marker(RATE)
