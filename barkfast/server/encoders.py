"""Sound to bytes while it is generated: pcm, wav, mp3, opus, flac, and aac with the extra `aac`.

libsndfile writes mp3, opus and flac into a file that says it can seek. What it writes at the end of the file is sent;
what it rewrites at the head, once the length is known, is not: what was sent cannot be changed.
"""

import io
import struct
import zlib
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any

import numpy as np

from barkfast.audio import stream_header, to_pcm16
from barkfast.errors import InputError
from barkfast.server.errors import ApiError

# libsndfile's command that bounds the length of an Ogg page, and the length in milliseconds: it is 1000 by itself.
SET_PAGE_LATENCY, PAGE_MS = 0x1302, 100.0
# The head of an Ogg page up to the number of its segments, whose lengths follow: RFC 3533, section 6.
OGG_HEAD = struct.Struct("<4sBBQIIIB")
SERIAL = 1
# Each byte with its bits in the other order.
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Bits per second of mp3 and aac.
BIT_RATE = 64_000


class Encoder(ABC):
    """Encodes one sound.

    Args:
        sample_rate: samples per second.

    Attributes:
        media_type: of the bytes, for HTTP.
    """

    media_type = ""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    @abstractmethod
    def encode(self, samples: np.ndarray) -> bytes:
        """The bytes that (n,) float32 samples give, maybe none yet."""

    def finish(self) -> bytes:
        """The bytes that are still left; nothing is encoded after it."""
        return b""


class PcmEncoder(Encoder):
    """16-bit little-endian samples, without a header."""

    media_type = "audio/pcm"

    def encode(self, samples: np.ndarray) -> bytes:
        return to_pcm16(samples)


class WavEncoder(PcmEncoder):
    """The same behind a header that leaves the length open."""

    media_type = "audio/wav"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        self._head = stream_header(sample_rate)

    def encode(self, samples: np.ndarray) -> bytes:
        head, self._head = self._head, b""
        return head + super().encode(samples)

    def finish(self) -> bytes:
        head, self._head = self._head, b""
        return head


class _Appended(io.RawIOBase):
    """A file that hands on what is written at its end, and drops what is written before that."""

    def __init__(self) -> None:
        self._position = self._end = 0
        self._new = bytearray()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        content = bytes(data)
        known = self._end - self._position
        self._new += content[max(0, known) :]
        self._position += len(content)
        self._end = max(self._end, self._position)
        return len(content)

    def take(self) -> bytes:
        """What was written at the end since the last call."""
        content = bytes(self._new)
        self._new.clear()
        return content


class _SoundFileEncoder(Encoder):
    """By libsndfile."""

    format, subtype = "", ""
    options: dict[str, Any] = {}

    def __init__(self, sample_rate: int) -> None:
        import soundfile

        super().__init__(sample_rate)
        self._sink = _Appended()
        try:
            self._file = soundfile.SoundFile(
                self._sink, "w", sample_rate, 1, self.subtype, format=self.format, **self.options
            )
        except (soundfile.LibsndfileError, ValueError, TypeError) as error:
            raise InputError(
                f"libsndfile {soundfile.__libsndfile_version__} cannot write {self.format.lower()} "
                f"({self.subtype}): {error}; upgrade soundfile, or ask for wav or pcm"
            ) from error

    def encode(self, samples: np.ndarray) -> bytes:
        self._file.write(np.clip(samples, -1, 1))
        return self._take()

    def finish(self) -> bytes:
        self._file.close()
        return self._take()

    def _take(self) -> bytes:
        return self._sink.take()


class Mp3Encoder(_SoundFileEncoder):
    """MPEG layer III of constant bit rate: in a variable one the length in the head would be patched at the end."""

    media_type, format, subtype = "audio/mpeg", "MP3", "MPEG_LAYER_III"
    # Without a level soundfile does not pass the mode on; this one is about 64 kbit/s.
    options = {"bitrate_mode": "CONSTANT", "compression_level": 0.6}


class OpusEncoder(_SoundFileEncoder):
    """Opus in Ogg, in pages of a tenth of a second.

    libsndfile draws the stream's serial number. It is replaced, so that the same sound gives the same bytes.
    """

    media_type, format, subtype = "audio/ogg; codecs=opus", "OGG", "OPUS"
    # About 85 kbit/s: a third of the time that the usual 38 kbit/s take to encode.
    options = {"compression_level": 0.7}

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        _set_page_latency(self._file)
        self._rest = b""

    def _take(self) -> bytes:
        data, pages = self._rest + super()._take(), []
        while len(data) >= OGG_HEAD.size:
            n_segments = data[OGG_HEAD.size - 1]
            end = OGG_HEAD.size + n_segments
            end += sum(data[OGG_HEAD.size : end])
            if len(data) < end:
                break
            pages.append(_with_serial(data[:end]))
            data = data[end:]
        self._rest = data
        return b"".join(pages)


class FlacEncoder(_SoundFileEncoder):
    """16 bits without loss; the length in the head stays unknown."""

    media_type, format, subtype = "audio/flac", "FLAC", "PCM_16"


def _set_page_latency(file: Any) -> bool:
    """Ask libsndfile for short pages, through soundfile's own handle; whether that could be done.

    soundfile has no public way. Without it a page holds a second: sound comes later, and is the same.
    """
    import soundfile

    try:
        value = soundfile._ffi.new("double*", PAGE_MS)
        return bool(soundfile._snd.sf_command(file._file, SET_PAGE_LATENCY, value, 8))
    except (AttributeError, TypeError):
        return False


def _with_serial(page: bytes) -> bytes:
    """An Ogg page with SERIAL as its stream's serial number, and its checksum, which covers a zero in its own place."""
    capture, version, kind, granule, _, number, _, n_segments = OGG_HEAD.unpack_from(page)
    head = (capture, version, kind, granule, SERIAL, number)
    rest = page[OGG_HEAD.size :]
    # zlib's polynomial, but with the bits of bytes and sum in the other order, and neither start nor end inverted.
    reflected = zlib.crc32((OGG_HEAD.pack(*head, 0, n_segments) + rest).translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    checksum = int.from_bytes(reflected.to_bytes(4, "little").translate(REVERSED), "big")
    return OGG_HEAD.pack(*head, checksum, n_segments) + rest


class AacEncoder(Encoder):
    """AAC in ADTS, by PyAV (the extra `aac`)."""

    media_type = "audio/aac"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        try:
            import av
        except ImportError as error:
            raise InputError(
                f"aac needs PyAV ({error}); run: pip install 'barkfast[aac]', or ask for "
                f"{', '.join(name for name in ENCODERS if name != 'aac')}"
            ) from error
        self._av, self._sink = av, _Appended()
        self._container = av.open(self._sink, "w", format="adts")
        self._stream = self._container.add_stream("aac", rate=sample_rate, layout="mono")
        self._stream.bit_rate = BIT_RATE
        self._sent = 0

    def encode(self, samples: np.ndarray) -> bytes:
        if not len(samples):
            return b""
        frame = self._av.AudioFrame.from_ndarray(np.float32(samples)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self.sample_rate, self._sent
        self._sent += len(samples)
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()


ENCODERS: dict[str, type[Encoder]] = {
    "mp3": Mp3Encoder,
    "opus": OpusEncoder,
    "aac": AacEncoder,
    "flac": FlacEncoder,
    "wav": WavEncoder,
    "pcm": PcmEncoder,
}


def make_encoder(format: str, sample_rate: int, field: str) -> Encoder:
    """An encoder of one of ENCODERS. Raises: ApiError 400, naming the `field` of the request, if it cannot be had."""
    try:
        return ENCODERS[format](sample_rate)
    except InputError as error:
        raise ApiError(400, str(error), "unsupported_format", field) from error


def available_formats() -> list[str]:
    """The formats whose packages are installed."""
    return [name for name in ENCODERS if name != "aac" or find_spec("av") is not None]
