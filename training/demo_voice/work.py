"""The work folder of the pipeline: paths of outputs, times of stages, and files that are written atomically."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class Work:
    """A folder with one subfolder or file per stage, and `times/STAGE.json` beside them.

    `start` is the folder of an exported model, whose networks replace those that are not trained here.
    """

    def __init__(self, folder: Path, device: str = "cpu", start: Path | None = None) -> None:
        self.folder = folder
        self.device = device
        self.start = start
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The path of `name`; its folder is created."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_text(self, name: str, content: str) -> None:
        with replacing(self.path(name)) as partial:
            partial.write_text(content, encoding="utf-8")

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def save_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        with replacing(self.path(name)) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)

    def is_done(self, stage: str) -> bool:
        record = self.folder / "times" / f"{stage}.json"
        return record.is_file() and bool(json.loads(record.read_text())["done"])

    def record(self, stage: str, seconds: float, done: bool, facts: dict[str, Any] | None = None) -> None:
        """Add `seconds` to the total time of a stage; an interrupted and resumed stage counts every part."""
        name = f"times/{stage}.json"
        past = self.read_json(name) if (self.folder / name).is_file() else {"seconds": 0.0}
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        entry = {"stage": stage, "done": done, "seconds": round(past["seconds"] + seconds, 1), "last": now}
        self.write_text(name, json.dumps(past | entry | machine(self.device) | (facts or {}), indent=1) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` atomically at the end, so that a failure leaves the old file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def machine(device: str) -> dict[str, Any]:
    """The device and the versions of a measurement."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}


def words(text: str) -> list[str]:
    """Split a line into words."""
    return text.split()
