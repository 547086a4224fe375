"""torch, loaded whatever the current folder is: in one that was deleted MKL would end the process."""

import os


def _load_torch() -> None:
    try:
        os.getcwd()
    except OSError:
        here = os.open(".", os.O_RDONLY)
        os.chdir(os.sep)
        try:
            import torch  # noqa: F401
        finally:
            os.fchdir(here)
            os.close(here)


_load_torch()
