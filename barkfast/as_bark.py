"""Run programs written for `bark` unchanged: `python -m barkfast.as_bark script.py ...`, or `-m module ...`.

`import bark` then returns barkfast. Both names share the module objects: `bark.generation` is `barkfast.generation`.
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from barkfast import install_as_bark

__all__ = ["install_as_bark", "main"]

USAGE = "usage: python -m barkfast.as_bark [-m MODULE | SCRIPT] [ARGUMENTS...]"


def main(argv: Sequence[str] | None = None) -> None:
    """Run a script or a module, as `python` does, with barkfast in place of `bark`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_module = arguments[:1] == ["-m"]
    rest = arguments[1:] if as_module else arguments
    if not rest or (not as_module and rest[0].startswith("-")):
        raise SystemExit(USAGE)
    install_as_bark()
    sys.argv = rest
    if as_module:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    script = Path(rest[0])
    if not script.exists():
        raise SystemExit(f"{script} does not exist; {USAGE}")
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
