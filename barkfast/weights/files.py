"""Read tensors and json from files, memory-mapped where possible, without running code from pickles."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from barkfast.errors import CheckpointError, MissingFileError

Tensors = dict[str, torch.Tensor]

# torch's list of safe globals is shared by the process, so files are opened one at a time.
_OPENING = threading.Lock()


def read_tensors(path: Path, wanted: Callable[[str], bool] = lambda key: True) -> Tensors:
    """The tensors with a wanted key in a .safetensors file, or in a pickle that holds a plain dict of tensors."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path, wanted)
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a dict of tensors")
    if isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor) and wanted(key)}


def list_keys(path: Path) -> list[str]:
    """Names of the tensors in a .safetensors file, or in a pickle that holds a plain dict."""
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return list(file.keys())
    return list(read_tensors(path))


def load_pickle(path: Path) -> Any:
    """Load a torch file with torch's restricted unpickler: tensors, containers and numpy scalars, nothing else.

    Memory-mapped, so what is not used (optimizer state: two thirds of Suno's files) is never read; files in torch's
    old format, which is not a zip archive, cannot be mapped and are read whole.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is damaged, or tries to run code.
    """
    _check_readable(path)
    try:
        with _OPENING, _allowing_numpy_scalars():
            return _unpickle(path)
    except Exception as error:
        # Only the text of torch's message tells a forbidden global from a damaged file.
        if match := re.search(r"\bGLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} is a pickle that calls {match[1]!r}, which weights do not need; it was refused and nothing "
                f"in it was run. Get the weights from a source you trust, as safetensors where there is a choice"
            ) from error
        raise _damaged(path, error) from error


def _unpickle(path: Path) -> Any:
    """What `torch.load(path, weights_only=True)` does, without going through `torch.load`.

    Many programs replace `torch.load` by a function that forces `weights_only=False`. The functions called here have no
    such option: the unpickler is an argument.
    """
    restricted: Any = torch._weights_only_unpickler
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            return torch.serialization._legacy_load(file, "cpu", restricted, encoding="utf-8")
    storage = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    with torch.serialization._open_zipfile_reader(str(path)) as archive:
        return torch.serialization._load(archive, "cpu", restricted, overall_storage=storage, encoding="utf-8")


@contextmanager
def _allowing_numpy_scalars() -> Iterator[None]:
    """In the block torch's restricted unpickler accepts numpy scalars; the program's own safe globals are kept."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(_safe_globals())
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def read_json(path: Path) -> dict[str, Any]:
    """A json file that holds an object. Raises: MissingFileError, CheckpointError."""
    _check_readable(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a json {type(content).__name__}; expected an object")
    return content


def _read_safetensors(path: Path, wanted: Callable[[str], bool]) -> Tensors:
    with _open_safetensors(path) as file:
        return {key: file.get_tensor(key) for key in file.keys() if wanted(key)}  # noqa: SIM118 (not a mapping)


def _open_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    _check_readable(path)
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist, or is not a file")
    with path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise CheckpointError(
                f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` in that folder, or download it"
            )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # Before its reason torch puts the advice to load the file without protection, which we do not repeat.
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    reason = (text.strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{path} ({path.stat().st_size} bytes) cannot be read: it is truncated, damaged or of another format "
        f"({reason[:200]}). Delete it and get it again"
    )


def _safe_globals() -> list[Any]:
    """What Suno's files need beyond tensors: `best_val_loss` is a numpy scalar, pickled under either module name."""
    scalar = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
    ]
