"""Fetch single files from the Hugging Face hub: cache first, resumable, verified, only what is needed."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from barkfast.errors import CheckpointError, MissingFileError
from barkfast.files import hash_file


@dataclass(frozen=True)
class KnownFile:
    """A published file: its SHA-256, and its size in GB (10^9 bytes) as the hub rounds it."""

    sha256: str
    size_gb: float


KNOWN_FILES = {
    ("suno/bark", "text.pt"): KnownFile("ecd798cf39a5ecbec30ef41a3d9d63fb61ea09b78d3bd5dfebb2f7343087b1be", 2.32),
    ("suno/bark", "coarse.pt"): KnownFile("110580140ce5319b5b26849e24378d7594eb75ad11e7203e3091a876a07e4536", 1.25),
    ("suno/bark", "fine.pt"): KnownFile("7ec1eb35cd3e21506b0c045ded225271d9a25d9fa608662585cfd749590a0eac", 1.11),
    ("suno/bark", "text_2.pt"): KnownFile("ccdedd35373bc3a16845f1f1452c5c96926f5cbccab01e824f7f15add2c16a35", 5.35),
    ("suno/bark", "coarse_2.pt"): KnownFile("286abc253d4d7f4d148325df07585f7ca4fca36ce40577a1ddd744a8b35e4388", 3.93),
    ("suno/bark", "fine_2.pt"): KnownFile("799c87afab4b01537094c63ea231f2c42c9c07aeb16773690540ad251a6d8fab", 3.74),
    ("suno/bark", "pytorch_model.bin"): KnownFile(
        "4e3d407b9b3b619da184c85786c88e5e35f90f9089303e16db696ed0be477989", 4.49
    ),
    ("suno/bark-small", "pytorch_model.bin"): KnownFile(
        "f0f7f16b24f65789ce42b3c491aa6a1cdf219f7ef425066fcd194485245e65d9", 1.68
    ),
}

_REPO_ID = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")

# Failures are remembered: otherwise a machine without a network would wait again for every optional file.
_RETRY_AFTER_S = 60.0
_unreachable: tuple[float, str] | None = None
_answered = False


class FileNotInRepoError(MissingFileError):
    """The hub answered: this repository has no such file."""


def is_repo_id(name: str) -> bool:
    """Whether a name has the form of a hub repository, `owner/name`."""
    return "/" in name and _is_valid(name)


def hub_cache() -> Path:
    """The folder in which huggingface_hub stores its downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def fetch_from_hub(repo: str, filename: str, *, optional: bool = False) -> Path | None:
    """Return the local path of one file of a hub repository, from the cache or downloaded into it.

    A cached file is used without asking the hub; HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN apply. Files whose
    SHA-256 is known are checked after a download. Raises: MissingFileError, CheckpointError (wrong hash or size).

    Args:
        optional: return None, instead of raising MissingFileError, if the file does not exist or cannot be fetched.
    """
    try:
        return fetch_required(repo, filename)
    except MissingFileError:
        if optional:
            return None
        raise


def fetch_required(repo: str, filename: str) -> Path:
    """As `fetch_from_hub`, but raises FileNotInRepoError, a MissingFileError, if the repository lacks the file."""
    from huggingface_hub import try_to_load_from_cache

    if not _is_valid(repo) or filename.startswith("/") or ".." in Path(filename).parts:
        raise MissingFileError(f"{filename!r} of {repo!r} is not a hub file; expected owner/name and a relative path")
    cached = try_to_load_from_cache(repo, filename, cache_dir=hub_cache())
    if isinstance(cached, str):
        _check_size(repo, filename, Path(cached))
        return Path(cached)
    if cached is not None:
        raise FileNotInRepoError(f"{repo} on the Hugging Face hub has no file {filename}")
    path = _download(repo, filename)
    _check_hash(repo, filename, path)
    return path


def fetch_many_from_hub(repo: str, patterns: list[str]) -> Path:
    """Fetch all files of a repository that match, and return the local folder that mirrors it.

    Without a network the folder holds only what is cached. Raises: MissingFileError if nothing is.
    """
    from huggingface_hub import constants, snapshot_download

    offline = constants.HF_HUB_OFFLINE or _is_resting()
    _check_home(repo, " and ".join(patterns))
    try:
        found = snapshot_download(repo, allow_patterns=patterns, cache_dir=hub_cache(), local_files_only=offline)
        return Path(found)
    except Exception as error:
        # Broken connections and full disks raise errors of the transport that huggingface_hub uses.
        raise _not_reachable(repo, " and ".join(patterns), _first_line(error)) from error


def _is_valid(repo: str) -> bool:
    # A few old repositories, bert-base-multilingual-cased among them, have no owner in their name.
    return _REPO_ID.fullmatch(repo) is not None and ".." not in repo


def _is_resting() -> bool:
    """Whether the hub was unreachable less than `_RETRY_AFTER_S` ago."""
    return _unreachable is not None and time.monotonic() - _unreachable[0] < _RETRY_AFTER_S


def _download(repo: str, filename: str) -> Path:
    """Download one file; huggingface_hub resumes an interrupted download."""
    global _unreachable
    from huggingface_hub import constants, errors, hf_hub_download

    _check_home(repo, filename)
    offline = constants.HF_HUB_OFFLINE
    if not offline and _unreachable and _is_resting():
        raise _not_reachable(repo, filename, _unreachable[1])
    try:
        if not offline:
            _ask_once(repo, filename)
        return Path(hf_hub_download(repo, filename, cache_dir=hub_cache(), local_files_only=offline))
    except errors.LocalEntryNotFoundError as error:
        if offline:
            raise _not_reachable(repo, filename, "offline mode is on (HF_HUB_OFFLINE)") from error
        reason = _first_line(error.__cause__ or error)
        _unreachable = (time.monotonic(), reason)
        raise _not_reachable(repo, filename, reason) from error
    except errors.EntryNotFoundError as error:
        raise FileNotInRepoError(f"{repo} on the Hugging Face hub has no file {filename}") from error
    except errors.RepositoryNotFoundError as error:
        raise MissingFileError(
            f"the Hugging Face hub has no repository {repo!r} that you may read; check the name, or log in with "
            f"`hf auth login` if it is private or gated"
        ) from error
    except Exception as error:
        # As above.
        raise _not_reachable(repo, filename, _first_line(error)) from error


def _check_home(repo: str, filename: str) -> None:
    """Raise MissingFileError if huggingface_hub has no cache folder, because there is no home folder."""
    if hub_cache().parts[:1] == ("~",):
        raise _not_reachable(repo, filename, "this process has no home folder; set HF_HOME to a folder to keep it in")


def _ask_once(repo: str, filename: str) -> None:
    """Raise LocalEntryNotFoundError if the hub has not answered this process yet, and does not answer now.

    huggingface_hub alone retries six times: 20 seconds without a network, minutes on a network that drops packets.
    """
    global _answered
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    if _answered:
        return
    try:
        get_hf_file_metadata(hf_hub_url(repo, filename), timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except errors.HfHubHTTPError:
        # Any HTTP answer shows that the hub is reachable.
        pass
    except Exception as error:
        # An error of the transport that huggingface_hub uses.
        raise errors.LocalEntryNotFoundError("the hub does not answer") from error
    _answered = True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _not_reachable(repo: str, filename: str, reason: str) -> MissingFileError:
    return MissingFileError(
        f"{filename} of {repo} is neither in the Hugging Face cache ({hub_cache()}) nor can it be fetched: {reason}"
    )


def _check_size(repo: str, filename: str, path: Path) -> None:
    """A cheap check of files already in the cache; hashing gigabytes at every start would take seconds."""
    known = KNOWN_FILES.get((repo, filename))
    size = path.stat().st_size
    if known and abs(size / 1e9 - known.size_gb) > 0.006:
        raise CheckpointError(
            f"{path} has {size} bytes, but {filename} of {repo} has about {known.size_gb} GB; it is damaged or "
            f"incomplete. Delete it (and {path.resolve()}) and fetch it again"
        )


def _check_hash(repo: str, filename: str, path: Path) -> None:
    known = KNOWN_FILES.get((repo, filename))
    if known is None:
        return
    found = hash_file(path)
    if found == known.sha256:
        return
    # Delete the new download: later calls trust the cache.
    blob = path.resolve()
    path.unlink()
    if blob != path:
        blob.unlink(missing_ok=True)
    raise CheckpointError(
        f"{filename} of {repo} arrived damaged or altered: SHA-256 expected {known.sha256}, found {found}. The "
        f"download was deleted from the cache ({os.fspath(path)}); fetch it again, and if that repeats, do not use it"
    )
