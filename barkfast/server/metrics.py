"""What Prometheus reads at /metrics: vLLM-Omni's meanings, under `barkfast_`."""

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
FACTORS = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.25, 1.5, 2)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Of one application, in a registry of its own."""

    def __init__(self, build: dict[str, str]) -> None:
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry}

        def seconds(name: str, text: str, buckets: tuple[float, ...] = SECONDS, **labels: Any) -> Histogram:
            return Histogram(f"barkfast_{name}", text, buckets=buckets, **kept, **labels)

        self.requests = Counter("barkfast_requests", "Requests for speech by how they ended.", ["outcome"], **kept)
        self.running = Gauge("barkfast_requests_running", "Requests whose sound is being generated.", **kept)
        self.waiting = Gauge("barkfast_requests_waiting", "Requests accepted that have no sound yet.", **kept)
        self.queue_wait = seconds("queue_wait_seconds", "From a request to its admission.")
        self.first_audio = seconds("time_to_first_audio_seconds", "From a request to its first bytes of sound.")
        self.request_seconds = seconds("request_seconds", "From a request to the end of its sound.")
        self.real_time_factor = seconds("real_time_factor", "Seconds of a request over those of its sound.", FACTORS)
        self.underrun = seconds(
            "audio_underrun_seconds", "The longest wait of a player that starts at the first byte of sound."
        )
        self.audio_seconds = Counter("barkfast_audio_seconds", "Sound that was generated.", **kept)
        self.restarts = Counter("barkfast_engine_restarts", "Starts of the engine after it died.", **kept)
        self.healthy = Gauge("barkfast_engine_healthy", "1 while the engine works.", **kept)
        Gauge("barkfast_build_info", "What runs.", list(build), **kept).labels(**build).set(1)

    def render(self) -> bytes:
        """The page of /metrics."""
        return generate_latest(self.registry)


class Clock:
    """The times of one request, for its metrics and its line in the log.

    Args:
        started: time.monotonic() when it came.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.admitted_s: float | None = None
        self.first_audio_s: float | None = None
        self.audio_s = self.underrun_s = 0.0

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.monotonic() - self.started

    def admit(self) -> None:
        """It was accepted by the engine."""
        self.admitted_s = self.seconds

    def receive(self, audio_s: float) -> None:
        """So many seconds of sound have come."""
        if self.first_audio_s is None:
            self.first_audio_s = self.seconds
        played = self.seconds - self.first_audio_s
        self.underrun_s = max(self.underrun_s, played - self.audio_s)
        self.audio_s += audio_s
