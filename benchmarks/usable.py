"""Exit with status 0 if this interpreter can run `make gpu` as it is; else say what it lacks.

Needs nothing installed: `python -m benchmarks.usable` from the root of the repository.
"""

import importlib.util
import sys

MIN_TRITON = (3, 4)
# Imported by barkfast for a model with random weights, or by the tests.
NEEDED = ("numpy", "tokenizers", "safetensors", "huggingface_hub", "tqdm", "pytest")


def find_lack() -> str | None:
    """What is missing, or None."""
    try:
        import torch
        import triton
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    if tuple(map(int, triton.__version__.split(".")[:2])) < MIN_TRITON:
        return f"Triton {triton.__version__} is too old, 3.4 or newer is needed"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"no {', '.join(missing)}" if missing else None


if __name__ == "__main__":
    lack = find_lack()
    if lack:
        print(f"{sys.executable} cannot run the GPU tests as it is: {lack}", file=sys.stderr)
    sys.exit(1 if lack else 0)
