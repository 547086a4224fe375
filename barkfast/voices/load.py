"""Find a voice by name, path or dict."""

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from barkfast.checks import show
from barkfast.errors import MissingFileError, VoiceError
from barkfast.files import expand
from barkfast.voices.files import KEYS, read_npz
from barkfast.voices.locations import SUNO_REPO, has_suno_tokens, hub_location, local_locations
from barkfast.voices.names import UNNAMED_IN_BARK, VOICE_NAMES
from barkfast.voices.voice import LoadedVoice

if TYPE_CHECKING:
    from barkfast.weights import Checkpoint


def _find_nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name most similar to `name`, ignoring case; None if none is similar."""
    known = {n.lower(): n for n in sorted(names)}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
    return known[near[0]] if near else None


# What programs that cannot send None send for "no voice".
_NO_VOICE = ("", "none", "null", "nil", "undefined", "unconditional", "no voice")
_MAKE_ONE = "Bark.save_voice, or `barkfast say --save-voice FILE.npz`, makes a voice of what was spoken"
# Suffixes of files that users mistake for voices -> what such a file is.
_NOT_VOICES = {
    (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus"): f"a recording, and voices are tokens; {_MAKE_ONE}",
    (".pt", ".pth", ".th", ".ckpt", ".pkl", ".bin", ".safetensors"): (
        f"a file of tensors, and a voice is an .npz file with {', '.join(KEYS)}; write those arrays with numpy.savez"
    ),
    (".npy",): f"a single array, and a voice is an .npz file with {', '.join(KEYS)}; write all three with numpy.savez",
    (".json", ".txt", ".yaml", ".csv", ".zip"): f"no .npz file with {', '.join(KEYS)}; {_MAKE_ONE}",
}


def _refuse(asked: str) -> None:
    """Raise VoiceError for what cannot name a voice: a word for "none", a file of another kind, a folder."""
    if asked.strip().lower() in _NO_VOICE:
        raise VoiceError(
            f"voice is {asked!r}, which names no voice; expected a name such as 'v2/en_speaker_6' or the path of an "
            ".npz file. To speak without a voice pass None, or leave the option out on the command line"
        )
    path = expand(asked)
    for suffixes, what in _NOT_VOICES.items():
        if path.suffix.lower() in suffixes:
            raise VoiceError(f"voice {asked!r} is {what}")
    if path.is_dir():
        raise VoiceError(f"voice {asked!r} is a folder; give it as voices= or BARKFAST_VOICES, and here a name in it")
    if path.is_file():
        raise VoiceError(f"voice {asked!r} is a file that does not end in .npz; {_MAKE_ONE}")


def _load_by_name(asked: str, checkpoint: "Checkpoint | None", folder: str | os.PathLike[str] | None) -> LoadedVoice:
    name = asked.replace(os.sep, "/")
    locations = local_locations(checkpoint, folder)
    for location in locations:
        if name in location.names:
            return location.load(name)
    _refuse(asked)
    looked = [location.description for location in locations]
    known = VOICE_NAMES | UNNAMED_IN_BARK
    try:
        hub = hub_location(name, checkpoint)
        if hub is not None:
            if name in hub.names:
                return hub.load(name)
            looked.append(hub.description)
            known |= hub.names
    except MissingFileError as error:
        looked.append(f"the hub ({error})")
    where = "; ".join(looked) or "no place: there is no folder of voices"
    if name in known and checkpoint is not None and not has_suno_tokens(checkpoint):
        raise VoiceError(
            f"voice {asked!r} is one of Suno's, and {checkpoint.name} has other tokens, so it does not fit; "
            f"looked in: {where}. `barkfast voices --model {checkpoint.name}` lists those that do"
        )
    if name in known:
        raise VoiceError(
            f"voice {asked!r} is one of Suno's, but it is not here; looked in: {where}. Set BARKFAST_VOICES to a "
            "folder with Suno's .npz presets, install the bark package, or give the path of an .npz file"
        )
    nearest = _find_nearest(name, known.union(*(location.names for location in locations)))
    hint = f"did you mean {nearest!r}? " if nearest else ""
    raise VoiceError(
        f"voice {asked!r} is unknown; {hint}Looked in: {where}. "
        "`barkfast voices` lists the names; a file is given by a path that ends in .npz"
    )


def load_voice(
    voice: Any, checkpoint: "Checkpoint | None" = None, folder: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray] | None:
    """Find and read a voice. Its arrays are not checked: that needs the model's layout (`check_voice`).

    Args:
        voice: None, a mapping of the three arrays, a path ending in .npz, or a name such as "v2/en_speaker_6".
        checkpoint: the model, whose folder or hub repository may hold voices.
        folder: a folder of voices to look in first.

    Names are searched for in `folder`, the model's folder, $BARKFAST_VOICES, an installed `bark` package, and the hub.

    Raises:
        VoiceError: unknown name (the message has the nearest name and the locations searched), or an unreadable file.
    """
    if voice is None:
        return None
    if isinstance(voice, LoadedVoice):
        return voice
    if isinstance(voice, Mapping):
        return LoadedVoice(voice, "the voice given as a dict")
    if isinstance(voice, os.PathLike):
        voice = os.fsdecode(voice)
        if not voice.endswith(".npz"):
            _refuse(voice)
            raise VoiceError(f"voice file {voice!r} does not end in .npz; names are given as a str")
    if not isinstance(voice, str):
        raise VoiceError(
            f"voice is {show(voice)}; expected a name such as 'v2/en_speaker_6', "
            f"the path of an .npz file, or a dict with {', '.join(KEYS)}"
        )
    if voice.endswith(".npz"):
        return read_npz(expand(voice))
    return _load_by_name(voice, checkpoint, folder)


def find_voices(checkpoint: "Checkpoint | None" = None, folder: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """Voice name -> where it would be loaded from. Suno's voices that are not on this machine come from the hub."""
    found: dict[str, str] = {}
    for location in local_locations(checkpoint, folder):
        for name in location.names:
            found.setdefault(name, location.description)
    if has_suno_tokens(checkpoint):
        repo = (checkpoint.repo if checkpoint else None) or SUNO_REPO
        for name in VOICE_NAMES:
            found.setdefault(name, f"{repo} on the hub (fetched when asked for)")
    return dict(sorted(found.items()))
