"""What a scheduler reports of its tasks."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from barkfast.engine.task import Task
from barkfast.errors import BarkfastError


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The next samples of a stream, (n,) float32, at least one."""

    task: Task
    audio: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A task ended well: an utterance with a Generation, of whose stream all chunks came before this."""

    task: Task
    result: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """A task ended with an error; the others did not."""

    task: Task
    error: BarkfastError


Event = Chunk | Done | Failed
