"""One start of a model, a process by itself: `python -m benchmarks.cpu.loading MODEL DTYPE TOKENIZER` prints JSON."""

import time

BEGIN = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402

from barkfast.bark import Bark  # noqa: E402
from barkfast.config import Sampling  # noqa: E402


def main() -> None:
    """Seconds until barkfast is imported, then until all networks are there, then for the first token."""
    model, dtype, tokenizer = sys.argv[1:]
    imported = time.perf_counter()
    bark = Bark(model, device="cpu", engine="cpu", dtype=dtype, tokenizer=tokenizer)
    bark.load()
    loaded = time.perf_counter()
    bark.generate_semantic("a word", None, Sampling(0.7), max_duration_s=0.02, allow_early_stop=False, seed=0)
    spoken = time.perf_counter()
    seconds = {"import_s": imported - BEGIN, "load_s": loaded - imported, "first_token_s": spoken - loaded}
    print(json.dumps({name: round(value, 4) for name, value in seconds.items()}))


if __name__ == "__main__":
    main()
