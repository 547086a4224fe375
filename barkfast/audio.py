"""Waveforms to and from files and bytes: wav, flac, ogg and mp3, through soundfile."""

import io
import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from barkfast.errors import InputError
from barkfast.files import AnyPath, check_writable, expand, replacing

logger = logging.getLogger(__name__)

FORMATS = ("wav", "flac", "ogg", "mp3")
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
# Bytes of samples that fit in a wav beside its header, and bytes per sample of each subtype.
WAV_BYTES = (1 << 32) - 4096
SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


def _format_of(path: AnyPath) -> str:
    name = expand(path)
    suffix = name.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"cannot tell the audio format of {str(name)!r}; its name must end in one of {known}")
    return suffix


def _subtype_of(format: str, subtype: str | None) -> str:
    """The libsndfile subtype to write, checked against the format and against what this libsndfile can do."""
    import soundfile

    if format not in FORMATS:
        raise InputError(f"audio format is {format!r}; expected one of {', '.join(FORMATS)}")
    if format.upper() not in soundfile.available_formats():
        raise InputError(
            f"libsndfile {soundfile.__libsndfile_version__} cannot write {format}; upgrade soundfile, or write wav"
        )
    chosen = subtype.upper() if subtype else soundfile.default_subtype(format.upper())
    possible = soundfile.available_subtypes(format.upper())
    if chosen not in possible:
        raise InputError(f"{format} cannot hold samples as {subtype!r}; expected one of {', '.join(possible)}")
    return chosen


def _fit(samples: np.ndarray, format: str, subtype: str) -> np.ndarray:
    """Scale down samples that an integer format would clip, and log a warning."""
    if subtype in FLOAT_SUBTYPES:
        return samples
    peak = float(np.abs(samples).max(initial=0))
    if peak <= 1:
        return samples
    logger.warning(
        "the samples peak at %.3f, beyond the +-1 that %s (%s) can hold: scaled down by %.3f to fit; "
        "a float wav keeps them as they are",
        peak,
        format,
        subtype,
        peak,
    )
    return samples / np.asarray(peak, dtype=samples.dtype)


def _check_finite(samples: np.ndarray) -> None:
    if not np.isfinite(samples).all():
        raise InputError("samples hold NaN or infinity, which is no sound; was a network run in a too narrow dtype?")


def encode_audio(samples: np.ndarray, sample_rate: int, format: str = "wav", subtype: str | None = None) -> bytes:
    """Encode a waveform.

    Args:
        samples: (n,) floating point, nominally within +-1; integer formats are scaled down to fit, never clipped.
        sample_rate: samples per second.
        format: wav, flac, ogg or mp3.
        subtype: libsndfile's name of the sample format, e.g. "FLOAT" or "PCM_24"; None for the usual one
            (16-bit for wav and flac, Vorbis for ogg).

    Raises:
        InputError: samples that are not sound (shape, dtype, NaN), or a format that cannot hold them.
    """
    import soundfile

    subtype = _subtype_of(format, subtype)
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.size == 0:
        raise InputError(f"samples have shape {samples.shape}; expected (n,) with n of at least 1")
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"samples are {samples.dtype}; expected floating point within +-1")
    _check_finite(samples)
    # libsndfile takes these two dtypes; float16 to float32 is lossless.
    samples = samples if samples.dtype in (np.float32, np.float64) else samples.astype(np.float32)
    samples = _fit(samples, format, subtype)
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", int(sample_rate), 1, subtype, format=format.upper()) as file:
            # In blocks: libsndfile's Vorbis encoder puts a whole write on the stack and overflows it on long audio.
            for start in range(0, len(samples), 1 << 16):
                file.write(samples[start : start + (1 << 16)])
    except soundfile.LibsndfileError as error:
        raise InputError(f"cannot encode {sample_rate} Hz audio as {format} ({subtype}): {error}") from error
    return buffer.getvalue()


def write_audio(path: AnyPath, samples: np.ndarray, sample_rate: int, *, subtype: str | None = None) -> None:
    """Write a waveform to a .wav, .flac, .ogg or .mp3 file atomically; see `encode_audio`."""
    data = encode_audio(samples, sample_rate, _format_of(path), subtype)
    with replacing(path) as file:
        file.write(data)


def check_output(path: AnyPath, subtype: str | None = None) -> None:
    """Raise InputError unless `write_audio` can write to `path`; call it before the work."""
    _subtype_of(_format_of(path), subtype)
    check_writable(path)


def to_pcm16(samples: np.ndarray) -> bytes:
    """(n,) floating point samples as 16-bit little-endian integers; values beyond +-1 are clipped."""
    return (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()


def stream_header(sample_rate: int) -> bytes:
    """The 44-byte wav header for 16-bit mono samples of unknown length, for pipes."""
    unknown = 0xFFFFFFFF
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + fmt + struct.pack("<4sI", b"data", unknown)


class _Sink:
    """Wrap a file for libsndfile, which ignores or prints the exceptions of a file: keeps the first one.

    `check` raises it. After an exception all writes go to memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO = file
        self._error: BaseException | None = None

    def _try(self, work: Callable[[BinaryIO], int]) -> int:
        try:
            return work(self._file)
        except BaseException as error:
            # BaseException: Ctrl-C would be lost too.
            self._error, self._file = error, io.BytesIO()
            return work(self._file)

    def write(self, data: bytes) -> int:
        return self._try(lambda file: file.write(data))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(lambda file: file.seek(offset, whence))

    def tell(self) -> int:
        return self._try(lambda file: file.tell())

    def check(self) -> None:
        if self._error is not None:
            raise self._error


@contextmanager
def _encoding(raw: BinaryIO, sample_rate: int, subtype: str, format: str) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that encodes (n,) samples into the open file `raw`, and raises what the file raises."""
    import soundfile

    sink = _Sink(raw)
    try:
        with soundfile.SoundFile(sink, "w", sample_rate, 1, subtype, format=format.upper()) as file:

            def write(samples: np.ndarray) -> None:
                file.write(samples)
                sink.check()

            yield write
    except soundfile.LibsndfileError as error:
        sink.check()
        raise InputError(f"cannot encode {sample_rate} Hz audio as {format} ({subtype}): {error}") from error
    sink.check()


def read_windows(path: AnyPath, seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """Read a sound file in windows that overlap by half: (n,) float32, the mean of all channels, and the sample rate.

    Raises:
        InputError: it cannot be read.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            size = 2 * round(seconds * file.samplerate / 2)
            for block in file.blocks(size, size // 2, dtype="float32", always_2d=True):
                yield block.mean(axis=1), file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"cannot read {os.fsdecode(path)}: {error}; expected wav, flac, ogg, opus or mp3") from error


@contextmanager
def writing_audio(
    path: AnyPath, sample_rate: int, *, subtype: str | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a waveform chunk by chunk, in constant memory; the complete file appears at the end, or none.

    Yields a function that takes (n,) floating point samples. Integer formats cannot be scaled afterwards: a chunk that
    peaks beyond +-1 is scaled down to fit, and so are all later chunks, so that nothing is clipped.

    Raises:
        InputError: as `write_audio`, or the samples exceed the size limit of a wav.
    """
    format = _format_of(path)
    subtype = _subtype_of(format, subtype)
    limit = WAV_BYTES // SAMPLE_BYTES.get(subtype, 8) if format == "wav" else None
    peak, n_samples = 1.0, 0

    with replacing(path) as raw, _encoding(raw, sample_rate, subtype, format) as encode:

        def write(samples: np.ndarray) -> None:
            nonlocal peak, n_samples
            _check_finite(samples)
            n_samples += len(samples)
            if limit is not None and n_samples > limit:
                raise InputError(f"{os.fsdecode(path)}: a wav holds no more than 4 GiB; write flac, ogg or mp3")
            loudest = float(np.abs(samples).max(initial=0))
            if loudest > peak and subtype not in FLOAT_SUBTYPES:
                logger.warning("the samples peak at %.3f, beyond +-1: from here on scaled down by it to fit", loudest)
                peak = loudest
            fitted = (samples / peak if peak > 1 else samples).astype(np.float32)
            # In blocks, as in `encode_audio`.
            for start in range(0, len(fitted), 1 << 16):
                encode(fitted[start : start + (1 << 16)])

        yield write
