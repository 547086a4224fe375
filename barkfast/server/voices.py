"""Voices by the names that clients send: the model's own, OpenAI's, and those that the server's owner gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from barkfast.errors import VoiceError
from barkfast.server.errors import ApiError
from barkfast.voices import load_voice

# OpenAI's voices, as presets of Suno's English speakers that come near in pitch and pace.
OPENAI = {
    "alloy": 6,
    "ash": 3,
    "ballad": 5,
    "cedar": 0,
    "coral": 9,
    "echo": 8,
    "fable": 7,
    "marin": 9,
    "nova": 9,
    "onyx": 1,
    "sage": 4,
    "shimmer": 9,
    "verse": 2,
}
DEFAULT = "default"
# How many names an error suggests.
SUGGESTED = 5


@dataclass(frozen=True)
class VoiceTable:
    """The names of a server's voices.

    Args:
        own: of the model's voices, as `voice=` takes them.
        aliases: other names -> own ones, or files.
        default: the voice of a request without one; None for the model's own draw.
    """

    own: tuple[str, ...]
    aliases: Mapping[str, str]
    default: str | None

    def resolve(self, name: str | None, field: str = "voice") -> str | None:
        """The voice to speak with. Raises: ApiError 400 with the nearest names; `field` named the voice."""
        if name is None:
            return self.default
        if name in self.aliases:
            return self.aliases[name]
        if name in self.own:
            return name
        if name.lower() == DEFAULT:
            return self.default
        known = self.names()
        near = get_close_matches(name[:100], known, SUGGESTED, cutoff=0.3) or known[:SUGGESTED]
        raise ApiError(
            400,
            f"there is no voice {name[:100]!r}; near it are {', '.join(near)}; GET /v1/audio/voices lists all",
            "voice_not_found",
            field,
        )

    def names(self) -> list[str]:
        """All names that a request may send, the short ones first."""
        return list(dict.fromkeys([DEFAULT, *self.aliases, *self.own]))

    def language_of(self, name: str) -> str | None:
        """The language in the name of one of Suno's presets, such as "de" of v2/de_speaker_3."""
        own = self.default if name == DEFAULT else self.aliases.get(name, name)
        stem = (own or "").rpartition("/")[2]
        return stem.partition("_speaker_")[0] if "_speaker_" in stem else None

    def extend(self, files: Mapping[str, str]) -> "VoiceTable":
        """The same with further aliases."""
        return replace(self, aliases={**self.aliases, **files})


def make_table(own: Iterable[str], aliases: Mapping[str, str], default: str | None) -> VoiceTable:
    """The table of a model whose voices have these names.

    OpenAI's names stand for Suno's English presets where the model has those, else for its own voices in turn.

    Args:
        aliases: the owner's; they go before OpenAI's. Each stands for another name, or for an .npz file.
        default: the owner's choice, by any name; None for the first English voice, if there is one.

    Raises:
        VoiceError: an alias or the default stands for no voice.
    """
    names = tuple(dict.fromkeys(own))
    english = [name for name in names if "en_speaker_" in name] or list(names)
    openai = {}
    for i, (name, number) in enumerate(OPENAI.items()):
        preset = f"v2/en_speaker_{number}"
        if preset in names:
            openai[name] = preset
        elif english:
            openai[name] = english[i % len(english)]

    def find(asked: str, option: str, known: Mapping[str, str]) -> str:
        if asked in known or asked in names:
            return known.get(asked, asked)
        if asked.endswith(".npz"):
            load_voice(asked)
            return asked
        near = get_close_matches(asked, [*known, *names], 1, cutoff=0.3) or names[:1]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise VoiceError(f"{option} names {asked!r}, which is no voice of this model{hint}")

    given = {name: find(target, f"--voice-alias {name}", openai) for name, target in aliases.items()}
    table = {**given, **{name: voice for name, voice in openai.items() if name not in given}}
    chosen = find(default, "--voice", table) if default else next(iter(english), None)
    return VoiceTable(names, table, chosen)
