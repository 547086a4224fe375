"""Voices that clients upload: .npz files in one folder, checked as every voice is."""

import re
import tempfile
from contextlib import suppress
from pathlib import Path

from barkfast.config import Layout
from barkfast.errors import VoiceError
from barkfast.server.errors import ApiError
from barkfast.voices import check_voice, load_voice, save_voice

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME_PATTERN = f"^{NAME.pattern}$"
# Bytes of a file: Suno's presets have a tenth of a megabyte.
MOST_BYTES = 8 << 20


class Uploads:
    """The voices of one folder.

    Args:
        folder: it is made with the first voice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> dict[str, str]:
        """Name -> path."""
        return {path.stem: str(path) for path in sorted(self.folder.glob("*.npz")) if NAME.fullmatch(path.stem)}

    def add(self, name: str, content: bytes, layout: Layout) -> None:
        """Keep a voice. Raises: ApiError 400 if it is none, or not one of a model of this layout."""
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            file.write(content)
            file.flush()
            try:
                voice = load_voice(file.name)
                assert voice is not None
                check_voice(voice, layout)
            except VoiceError as error:
                # The client must not learn where it was.
                raise ApiError(400, str(error).replace(file.name, f"{name}.npz"), "invalid_voice") from None
        self.folder.mkdir(parents=True, exist_ok=True)
        save_voice(self.folder / f"{name}.npz", voice)

    def remove(self, name: str) -> bool:
        """Delete a voice; whether there was one."""
        with suppress(FileNotFoundError):
            (self.folder / f"{name}.npz").unlink()
            return True
        return False
