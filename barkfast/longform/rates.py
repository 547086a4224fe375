"""How long a text takes to say, estimated from its characters."""

import re

# Characters per second, spaces and punctuation included.
#
# English is a measurement: the LJ Speech corpus, 1,308,674 characters read in 23:55:17. The others follow from it,
# because a text takes about the same time in any language (Coupé, Oh, Dediu and Pellegrino, "Different languages,
# similar encoding efficiency", Science Advances 5(9), 2019: about 39 bits a second in each of 17): English's rate
# times the length of the Universal Declaration of Human Rights in the language over its length in English
# (10.7 thousand characters; unicode.org/udhr).
CHARACTERS_PER_SECOND = {
    "en": 15.2,
    "de": 17.0,
    "es": 17.0,
    "fr": 17.0,
    "hi": 15.5,
    "it": 17.0,
    "ja": 6.0,
    "ko": 6.8,
    "pl": 15.9,
    "pt": 16.3,
    "ru": 16.8,
    "tr": 14.7,
    "zh": 4.2,
}
# A digit is spoken as a word: "one" to "nine" have 4 letters on average, and a space.
SECONDS_PER_DIGIT = 5 / CHARACTERS_PER_SECOND["en"]

# Script -> its characters, and the language whose rate applies to them if the text's language has another script.
_SCRIPTS = {
    "cjk": (re.compile("[\u2e80-\u30ff\u31c0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"), "zh"),
    "hangul": (re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]"), "ko"),
    "devanagari": (re.compile("[\u0900-\u097f]"), "hi"),
    "cyrillic": (re.compile("[\u0400-\u052f]"), "ru"),
}
_SCRIPT_OF = {"ja": "cjk", "zh": "cjk", "ko": "hangul", "hi": "devanagari", "ru": "cyrillic"}
_KANA = re.compile("[\u3041-\u30ff\u31f0-\u31ff]")
_DIGIT = re.compile(r"\d")


def guess_language(text: str) -> str:
    """Guess the language of a text from its script; English stands for all languages with Latin letters."""
    counts = {script: len(pattern.findall(text)) for script, (pattern, _) in _SCRIPTS.items()}
    script = max(counts, key=lambda name: counts[name])
    # A few foreign words in a Latin text do not change its language.
    if counts[script] * 4 <= len(text) - text.count(" "):
        return "en"
    return "ja" if script == "cjk" and _KANA.search(text) else _SCRIPTS[script][1]


def estimate_seconds(text: str, language: str) -> float:
    """How long `text` takes to say, in seconds; scripts may be mixed, digits count as the words they stand for."""
    plain = _DIGIT.sub("", text)
    seconds = (len(text) - len(plain)) * SECONDS_PER_DIGIT
    own = _SCRIPT_OF.get(language)
    left = len(plain)
    for script, (pattern, fallback) in _SCRIPTS.items():
        count = len(pattern.findall(plain))
        left -= count
        seconds += count / CHARACTERS_PER_SECOND[language if script == own else fallback]
    # Latin letters, spaces and ASCII marks: at the language's own rate, unless that counts syllables or words.
    alphabetic = "en" if own in ("cjk", "hangul") else language
    return seconds + left / CHARACTERS_PER_SECOND[alphabetic]
