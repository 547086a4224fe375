"""What a section is told: where it runs, how much it may do, where its weights are."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gate import CUDA

if TYPE_CHECKING:
    import torch

# A label of a kernel variant in CUDA within a row's name.
CUDA_LABEL = re.compile(r"\bC\d+\b")


@dataclass(frozen=True)
class Plan:
    """One section's run.

    Args:
        smoke: with the smallest model and next to no repeats; what is for a GPU, in Triton's interpreter on the CPU.
        models: a folder with a converted model per size, made by the section `weights`; they may be missing.
        work: a folder for what a section leaves besides its rows.
        deadline: when the section will be ended, by time.monotonic().
        dtypes: those that the check found right; empty for all.
        threads: of the CPU, for what is measured on it; 0 for what is measured on a GPU.
        wrong: (dtype, kernels) that the check did not find right: a variant by its label, or "CUDA kernels", which are
            all variants whose labels begin with C; the dtype is empty for all.
    """

    smoke: bool
    models: Path
    work: Path
    deadline: float
    dtypes: tuple[str, ...] = ()
    threads: int = 0
    wrong: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, text: str) -> "Plan":
        """From JSON."""
        content = json.loads(text)
        paths = {name: Path(content[name]) for name in ("models", "work")}
        pairs = tuple(map(tuple, content["wrong"]))
        return cls(**content | paths | {"dtypes": tuple(content["dtypes"]), "wrong": pairs})

    @property
    def engine(self) -> str:
        """The engine that is measured: cpu or cuda."""
        return "cpu" if self.threads else "cuda"

    @property
    def device_name(self) -> str:
        """The device as barkfast's arguments name it."""
        return "cpu" if self.smoke or self.threads else "cuda"

    @property
    def device(self) -> "torch.device":
        # Only here: the process that runs the sections must not depend on torch.
        import torch

        return torch.device("cuda", torch.cuda.current_device()) if self.device_name == "cuda" else torch.device("cpu")

    @property
    def interpreted(self) -> bool:
        """Whether Triton's kernels run in its interpreter, which takes a second for a token."""
        return self.smoke and not self.threads

    @property
    def time_left(self) -> float:
        return self.deadline - time.monotonic()

    def size(self, name: str) -> str:
        """The size that is asked for; the smallest in a smoke test."""
        return "nano" if self.smoke else name

    @property
    def clip_s(self) -> float:
        """Length of the clip that is spoken, in seconds."""
        return 0.05 if self.smoke else 10.0

    def of_threads(self) -> str:
        """How a row's name ends where threads matter."""
        return f", {self.threads} threads" if self.threads else ""

    def allows(self, dtype: str) -> bool:
        return not self.dtypes or dtype in self.dtypes

    def why_refused(self, row: str, dtype: str | None) -> str | None:
        """Why a row may not be measured, by its name and dtype, if it may not."""
        if dtype is not None and not self.allows(dtype):
            return f"the correctness gate is red for {dtype}"
        for of_dtype, kernels in self.wrong:
            named = kernels in row or (kernels == CUDA and CUDA_LABEL.search(row) is not None)
            if named and (not of_dtype or of_dtype == dtype or of_dtype in row):
                return f"the correctness gate did not find {' '.join(filter(None, (kernels, of_dtype)))} right"
        return None
