"""What is timed: barkfast, and with the same methods each of its peers."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barkfast.bench.machine import read_peaks, restart_peaks
from barkfast.bench.roofline import Work, count_work
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, Clip, Workload, open_bark, speak, tokenizer_of
from barkfast.errors import InputError

if TYPE_CHECKING:
    from barkfast.bark import Bark
    from barkfast.bench.measure import Limits

OURS, TORCH = "barkfast", "torch"
# The others; their classes, in peers.py, import what they run.
PEER_NAMES = ("bark", "transformers", TORCH, "compiled")
# Seconds for the limit of the codec's dtype, where it is not that of the networks.
CODEC_LIMIT_S = 2.0


class NotRun(Exception):
    """A backend cannot be timed here; the message says why."""


class NotInstalled(NotRun):
    """A peer's package is missing; the message says how to install it."""


class Backend:
    """Something that speaks a workload's clip, and says how long each stage took.

    Args:
        name, version, dtype: what it is; the version and the dtype are known once it is loaded.
        start_up: seconds that its imports and the loading of its networks took, "import_s" and "load_s".
        work: what each stage must read and compute, where that is known.
    """

    name = ""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.version: str | None = None
        self.dtype = ""
        self.start_up: dict[str, float] | None = None
        self.work: dict[str, Work] = {}

    def load(self) -> None:
        """Import it, make what it needs from the workload's model, and load that.

        Raises: NotRun, NotInstalled; those of opening the model.
        """
        marks = []
        for step in (self.import_library, self.prepare, self.load_networks):
            start = time.perf_counter()
            step()
            marks.append(time.perf_counter() - start)
        self.start_up = {"import_s": marks[0], "load_s": marks[2]}
        self.count_work()
        restart_peaks()

    def import_library(self) -> None:
        """What a program would import."""

    def prepare(self) -> None:
        """Bring the workload's weights into a form that it can load; not part of its start-up."""

    def load_networks(self) -> None:
        """Load until it could speak."""

    def count_work(self) -> None:
        """Fill in `work`."""

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        """Speak once.

        Args:
            seconds: another length than the workload's.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free its memory; it cannot speak any more."""

    def memory(self) -> dict[str, Any]:
        """The most that was in use since it was loaded: "rss_bytes", and "device_bytes" or None."""
        return read_peaks()

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        """Speak once more and write a trace of it. Raises: NotRun for those that have none."""
        raise NotRun(f"there is no trace of {self.name}")


class Ours(Backend):
    """barkfast; `start`, and what follows it, needs no `load`."""

    name = OURS

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload.resolve())
        self.bark: Bark | None = None

    def import_library(self) -> None:
        import barkfast

        self.version = barkfast.__version__

    def load_networks(self) -> None:
        self.bark = open_bark(self.workload)
        self.bark.load()
        self.dtype = self.workload.dtype

    def count_work(self) -> None:
        self.work = count_work(self.loaded, self.workload)

    @property
    def loaded(self) -> "Bark":
        """The model. Raises: NotRun before `load`."""
        if self.bark is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        return self.bark

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        return speak(self.loaded, self.workload, seed, seconds=seconds)

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        from barkfast.bench.trace import Tracer

        tracer = Tracer(self.workload.device, kernels=self.workload.device.startswith("cuda"))
        with tracer.watch():
            speak(self.loaded, self.workload, seed, tracer=tracer)
        tracer.write(Path(path))

    def close(self) -> None:
        if self.bark is not None:
            self.bark.components.drop()
        self.bark = None

    def start(self) -> None:
        """Be ready for the methods below."""

    def check(self) -> list[dict[str, Any]]:
        """The lines of the check, as dicts. Raises: EngineError if the engine cannot run one of the networks."""
        from barkfast.bench.check import check

        return [asdict(line) for line in check(self.workload)]

    def limits(self) -> "list[Limits]":
        """The machine's limits in the dtype of the networks, and in the codec's."""
        from barkfast.bench.measure import measure_limits

        device, dtype = self.workload.device, self.workload.dtype
        codec = "float16" if self.workload.engine == "cuda" and dtype != "float32" else "float32"
        limits = measure_limits(device, dtype)
        return [limits, limits if codec == dtype else measure_limits(device, codec, seconds=CODEC_LIMIT_S)]

    def share(self, folder: str) -> str:
        """Write the model into a new folder that every peer can open, and return the folder."""
        from barkfast.weights.convert import convert

        own = tokenizer_of(self.workload.open()) is None
        voices, small = self.workload.voice not in (NO_VOICE, FULL_VOICE), self.workload.small
        return str(convert(self.workload.model, Path(folder), "float32", voices=voices, small=small, tokenizer=own))

    def batches(self, batches: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of `barkfast.bench.measure.time_batches`."""
        from barkfast.bench.measure import time_batches

        return time_batches(self.workload, batches)


def check_peers(names: Sequence[str]) -> None:
    """Raise InputError for a name that is no peer's."""
    for name in names:
        if name not in PEER_NAMES:
            raise InputError(f"unknown peer {name!r}; expected one of {', '.join(PEER_NAMES)}")
