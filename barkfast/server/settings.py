"""What a server is told: by options of `barkfast serve`, by BARKFAST_SERVE_*, or by a program."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Args:
        served_names: names that the model goes by on /v1/models; requests may name any other.
        voice: of requests without one; None for the model's first.
        voice_aliases: other names of voices.
        mode: of streams whose request names none: "low_latency" or "exact".
        max_input: characters of a text at most.
        api_keys: of which one must be sent as a bearer token; none for a server that asks for none.
        allow_upload: whether voices may be uploaded and deleted.
        cors: origins that browsers may call from.
        root_path: where a proxy serves the application.
        drain_s: seconds that requests in progress have after a SIGTERM.
        web: whether there is a page at /.
    """

    served_names: tuple[str, ...] = ()
    voice: str | None = None
    voice_aliases: Mapping[str, str] = field(default_factory=dict)
    mode: str = "low_latency"
    max_input: int = 4096
    api_keys: tuple[str, ...] = ()
    allow_upload: bool = False
    cors: tuple[str, ...] = ()
    root_path: str = ""
    drain_s: float = 30.0
    web: bool = True


def parse_duration(text: str) -> float:
    """Seconds of "90", "90s", "15m" or "2h". Raises: ValueError."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1)
    seconds = float(number) * unit
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is no length of time; expected something like 90s, 15m or 2h")
    return seconds
