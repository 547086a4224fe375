"""What a scheduler reports of its utterances."""

from dataclasses import dataclass

import numpy as np

from barkfast.engine.generation import Generation
from barkfast.engine.utterance import Utterance
from barkfast.errors import BarkfastError


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The next samples of a stream, (n,) float32, at least one."""

    utterance: Utterance
    audio: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """An utterance ended well; of a stream, all chunks came before this, and together are its audio."""

    utterance: Utterance
    generation: Generation


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """An utterance ended with an error; the others did not."""

    utterance: Utterance
    error: BarkfastError


Event = Chunk | Done | Failed
