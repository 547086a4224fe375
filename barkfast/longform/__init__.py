"""Texts of any length: sentences, chunks that fit the model, dialogue scripts, and joining of the audio."""

from barkfast.longform.chunks import Chunk, split_chunks
from barkfast.longform.joining import Joiner, LiveJoiner, trim_ends
from barkfast.longform.script import Line, parse_script
from barkfast.longform.sentences import Sentence, split_sentences

__all__ = [
    "Chunk",
    "Joiner",
    "Line",
    "LiveJoiner",
    "Sentence",
    "parse_script",
    "split_chunks",
    "split_sentences",
    "trim_ends",
]
