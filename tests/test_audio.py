"""Waveforms to files: every format reads back, nothing clips without a warning, nothing is left half-written."""

import errno
import io
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from barkfast import files
from barkfast.audio import FORMATS, check_output, encode_audio, write_audio, writing_audio
from barkfast.errors import InputError, OutputError
from barkfast.files import replacing

RATE = 24_000


def tone(seconds: float = 0.5, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def read(path: Path | bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(path) if isinstance(path, bytes) else path, dtype="float32")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_reads_back(tmp_path: Path, format: str):
    path = tmp_path / f"out.{format.upper()}"
    write_audio(path, tone(), RATE)
    samples, rate = read(path)
    info = soundfile.info(path)
    assert (rate, info.channels, info.format) == (RATE, 1, format.upper())
    # libsndfile reads mp3 without the encoder's padding only where it wrote the header for it.
    assert len(samples) == len(tone()) or (format == "mp3" and abs(len(samples) - len(tone())) < 2400)
    middle = slice(4000, 8000)
    tolerance = {"wav": 1e-4, "flac": 1e-4, "ogg": 0.05, "mp3": 0.05}[format]
    assert np.abs(samples[middle] - tone()[middle]).max() < tolerance


def test_wav_is_16_bit_unless_float_is_asked_for(tmp_path: Path):
    write_audio(tmp_path / "a.wav", tone(), RATE)
    write_audio(tmp_path / "b.wav", tone(), RATE, subtype="FLOAT")
    assert [soundfile.info(tmp_path / name).subtype for name in ("a.wav", "b.wav")] == ["PCM_16", "FLOAT"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_float_wav_keeps_every_sample(dtype: type, caplog: pytest.LogCaptureFixture):
    samples = (3 * tone()).astype(dtype)
    back, _ = read(encode_audio(samples, RATE, subtype="FLOAT"))
    np.testing.assert_array_equal(back, samples.astype(np.float32))
    assert not caplog.records


@pytest.mark.parametrize("format", FORMATS)
def test_loud_samples_are_scaled_to_fit_with_one_warning(format: str, caplog: pytest.LogCaptureFixture):
    loud = tone(peak=2.0)
    with caplog.at_level(logging.WARNING):
        back, _ = read(encode_audio(loud, RATE, format))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2.000" in caplog.text and "scaled" in caplog.text
    # The shape of the wave is kept: clipped to half its height, a sine has flat tops and a mean of 0.87 of its peak.
    middle = np.abs(back[4000:8000])
    assert middle.mean() / middle.max() == pytest.approx(2 / np.pi, rel=0.1)
    if format in ("wav", "flac"):
        np.testing.assert_allclose(back, loud / np.abs(loud).max(), atol=1e-4)


def test_samples_of_exactly_full_scale_are_left_alone(caplog: pytest.LogCaptureFixture):
    back, _ = read(encode_audio(np.array([1, -1, 0, 0.5], dtype=np.float32), RATE))
    np.testing.assert_allclose(back, [1, -1, 0, 0.5], atol=1e-4)
    assert not caplog.records


def test_long_ogg_does_not_overflow_the_encoder():
    back, rate = read(encode_audio(tone(60), RATE, "ogg"))
    assert (len(back), rate) == (60 * RATE, RATE)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0, np.nan], dtype=np.float32), "NaN"),
        (np.array([0, np.inf], dtype=np.float32), "infinity"),
        (np.zeros((2, 8), dtype=np.float32), r"\(2, 8\)"),
        (np.zeros(0, dtype=np.float32), r"\(0,\)"),
        (np.zeros(8, dtype=np.int16), "int16"),
    ],
)
def test_what_is_no_sound_is_refused(tmp_path: Path, samples: np.ndarray, message: str):
    path = tmp_path / "out.wav"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match=message):
        write_audio(path, samples, RATE)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_impossible_formats_are_refused():
    with pytest.raises(InputError, match="aac"):
        encode_audio(tone(), RATE, "aac")
    with pytest.raises(InputError, match="FLOAT.*MPEG_LAYER_III"):
        encode_audio(tone(), RATE, "mp3", "FLOAT")
    with pytest.raises(InputError, match="12345 Hz"):
        encode_audio(tone(), 12_345, "mp3")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "out.wav"
    path.write_bytes(b"precious")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_names_may_be_long(tmp_path: Path):
    target, link = tmp_path / "target.wav", tmp_path / "link.wav"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_audio(link, tone(), RATE)
    assert link.is_symlink() and soundfile.info(target).frames == len(tone())
    write_audio(tmp_path / f"{'x' * 251}.wav", tone(), RATE)


@pytest.mark.parametrize(
    ("name", "subtype", "message"),
    [
        ("out", None, r"must end in one of \.wav, \.flac, \.ogg, \.mp3"),
        ("out.txt", None, "must end in"),
        ("missing/out.wav", None, "not an existing folder"),
        ("file.wav/out.wav", None, "not an existing folder"),
        ("folder.wav", None, "is a folder"),
        (f"{'x' * 300}.wav", None, "File name too long"),
        ("out.mp3", "FLOAT", "FLOAT"),
    ],
)
def test_output_is_checked_before_the_work(tmp_path: Path, name: str, subtype: str | None, message: str):
    (tmp_path / "file.wav").write_bytes(b"precious")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InputError, match=message):
        check_output(tmp_path / name, subtype)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.wav", "folder.wav"]


def test_a_fine_output_passes_and_is_not_touched(tmp_path: Path):
    check_output(tmp_path / "new.flac")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.wav").write_bytes(b"precious")
    check_output(tmp_path / "old.wav", "FLOAT")
    assert (tmp_path / "old.wav").read_bytes() == b"precious"


def test_a_folder_that_takes_no_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        check_output(tmp_path / "out.wav")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_full_disk_is_noticed_however_the_sound_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, room: int
):
    """libsndfile itself reports no error if only the end of a file is lost."""
    left = room

    def write(self: files._NewFile, data: bytes) -> int:
        nonlocal left
        if len(data) > left:
            raise files._cannot_write(self._path, OSError(errno.ENOSPC, "No space left on device"))
        left -= len(data)
        return true(self, data)

    true = files._NewFile.write
    monkeypatch.setattr(files._NewFile, "write", write)
    path = tmp_path / f"out.{form}"
    said = rf"cannot write .*out\.{form}: No space left"
    with pytest.raises(OutputError, match=said):
        write_audio(path, tone(), RATE)
    left = room
    with pytest.raises(OutputError, match=said), writing_audio(path, RATE) as put:
        for start in range(0, len(tone()), 1000):
            put(tone()[start : start + 1000])
    assert not list(tmp_path.iterdir())
