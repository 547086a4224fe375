"""Whether this interpreter can run `make gpu` as it is, and else what it lacks; needs nothing installed to say so."""

import importlib.util

MIN_TRITON = (3, 4)
# Imported by barkfast for a model with random weights, or by the tests.
NEEDED = ("numpy", "tokenizers", "safetensors", "huggingface_hub", "tqdm", "pytest")


def find_lack(smoke: bool) -> str | None:
    """What is missing, or None. A smoke test needs no GPU."""
    try:
        import torch
        import triton
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not smoke and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    if tuple(map(int, triton.__version__.split(".")[:2])) < MIN_TRITON:
        return f"Triton {triton.__version__} is too old, 3.4 or newer is needed"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"no {', '.join(missing)}" if missing else None
