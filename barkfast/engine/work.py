"""What an utterance asks for: work for one of the networks."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from barkfast.jobs import FineJob, Job


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Tokens to be drawn by the decoder of `stage`, semantic or coarse."""

    stage: str
    job: Job


@dataclass(frozen=True, slots=True, eq=False)
class Refine:
    """A window for the fine network to fill."""

    stage: ClassVar[str] = "fine"
    job: FineJob


@dataclass(frozen=True, slots=True, eq=False)
class Synthesize:
    """Codes to be made sound.

    Args:
        codes: (codebooks, frames) int32; of a last piece maybe none.
        whole: all of the clip at once, else the next piece of it.
        last: nothing comes after it.
    """

    stage: ClassVar[str] = "codec"
    codes: np.ndarray
    whole: bool
    last: bool


Work = Decode | Refine | Synthesize
