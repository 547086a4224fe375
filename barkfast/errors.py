"""The exceptions barkfast raises: each names the value, what was expected, and what to do."""


class BarkfastError(Exception):
    """Base of everything barkfast raises on purpose."""


class InputError(BarkfastError, ValueError):
    """A value the caller passed cannot be used: text, tokens, sampling options, a device or dtype name."""


class OutputError(InputError, OSError):
    """A file cannot be written where the caller wants it; names the path that was given."""


class VoiceError(InputError):
    """A voice (history prompt) is unknown, or its file or arrays cannot be used."""


class CheckpointError(BarkfastError, ValueError):
    """A weights file is damaged, foreign, incomplete or unsafe."""


class MissingFileError(BarkfastError, FileNotFoundError):
    """Weights, tokenizer or codec were looked for and not found; says where, and how to get them."""


class EngineError(BarkfastError, RuntimeError):
    """The engine asked for cannot run here."""


class QueueFull(BarkfastError, RuntimeError):
    """A serving engine holds as many requests as it may; ask again later, or elsewhere."""


class DeadlineExceeded(BarkfastError, TimeoutError):
    """A request was not done by its deadline."""


class EngineClosed(BarkfastError, RuntimeError):
    """A serving engine was not started yet, takes nothing new any more, or ended before the request was done."""


class EngineDead(EngineError):
    """A serving engine failed for good: every request it held failed with it, and it takes no new one."""
