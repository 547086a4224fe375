"""Events of a stream's progress, for clients that ask for them: `"progress": true`, with `"stream_format": "sse"`."""

import base64
import io
from collections import Counter, deque
from typing import Any

import numpy as np

from barkfast.engine.stream import StreamedSegment
from barkfast.server.metrics import Clock

# Seconds between two looks at the queue.
LOOK_S = 0.2


class Waiting:
    """The requests of a server that have no sound yet, in the order in which they were accepted."""

    def __init__(self) -> None:
        self._numbers: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: str) -> None:
        """A request was accepted."""
        self._numbers[number] = None

    def remove(self, number: str) -> None:
        """It has sound, or has ended. May be called again."""
        self._numbers.pop(number, None)

    def ahead_of(self, number: str) -> int | None:
        """How many were accepted before it; None if it does not wait."""
        return next((i for i, other in enumerate(self._numbers) if other == number), None)


class Progress:
    """What one client is told.

    Args:
        number: the request's.
        speed: of the sound; times are those of the sound as it is sent.
    """

    def __init__(self, waiting: Waiting, number: str, speed: float) -> None:
        self._waiting, self._number, self._speed = waiting, number, speed
        self._events: deque[dict[str, Any]] = deque()
        self._ahead: int | None = None
        self._stages: Counter[str] = Counter()
        self._has_voice = False

    def look(self) -> None:
        """Tell the place in the queue, where it has changed."""
        ahead = self._waiting.ahead_of(self._number)
        if ahead is not None and ahead != self._ahead:
            self._events.append({"type": "speech.queued", "ahead": ahead, "waiting": len(self._waiting)})
        self._ahead = ahead

    def receive(self, segment: StreamedSegment) -> None:
        """Tell of a sentence: its text and where it begins, and at its end the seconds of work by stage.

        The first one that can be used as a voice is sent as one.
        """
        begins = {"index": segment.number, "start_s": round(segment.start_s / self._speed, 4)}
        if not segment.ended:
            self._events.append({"type": "speech.segment", **begins, "text": segment.text})
            return
        self._stages.update(segment.timings)
        stages = {stage: round(seconds, 4) for stage, seconds in self._stages.items()}
        self._events.append({"type": "speech.segment.done", **begins, "stage_seconds": stages})
        if segment.voice is not None and not self._has_voice:
            self._has_voice = True
            archive = io.BytesIO()
            # Tokens are below 2^15.
            np.savez_compressed(archive, **{key: np.asarray(a, np.int16) for key, a in segment.voice.items()})
            self._events.append({"type": "speech.voice", "npz": base64.b64encode(archive.getvalue()).decode()})

    def finish(self, clock: Clock) -> None:
        """Tell the times of the whole request."""
        times: dict[str, Any] = {"seconds": clock.seconds, "audio_s": clock.audio_s / self._speed}
        times |= {"queue_wait_s": clock.admitted_s, "first_audio_s": clock.first_audio_s}
        rounded = {name: value if value is None else round(value, 4) for name, value in times.items()}
        self._events.append({"type": "speech.times", **rounded})

    def take(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        events = list(self._events)
        self._events.clear()
        return events
