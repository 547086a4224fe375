"""Read numpy's .npy and .npz files without numpy.load, which a program may have replaced to allow pickles."""

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.lib import format as npy


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        ValueError: it is not an .npy file, or holds Python objects, which need a pickle.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return npy.read_array(file, allow_pickle=False)


def list_npz(path: Path) -> list[str]:
    """The names of the arrays in an .npz file. Raises: as `read_npz`."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz(path: Path, key: str) -> np.ndarray:
    """One array of an .npz file.

    Raises:
        KeyError: there is no such array.
        ValueError: it is not an array, or holds Python objects, which need a pickle.
        OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError: the file is damaged, or
            of a kind that zipfile cannot read.
    """
    with zipfile.ZipFile(path) as archive, archive.open(_member(archive.namelist(), key)) as file:
        return npy.read_array(file, allow_pickle=False)


def _member(names: Collection[str], key: str) -> str:
    return f"{key}.npy" if f"{key}.npy" in names else key
