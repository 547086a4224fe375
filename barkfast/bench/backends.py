"""Who is measured: barkfast, and with the same words for each of them its peers."""

import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch

from barkfast.bark import Bark
from barkfast.bench.machine import read_peaks, restart_peaks
from barkfast.bench.roofline import Work, count_work
from barkfast.bench.trace import Tracer
from barkfast.bench.workload import Clip, Workload, open_bark, speak

OURS, TORCH = "barkfast", "torch"


class NotRun(Exception):
    """A backend cannot take part here; the message says why."""


class NotInstalled(NotRun):
    """A contender's package is not there; the message says how to install it."""


class Backend(ABC):
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

    def prepare(self) -> None:  # noqa: B027 (not every backend needs it)
        """Bring the workload's weights into a form that it can load; nobody's start-up."""

    @abstractmethod
    def load_networks(self) -> None:
        """Until it could speak."""

    def settle(self) -> None:  # noqa: B027
        """What is still to be found out before the first clip, at nobody's cost."""

    @abstractmethod
    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        """Speak once.

        Args:
            seconds: another length than the workload's.
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


class Ours(Backend):
    """barkfast."""

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

    def settle(self) -> None:
        self.work = count_work(self.loaded, self.workload)

    @property
    def loaded(self) -> Bark:
        """The model. Errors: NotRun before `load`."""
        if self.bark is None:
            raise NotRun(f"{self.name} is not loaded; call load() first")
        return self.bark

    def speak(self, seed: int, seconds: float | None = None) -> Clip:
        return speak(self.loaded, self.workload, seed, seconds=seconds)

    def trace(self, path: str | os.PathLike[str], seed: int) -> None:
        tracer = Tracer(self.workload.device, kernels=self.workload.device.startswith("cuda"))
        with tracer.watch(self.loaded):
            speak(self.loaded, self.workload, seed, tracer=tracer)
        tracer.write(Path(path))

    def close(self) -> None:
        if self.bark is not None:
            self.bark.components.drop()
        self.bark = None


def use_threads(workload: Workload) -> None:
    """Let torch use as many threads of the CPU as barkfast's engines do, in this process."""
    from barkfast.bench.machine import count_threads

    if workload.resolve().device == "cpu":
        torch.set_num_threads(count_threads())
