"""The exceptions barkfast raises: each names the value, what was expected, and what to do."""


class BarkfastError(Exception):
    """Base of everything barkfast raises on purpose."""


class InputError(BarkfastError, ValueError):
    """A value the caller passed cannot be used: text, tokens, sampling options, a device or dtype name."""


class OutputError(InputError, OSError):
    """A file cannot be written where the caller wants it; the message has the path that was given."""


class VoiceError(InputError):
    """A voice (history prompt) is unknown, or its file or arrays cannot be used."""


class CheckpointError(BarkfastError, ValueError):
    """A weights file is damaged, of another format, incomplete or unsafe."""


class MissingFileError(BarkfastError, FileNotFoundError):
    """Weights, tokenizer or codec were not found; the message says where it looked, and how to get them."""


class EngineError(BarkfastError, RuntimeError):
    """The requested engine cannot run here, failed while it ran, or its model is in use by other calls."""


class QueueFull(BarkfastError, RuntimeError):
    """A serving engine's queue is full; retry later, or on another server."""


class DeadlineExceeded(BarkfastError, TimeoutError):
    """A request was not done by its deadline."""


class EngineClosed(BarkfastError, RuntimeError):
    """A serving engine is not started, accepts no new requests, or stopped before the request was done."""


class EngineDead(EngineError):
    """A serving engine failed permanently: all its requests failed, and it accepts no new ones."""
