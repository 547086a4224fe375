"""Every format holds the whole sound, and its first bytes leave with the first chunk."""

import numpy as np
import pytest

from barkfast.errors import InputError
from barkfast.server import encoders
from barkfast.server.encoders import ENCODERS, OpusEncoder, available_formats
from server.running import MORE, Running, decode

RATE = 24_000
HERE = available_formats()


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """3.3 seconds of tones that change, (n,) float32."""
    t = np.arange(round(3.3 * RATE)) / RATE
    tone = np.sin(2 * np.pi * 220 * t) + 0.5 * np.sin(2 * np.pi * 1870 * t) * (t > 2)
    return np.float32(0.3 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)))


def encode(format: str, sound: np.ndarray, size: int = 4800) -> tuple[list[bytes], bytes]:
    encoder = ENCODERS[format](RATE)
    pieces = [encoder.encode(sound[i : i + size]) for i in range(0, len(sound), size)]
    return pieces, encoder.finish()


def log_mel(samples: np.ndarray) -> np.ndarray:
    """(frames, 40) log energies, in decades, above the noise of a codec."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::512] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 42) / 2595) - 1)
    bins = np.fft.rfftfreq(1024, 1 / RATE)
    weights = [
        np.clip(np.minimum((bins - a) / (b - a), (c - bins) / (c - b)), 0, None)
        for a, b, c in zip(edges[:-2], edges[1:-1], edges[2:], strict=True)
    ]
    return np.log10(power @ np.array(weights).T + 1e-1)


@pytest.mark.parametrize("format", HERE)
def test_a_format_holds_the_whole_sound(format: str, sound: np.ndarray):
    pieces, end = encode(format, sound)
    if format == "aac":
        import io

        import av

        with av.open(io.BytesIO(b"".join(pieces) + end)) as file:
            decoded = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    else:
        decoded = decode(b"".join(pieces) + end, format, len(sound))
    assert 0 <= len(decoded) - len(sound) <= MORE.get(format, 0)
    # Where the decoded sound is most alike, and how far it is then: a codec delays by up to two frames.
    delays = range(len(decoded) - len(sound) + 1)
    likeness = [np.dot(decoded[d : d + len(sound) : 7], sound[::7]) for d in delays]
    delay = int(np.argmax(likeness))
    distance = np.abs(log_mel(decoded[delay : delay + len(sound)]) - log_mel(sound.astype(np.float64))).mean()
    assert distance < 0.1, f"{format}: {distance:.3f} decades"


@pytest.mark.parametrize("format", HERE)
def test_first_bytes_leave_with_the_first_chunk(format: str, sound: np.ndarray):
    pieces, _ = encode(format, sound)
    # Beyond a head: sound of the first fifth of a second, or of the second chunk in a format with longer frames.
    assert len(pieces[0]) > 0
    assert sum(map(len, pieces[:5])) > sum(map(len, pieces)) / len(pieces) * 2


@pytest.mark.parametrize("format", HERE)
def test_bytes_do_not_depend_on_the_chunks(format: str, sound: np.ndarray):
    whole, other = ([*pieces, end] for pieces, end in (encode(format, sound), encode(format, sound, 1111)))
    assert b"".join(whole) == b"".join(other)


@pytest.mark.parametrize("format", HERE)
def test_no_sound_at_all_is_no_error(format: str):
    assert isinstance(ENCODERS[format](RATE).finish(), bytes)


def test_loud_samples_are_clipped():
    loud = np.float32([0.5, 3.0, -3.0, 0.0])
    assert list(np.frombuffer(ENCODERS["pcm"](RATE).encode(loud), "<i2")) == [16384, 32767, -32767, 0]


def test_opus_comes_in_short_pages(sound: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    def first_page_s(pieces: list[bytes]) -> float:
        return next(i for i, piece in enumerate(pieces[1:], 1) if piece) * 2400 / RATE

    assert first_page_s(encode("opus", sound, 2400)[0]) <= 0.3
    # Without soundfile's private handle it is the same sound, later.
    monkeypatch.setattr(encoders, "_set_page_latency", lambda file: False)
    pieces, end = encode("opus", sound, 2400)
    assert 0 <= len(decode(b"".join(pieces) + end, "opus")) - len(sound) <= MORE["opus"]
    assert OpusEncoder.media_type == "audio/ogg; codecs=opus"


def test_aac_without_its_package_names_the_other_formats(demo: Running, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"barkfast\[aac\].*mp3, opus, flac, wav, pcm"):
        ENCODERS["aac"](RATE)
    error = demo.post({"input": "Yes.", "response_format": "aac"}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_format", "response_format")
