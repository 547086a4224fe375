"""Events of a request's progress beside its sound, for clients that send `"progress": true`."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from barkfast.server.speaking import Speech

# Seconds between two looks at a request that waits.
LOOK_S = 0.2


class Progress:
    """What one client is told besides its sound."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech
        self._ahead: int | None = None
        self._stages: dict[str, float] = {}
        self._has_voice = False

    def look(self) -> list[dict[str, Any]]:
        """What has changed: the place in the queue, the seconds by stage, the first sentence as a voice."""
        speech, events = self._speech, []
        if speech.n_ahead not in (None, self._ahead):
            events.append({"type": "speech.queued", "ahead": speech.n_ahead})
        self._ahead = speech.n_ahead
        stages = {stage: round(seconds, 4) for stage, seconds in speech.timings.items()}
        if stages != self._stages:
            self._stages = stages
            events.append({"type": "speech.stages", "seconds": stages})
        if speech.voice is not None and not self._has_voice:
            self._has_voice = True
            events.append({"type": "speech.voice", "npz": base64.b64encode(pack_voice(speech.voice)).decode()})
        return events

    def finish(self) -> list[dict[str, Any]]:
        """The rest of that, and the times of the whole request, in seconds."""
        speech, clock = self._speech, self._speech.clock
        times = {"seconds": clock.seconds, "audio_s": clock.audio_s / speech.asked.speed}
        known = {"queue_wait_s": speech.queue_wait_s, "first_audio_s": clock.first_audio_s}
        times |= {name: value for name, value in known.items() if value is not None}
        rounded = {name: round(value, 4) for name, value in times.items()}
        return [*self.look(), {"type": "speech.times", **rounded}]


def pack_voice(voice: Mapping[str, np.ndarray]) -> bytes:
    """A voice as an .npz file. Its tokens are below 2^15."""
    archive = io.BytesIO()
    arrays: dict[str, Any] = {key: np.asarray(tokens, np.int16) for key, tokens in voice.items()}
    np.savez_compressed(archive, **arrays)
    return archive.getvalue()
