"""What a stream of an engine says: utterance after utterance, read in threads."""

from collections.abc import Iterator
from typing import Any

from barkfast.engine.generation import Generation
from barkfast.engine.request import Request
from barkfast.engine.turns import Role, Speaker, Turn, check_sentences, sentence_turns
from barkfast.longform.chunks import Chunk
from barkfast.longform.sentences import language_of
from barkfast.normalize import Markup, check_markup, normalize


class Lines:
    """The turns of one stream. One call at a time, from any thread.

    Args:
        each_sentence: a turn for each sentence; else one for the whole text, or for semantic tokens in `options`.
        options: of `Bark.request`.
    """

    def __init__(
        self,
        bark: Speaker,
        text: Any,
        voice: Any,
        *,
        each_sentence: bool,
        language: str | None,
        markup: Markup = "plain",
        seed: Any,
        options: dict[str, Any],
    ) -> None:
        self._bark, self._text, self._voice, self._seed, self._options = bark, text, voice, seed, options
        self._split = each_sentence and options.get("semantic") is None
        check_markup(markup)
        if not self._split and markup != "plain" and isinstance(text, str):
            self._text = normalize(text, markup)
        self._language, self._markup = language, markup
        self._role = Role(voice)
        self._turns: Iterator[Turn] | None = None

    @property
    def sample_rate(self) -> int:
        """Samples per second of what is said."""
        return self._bark.layout.sample_rate

    @property
    def learning(self) -> bool:
        """Whether the voice of the next turn follows from this one."""
        return self._role.learning

    def learn(self, generation: Generation) -> None:
        """Take over the voice of what was said, if there is none."""
        self._role.learn(generation, self._bark.layout)

    def next(self) -> Turn:
        """The next turn; there is one after each that is not the last. Errors: InputError."""
        if not self._split:
            return Turn(Chunk(""), self._role, 0, last=True)
        if self._turns is None:
            language = self._language or language_of(self._voice)
            check_sentences(self._text, language, self._seed)
            self._turns = sentence_turns(self._bark, self._text, self._role, language, self._markup)
        return next(self._turns)

    def request(self, turn: Turn, deadline: float | None) -> Request:
        """What is asked for a turn. Errors: those of `Bark.request`."""
        options = {**self._options, "deadline": deadline}
        if not self._split:
            return self._bark.request(self._text, self._voice, seed=self._seed, **options)
        request = turn.request(self._bark, self._seed, options)
        # Read once for all.
        self._role.voice = request.voice
        return request
