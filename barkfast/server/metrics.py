"""What Prometheus reads at /metrics: vLLM-Omni's meanings, under `barkfast_`."""

import os
import time
from pathlib import Path
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

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"barkfast_{name}", text, **kept)

        def seconds(name: str, text: str, labels: tuple[str, ...] = (), buckets: Any = SECONDS) -> Histogram:
            return Histogram(f"barkfast_{name}", text, labels, buckets=buckets, **kept)

        self.requests = Counter("barkfast_requests", "Requests for speech by how they ended.", ["outcome"], **kept)
        self.running = gauge("requests_running", "Requests whose sound is being generated.")
        self.waiting = gauge("requests_waiting", "Requests accepted that have no sound yet.")
        self.batch_size = gauge("batch_size", "Requests in the slots of the batch.")
        self.queue_wait = seconds("queue_wait_seconds", "From a request's submission to the start of its work.")
        self.first_audio = seconds("time_to_first_audio_seconds", "From a request to its first sound.")
        self.request_seconds = seconds("request_seconds", "From a request to the end of its sound.")
        self.stage_seconds = seconds("stage_seconds", "Seconds of a request in a stage.", ("stage",))
        self.real_time_factor = seconds("real_time_factor", "Seconds of a request over its sound's.", (), FACTORS)
        self.underrun = seconds("audio_underrun_seconds", "The worst deficit of a player that starts at once.")
        self.audio_seconds = Counter("barkfast_audio_seconds", "Sound that was generated.", **kept)
        self.restarts = gauge("engine_restarts", "Starts of the engine's process after it died.")
        self.healthy = gauge("engine_healthy", "1 while the engine works.")
        self.slots = gauge("slots", "Requests that may be in the batch.")
        self.memory = Gauge("barkfast_memory_bytes", "Resident memory, on Linux.", ["process"], **kept)
        Gauge("barkfast_build_info", "What runs.", list(build), **kept).labels(**build).set(1)

    def render(self, engine: Any, n_slots: int) -> bytes:
        """The page of /metrics.

        Args:
            engine: as of `create_app`.
            n_slots: of its batch.
        """
        stats = engine.stats()
        self.healthy.set(bool(engine.healthy))
        self.restarts.set(getattr(engine, "restarts", 0))
        self.batch_size.set(max(0, min(n_slots, stats.held - stats.parked)))
        self.slots.set(n_slots)
        for name, number in (("server", os.getpid()), ("engine", getattr(engine, "process_id", None))):
            if number is not None and (resident := resident_bytes(number)) is not None:
                self.memory.labels(process=name).set(resident)
        return generate_latest(self.registry)


def resident_bytes(process: int) -> int | None:
    """Memory of a process; None where that is not known, or where it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Clock:
    """The times of one request, for its metrics and its line in the log."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.first_audio_s: float | None = None
        self.audio_s = self.underrun_s = 0.0

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.monotonic() - self._started

    def receive(self, audio_s: float) -> None:
        """So many seconds of sound have come."""
        if self.first_audio_s is None:
            self.first_audio_s = self.seconds
        played = self.seconds - self.first_audio_s
        self.underrun_s = max(self.underrun_s, played - self.audio_s)
        self.audio_s += audio_s
