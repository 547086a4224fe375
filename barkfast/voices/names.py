"""The names of Suno's voices."""

SUPPORTED_LANGS = [
    ("English", "en"),
    ("German", "de"),
    ("Spanish", "es"),
    ("French", "fr"),
    ("Hindi", "hi"),
    ("Italian", "it"),
    ("Japanese", "ja"),
    ("Korean", "ko"),
    ("Polish", "pl"),
    ("Portuguese", "pt"),
    ("Russian", "ru"),
    ("Turkish", "tr"),
    ("Chinese", "zh"),
]
# The names that `bark` accepts. It also ships speaker_0 to speaker_9, but accepts no name for them.
VOICE_NAMES = frozenset(
    ["announcer"]
    + [f"{folder}{lang}_speaker_{n}" for folder in ("", "v2/") for _, lang in SUPPORTED_LANGS for n in range(10)]
)
UNNAMED_IN_BARK = frozenset(f"speaker_{n}" for n in range(10))
