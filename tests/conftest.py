"""Set-up for every test: no network, none of the user's caches or settings, and GPU tests only where there is one."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

# huggingface_hub reads these when it is first imported, so they are set before any test module is.
_HOME = tempfile.mkdtemp(prefix="barkfast-tests-")
for _name in [name for name in os.environ if name.startswith(("BARKFAST_", "SUNO_", "HF_", "HUGGINGFACE_"))]:
    del os.environ[_name]
os.environ.update(
    HF_HOME=os.path.join(_HOME, "huggingface"),
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    XDG_CACHE_HOME=os.path.join(_HOME, "cache"),
    TOKENIZERS_PARALLELISM="false",
    # The networks under test are small: more threads would only wait for one another, in sub-processes too.
    OMP_NUM_THREADS="1",
)

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

# Kernels are compiled where there is a GPU and interpreted elsewhere; they read this when they are first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# So that a checkout can be tested in place, without an install.
sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in (".", "kernels")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu`, with the reason, where torch sees no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch sees none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


def pytest_unconfigure() -> None:
    """Remove the session's caches."""
    shutil.rmtree(_HOME, ignore_errors=True)
