"""Who is measured: barkfast, and with the same words for each of them its peers."""

import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.bench.case import Case, Clip, open_bark, speak
from barkfast.bench.memory import read_peaks, restart_peaks
from barkfast.bench.trace import Tracer
from barkfast.bench.work import Work, count_work

OURS, TORCH = "barkfast", "torch"


class NotRun(Exception):
    """A contender cannot take part here; the message says why."""


class NotInstalled(NotRun):
    """A contender's package is not there; the message says how to install it."""


class Contender(ABC):
    """Something that speaks a case's clip, and says how long each stage took.

    Args:
        name, version, dtype: what it is; the version and the dtype are known once it is loaded.
        start_up: seconds that its imports and the loading of its networks took, "import_s" and "load_s".
        work: what each stage must read and compute, where that is known.
    """

    name = ""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.version: str | None = None
        self.dtype = ""
        self.start_up: dict[str, float] | None = None
        self.work: dict[str, Work] = {}

    def load(self) -> None:
        """Import it, make what it needs from the case's model, and load that.

        Errors: NotRun, NotInstalled; those of opening the model.
        """
        marks = [time.perf_counter()]
        self.import_library()
        marks.append(time.perf_counter())
        self.prepare()
        marks.append(time.perf_counter())
        self.load_networks()
        marks.append(time.perf_counter())
        self.start_up = {"import_s": marks[1] - marks[0], "load_s": marks[3] - marks[2]}
        self.settle()
        restart_peaks()

    @abstractmethod
    def import_library(self) -> None:
        """What a program would import."""

    def prepare(self) -> None:  # noqa: B027 (not every contender needs it)
        """Bring the case's weights into a form that it can load; nobody's start-up."""

    @abstractmethod
    def load_networks(self) -> None:
        """Until it could speak."""

    def settle(self) -> None:  # noqa: B027
        """What is still to be found out before the first clip, at nobody's cost."""

    @abstractmethod
    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        """Speak once.

        Args:
            seconds: another length than the case's.
        """

    @abstractmethod
    def close(self) -> None:
        """Give its memory back; it cannot speak any more."""

    def memory(self) -> dict[str, Any]:
        """The most that was in use since it was loaded: "rss_bytes", and "device_bytes" or None."""
        return read_peaks()

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        """Speak once more and write a trace of it. Errors: NotRun for those that have none."""
        raise NotRun(f"there is no trace of {self.name}")


class Ours(Contender):
    """barkfast."""

    name = OURS

    def __init__(self, case: Case) -> None:
        super().__init__(case.resolve())
        self.bark: Bark | None = None

    def import_library(self) -> None:
        import barkfast

        self.version = barkfast.__version__

    def load_networks(self) -> None:
        self.bark = open_bark(self.case)
        self.bark.load()
        self.dtype = self.case.dtype

    def settle(self) -> None:
        self.work = count_work(self.loaded, self.case)

    @property
    def loaded(self) -> Bark:
        """The model. Errors: NotRun before `load`."""
        if self.bark is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        return self.bark

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        return speak(self.loaded, self.case, seed, seconds=seconds)

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        tracer = Tracer(self.case.device, kernels=self.case.device.startswith("cuda"))
        with tracer.watch(self.loaded):
            speak(self.loaded, self.case, seed, tracer=tracer)
        tracer.write(Path(path))

    def close(self) -> None:
        if self.bark is not None:
            self.bark.components.drop()
        self.bark = None


def use_threads(case: Case) -> None:
    """Let torch use as many threads of the CPU as barkfast's engines do, in this process."""
    from barkfast.bench.processor import count_threads

    if case.resolve().device == "cpu":
        torch.set_num_threads(count_threads())
