"""The arguments of everything that generates. Each is listed, described and checked here, once.

A public method that takes such arguments is declared with `takes`, which gives it the signature of such a class.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

import numpy as np

from barkfast.checks import check_choice, check_flag, check_number, check_seed, check_tokens, check_whole
from barkfast.config import Layout, Sampling
from barkfast.errors import InputError
from barkfast.longform.sentences import check_language
from barkfast.normalize import MARKUPS, Markup, normalize
from barkfast.runtime.sampling import Randomness, Seed
from barkfast.text import Overflow, check_overflow, check_text
from barkfast.voices import check_voice
from barkfast.watermark import require_watermark

Voice = str | os.PathLike[str] | Mapping[str, np.ndarray]
# How audio is returned: all at the end; in chunks, with the samples of "off"; in chunks as early as possible, with fine
# codes that differ from those of "off" (see barkfast.stages.fine.LiveFineWindows).
Streaming = Literal["off", "exact", "low_latency"]
Mode = Literal["exact", "low_latency"]
DEADLINE = "seconds of time.monotonic(), or None"


@dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """How to generate. Python and numpy numbers become plain ones.

    Args:
        seed: the same seed gives the same audio, single or batched; None draws from torch's global generator.
        text_temp: temperature of the semantic stage; 0 or None is greedy.
        waveform_temp: temperature of the coarse stage.
        fine_temp: temperature of the fine stage.
        top_k: draw from this many of the likeliest tokens, in the semantic and coarse stage; None is off.
        top_p: draw from the likeliest tokens that together have this probability, in (0, 1]; None is off.
        min_eos_p: end when the end token has this probability, in (0, 1]; "auto" for the model's value, None to end
            only when it is drawn.
        max_duration_s: end after this many seconds.
        overflow: "cut" a text of more than 256 tokens, with a warning, or raise an "error".
        priority: of two requests with the same deadline, the one of higher priority goes first.
        watermark: mark the sound, so that `barkfast.watermark.detect` finds it; needs the extra `watermark`.

    Raises:
        InputError: an argument is none of these.
    """

    seed: Seed = None
    text_temp: float | None = 0.7
    waveform_temp: float | None = 0.7
    fine_temp: float | None = 0.5
    top_k: int | None = None
    top_p: float | None = None
    min_eos_p: float | None | Literal["auto"] = "auto"
    max_duration_s: float | None = None
    overflow: Overflow = "cut"
    priority: int = 0
    watermark: bool = False

    def __post_init__(self) -> None:
        for name in ("text_temp", "waveform_temp", "fine_temp"):
            self._number(name, "0 (greedy) or a positive number, e.g. 0.7", least=0)
        if self.top_k is not None:
            self._set("top_k", check_whole("top_k", self.top_k, "a whole number of at least 1, or None", least=1))
        self._number("top_p", "a number above 0 and up to 1, or None", least=0, most=1, open_=True)
        if not (isinstance(self.min_eos_p, str) and self.min_eos_p == "auto"):
            self._number("min_eos_p", "a number above 0 and up to 1, 'auto' or None", least=0, most=1, open_=True)
        self._number("max_duration_s", "a positive number of seconds, or None", least=0, open_=True)
        check_overflow(self.overflow)
        self._set("priority", check_whole("priority", self.priority, "a whole number, more of it for sooner"))
        if not isinstance(self.seed, Randomness):
            self._set("seed", check_seed(self.seed))
        self._set("watermark", check_flag("watermark", self.watermark))
        if self.watermark:
            require_watermark()

    def _number(self, name: str, expected: str, **bounds: Any) -> None:
        value = getattr(self, name)
        if value is not None:
            self._set(name, check_number(name, value, expected, **bounds))

    def _set(self, name: str, value: Any) -> None:
        # Frozen for everybody else.
        object.__setattr__(self, name, value)

    def options(self) -> dict[str, Any]:
        """These options alone, without what a subclass adds."""
        return {field.name: getattr(self, field.name) for field in fields(Options)}


@dataclass(frozen=True, eq=False)
class Request(Options):
    """One utterance to generate. It can be used any number of times, except with a `Randomness` as its seed.

    The other arguments are those of `Options`.

    Args:
        text: up to 256 tokens, about 13 seconds of speech; None where `semantic` is given.
        voice: a name, a file, or a dict of the three arrays; what runs has the arrays.
        stream: how audio is returned: "off" at the end, "exact" or "low_latency" in chunks.
        deadline: in seconds of time.monotonic(). Earlier deadlines are served first. Nothing ends when it passes.
        semantic: (n,) semantic tokens to synthesize, instead of a text.
    """

    text: str | None = None
    voice: Any = None
    _: KW_ONLY
    stream: Streaming = "off"
    deadline: float | None = None
    semantic: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.semantic is None:
            self._set("text", check_text(self.text))
        elif self.text is not None:
            raise InputError("a request has a text and semantic tokens; expected one of them")
        super().__post_init__()
        check_choice("stream", self.stream, get_args(Streaming))
        self._number("deadline", DEADLINE)

    @property
    def text_sampling(self) -> Sampling:
        """How the semantic stage draws."""
        return Sampling(self.text_temp, self.top_k, self.top_p)

    @property
    def waveform_sampling(self) -> Sampling:
        """How the coarse stage draws."""
        return Sampling(self.waveform_temp, self.top_k, self.top_p)

    @property
    def fine_sampling(self) -> Sampling:
        """How the fine stage draws."""
        return Sampling(self.fine_temp)

    def check(self, layout: Layout) -> None:
        """Raise InputError or VoiceError unless a model of this layout can speak it."""
        if self.semantic is not None:
            check_tokens("semantic tokens", self.semantic, 1, layout.semantic.vocab_size)
        if self.voice is not None:
            check_voice(self.voice, layout)


@dataclass(frozen=True, eq=False)
class Speech(Options):
    """The arguments of `Bark.generate`.

    Args:
        text: up to 256 tokens, about 13 seconds of speech.
        voice: a name ("v2/en_speaker_6"), an .npz file, or a dict of the three prompts.
        silent: no progress bars.
    """

    text: str
    voice: Voice | None = None
    _: KW_ONLY
    silent: bool = True


@dataclass(frozen=True, eq=False)
class StreamedText(Options):
    """A text whose audio is returned while it is made.

    Args:
        text: a str, or an iterable of them (an open file, say) that is read as it is needed.
        voice: as in `Bark.generate`; without one, the first sentence's is kept for the rest.
        mode: "exact" for the samples that `generate` gives each sentence, which begin when the fine network has seen
            all of it; "low_latency" for audio after about half a second of speech, with other fine codes. See
            docs/streaming.md.
        each_sentence: generate sentence by sentence, the next one while the one before is received; False for one
            utterance, of up to 256 tokens. Semantic tokens (`semantic=`) are one utterance.
        language: "en", "de" and so on; None for the voice's, or else by the script.
        markup: what the text is written in, "plain" or "markdown", see `barkfast.normalize.normalize`.
        semantic: (n,) semantic tokens to synthesize, instead of a text.
        seed: of the first sentence; the others count on from it.
        max_duration_s: end a sentence after this many seconds.
        overflow: None for "error" where sentences are generated, which are split to fit, and "cut" for one utterance.
    """

    text: str | Iterable[str] | None = None
    voice: Voice | None = None
    _: KW_ONLY
    mode: Mode = "exact"
    each_sentence: bool = True
    language: str | None = None
    markup: Markup = "plain"
    semantic: np.ndarray | None = None
    overflow: Overflow | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, get_args(Mode))
        check_choice("markup", self.markup, MARKUPS)
        if self.overflow is None:
            self._set("overflow", "error" if self.split else "cut")
        super().__post_init__()

    @property
    def split(self) -> bool:
        """Whether it is generated sentence by sentence."""
        return self.each_sentence and self.semantic is None

    def whole(self, **options: Any) -> Request:
        """All of it as one request. Args: further ones of Request. Raises: InputError."""
        text = self.text
        if isinstance(text, str) and self.markup != "plain":
            text = normalize(text, self.markup)
        how = self.request_options() | options
        return Request(text, self.voice, semantic=self.semantic, **how)  # type: ignore[arg-type]

    def request_options(self) -> dict[str, Any]:
        """The arguments of Request that all its utterances have in common."""
        return self.options() | {"stream": self.mode}


@dataclass(frozen=True, eq=False, kw_only=True)
class BarkStream(StreamedText):
    """The arguments of `Bark.stream`: those of StreamedText, and:

    Args:
        chained: every sentence continues from the one before, instead of from the voice alone.
        deadline: in seconds of time.monotonic(). Earlier deadlines are served first. Nothing ends when it passes.
        on_piece: called with each `Piece`, in order, once all of it was returned.
    """

    chained: bool = False
    deadline: float | None = None
    on_piece: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("deadline", DEADLINE)

    def request_options(self) -> dict[str, Any]:
        """As in StreamedText, with the deadline."""
        return super().request_options() | {"deadline": self.deadline}


@dataclass(frozen=True, eq=False, kw_only=True)
class EngineStream(StreamedText):
    """The arguments of `Engine.stream`: those of StreamedText, and:

    Args:
        deadline_s: seconds from now; the stream fails if it is not done by then.
        wait: where the queue is full, wait instead of failing. A text is admitted once for all its sentences.
    """

    deadline_s: float | None = None
    wait: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Pieces(Options):
    """How to generate a text in pieces.

    Args:
        chained: every piece continues from the one before, instead of from the voice alone. The tone is carried on,
            errors too; and only one piece of a speaker is generated at a time.
        steady: without a voice, the one drawn for the first piece is kept for the rest; else every piece draws its own.
        language: "en", "de" and so on; None for the voice's, or else by the script.
        markup: what the text is written in, "plain" or "markdown", see `barkfast.normalize.normalize`.
        trim: cut silence and noise off the ends of each piece.
        pauses: put silence between pieces, as long as the punctuation asks for; else they overlap a little.
        at_once: pieces that are generated in a batch.
        seconds: how long a piece may be, by the estimate of its speaking time; None for 13, or what the model allows.
        retries: how often a piece that the model did not finish in time is generated again in halves.
        on_piece: called with each `Piece`, in order.
        deadline: in seconds of time.monotonic(). Earlier deadlines are served first. Nothing ends when it passes.
        seed: of the first piece; the same seed and `at_once` give the same audio.
        max_duration_s: end a piece after this many seconds.
    """

    chained: bool = False
    steady: bool = True
    language: str | None = None
    markup: Markup = "plain"
    trim: bool = True
    pauses: bool = True
    at_once: int = 8
    seconds: float | None = None
    retries: int = 2
    on_piece: Callable[[Any], None] | None = None
    deadline: float | None = None
    overflow: Overflow = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("at_once", check_whole("at_once", self.at_once, "the number of pieces in a batch, from 1", least=1))
        self._set("retries", check_whole("retries", self.retries, "0 or more", least=0))
        check_choice("markup", self.markup, MARKUPS)
        check_language(self.language)
        self._number("deadline", DEADLINE)

    def request_options(self) -> dict[str, Any]:
        """The arguments of Request that all pieces have in common."""
        return self.options() | {"deadline": self.deadline}


@dataclass(frozen=True, eq=False)
class LongText(Pieces):
    """The arguments of `Bark.generate_long`.

    Args:
        text: a str, or an iterable of them (an open file, say) that is read as it is needed.
        voice: as in `Bark.generate`.
        each_sentence: a piece for every sentence, instead of as many sentences as fit: the audio comes sooner.
    """

    text: str | Iterable[str]
    voice: Voice | None = None
    _: KW_ONLY
    each_sentence: bool = False


@dataclass(frozen=True, eq=False)
class Script(Pieces):
    """The arguments of `Bark.generate_script`. Voices of different languages may be mixed.

    Args:
        script: lines "NAME: text", or pairs (name, text), see `barkfast.longform.parse_script`.
        voices: name of a speaker -> voice as in `Bark.generate`; None for one that is drawn and then kept.
    """

    script: str | Iterable[str] | Iterable[tuple[str, str]]
    voices: Mapping[str, Voice | None]


@dataclass(frozen=True, eq=False)
class EngineSpeech(Options):
    """The arguments of `Engine.generate`.

    Args:
        text: up to 256 tokens, about 13 seconds of speech; None where `semantic` is given.
        voice: as in `Bark.generate`.
        deadline_s: seconds from now; the request fails if it is not done by then.
        wait: where the queue is full, wait instead of failing with QueueFull.
        semantic: (n,) semantic tokens to synthesize, instead of a text.
    """

    text: str | None = None
    voice: Voice | None = None
    _: KW_ONLY
    deadline_s: float | None = None
    wait: bool = False
    semantic: np.ndarray | None = None

    def request(self, deadline: float | None) -> Request:
        """The request, with a deadline in seconds of time.monotonic(). Raises: InputError."""
        how: dict[str, Any] = {"deadline": deadline, "semantic": self.semantic}
        return Request(self.text, self.voice, **self.options(), **how)


P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


def takes(arguments: Callable[P, T]) -> Callable[[Callable[[S, T], R]], Callable[Concatenate[S, P], R]]:
    """Declare a method of one argument, an object of class `arguments`, with that class's own signature.

    `@takes(Speech) def generate(self, speech)` is called as `bark.generate(text, voice, seed=1)`.
    """
    own = inspect.signature(arguments)

    def declare(method: Callable[[S, T], R]) -> Callable[Concatenate[S, P], R]:
        def make(args: Any, options: Any) -> T:
            try:
                own.bind(*args, **options)
            except TypeError as error:
                raise TypeError(f"{method.__name__}() {error}") from None
            return arguments(*args, **options)

        async def call_async(self: Any, *args: Any, **options: Any) -> Any:
            result: Any = method(self, make(args, options))
            return await result

        def call(self: Any, *args: Any, **options: Any) -> Any:
            return method(self, make(args, options))

        made: Any = wraps(method)(call_async if inspect.iscoroutinefunction(method) else call)
        me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        returns = inspect.signature(method).return_annotation
        made.__signature__ = own.replace(parameters=[me, *own.parameters.values()], return_annotation=returns)
        text, sections = split_docstring(method)
        args = "\n".join(f"    {described.get(name, name)}" for name in own.parameters)
        made.__doc__ = "\n\n".join([text, f"Args:\n{args}", *sections])
        return made

    described = describe_arguments(arguments)
    return declare


def describe_arguments(arguments: Callable[..., Any]) -> dict[str, str]:
    """Name -> its lines in the docstring of the class that adds the argument, or says more of it."""
    found: dict[str, str] = {}
    for owner in reversed(inspect.getmro(arguments)):  # type: ignore[arg-type]
        for section in split_docstring(owner)[1] if owner is not object else ():
            if section.startswith("Args:\n"):
                lines = re.split(r"\n    (?=\S)", section)[1:]
                found |= {line.partition(":")[0]: line for line in lines}
    return found


def split_docstring(described: Any) -> tuple[str, list[str]]:
    """What comes before the sections of a docstring, and the sections: "Args:", "Returns:", "Raises:"."""
    text, *sections = re.split(r"\n\n(?=[A-Z]\w+:\n)", inspect.getdoc(described) or "")
    return text, sections
