"""What a server is told: by options of `barkfast serve`, by BARKFAST_SERVE_*, or by a program."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from barkfast.checks import check_choice, check_count
from barkfast.config import CoarseLayout, FineLayout, Layout, SemanticLayout
from barkfast.options import Mode
from barkfast.watermark import require_watermark


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Args:
        served_names: names that the model goes by on /v1/models; requests may name any other.
        voice: of requests without one; None for the model's first English one.
        voice_aliases: other names of voices.
        mode: of streams whose request names none: "low_latency" or "exact".
        max_input: characters of a text at most.
        api_keys: of which one must be sent as a bearer token; none for a server that asks for none.
        uploads: the folder of voices that clients may upload and delete; None for no uploads.
        cors: origins that browsers may call from.
        root_path: where a proxy serves the application.
        drain_s: seconds that requests in progress have after a SIGTERM.
        web: whether there is a page at /.
        log_texts: whether the log has the texts.
        watermark: whether all sound is marked.

    Raises:
        InputError: a value is none of these.
    """

    served_names: tuple[str, ...] = ()
    voice: str | None = None
    voice_aliases: Mapping[str, str] = field(default_factory=dict)
    mode: str = "low_latency"
    max_input: int = 4096
    api_keys: tuple[str, ...] = ()
    uploads: Path | None = None
    cors: tuple[str, ...] = ()
    root_path: str = ""
    drain_s: float = 30.0
    web: bool = True
    log_texts: bool = False
    watermark: bool = False

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, get_args(Mode))
        check_count("max_input", self.max_input, 1, "characters of a text")
        if self.watermark:
            require_watermark()


@dataclass(frozen=True)
class About:
    """What runs behind an application.

    Args:
        model: its name.
        voices: the names of its voices.
        engine, dtype: that run it.
        slots: requests that are generated in a batch.
        layout: of its tokens, which uploaded voices must fit.
    """

    model: str
    voices: tuple[str, ...]
    engine: str = ""
    dtype: str = ""
    slots: int = 0
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "About":
        """Of what the engine's process sends."""
        given = message["layout"]
        parts = {"semantic": SemanticLayout, "coarse": CoarseLayout, "fine": FineLayout}
        layout = Layout(**{**given, **{name: kind(**given[name]) for name, kind in parts.items()}})
        return cls(**{**message, "voices": tuple(message["voices"]), "layout": layout})


def parse_duration(text: str) -> float:
    """Seconds of "90", "90s", "15m" or "2h". Raises: ValueError."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1)
    seconds = float(number) * unit
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is no length of time; expected something like 90s, 15m or 2h")
    return seconds
