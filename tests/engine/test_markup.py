"""Markdown in long texts, scripts and streams, synchronous and of an engine."""

import asyncio

import numpy as np
import pytest

from barkfast import Bark, Engine
from barkfast.engine.segments import Piece
from barkfast.errors import InputError
from engine.fake_model import FakeBark, speak_long, speak_script, stream_sentences

MARKDOWN = "# Chapter *one*\n\nSee [a page][p], [1] and [laughs].\n\n[p]: https://example.com\n"
READ = ["Chapter one.", "See a page, [1] and [laughs]."]
SHORT = {"seed": 11, "max_duration_s": 0.3, "min_eos_p": None}


def test_a_long_text_and_a_script_are_read() -> None:
    pieces: list[Piece] = []
    list(speak_long(FakeBark(), MARKDOWN, "speaker_1", markup="markdown", on_piece=pieces.append))
    script = [("ALICE", MARKDOWN)]
    list(speak_script(FakeBark(), script, {"ALICE": "speaker_1"}, markup="markdown", on_piece=pieces.append))
    assert [piece.text for piece in pieces] == READ * 2


def test_streams_are_read(bark: Bark) -> None:
    pieces: list[Piece] = []
    sound = np.concatenate(list(bark.stream(MARKDOWN, markup="markdown", on_piece=pieces.append, **SHORT)))
    assert [piece.text for piece in pieces] == READ

    async def receive(**options) -> np.ndarray:
        async with Engine(bark) as engine:
            return np.concatenate([chunk async for chunk in engine.stream(MARKDOWN, markup="markdown", **options)])

    np.testing.assert_array_equal(asyncio.run(receive(**SHORT)), sound)
    single = asyncio.run(receive(each_sentence=False, **SHORT))
    np.testing.assert_array_equal(single, bark.generate("\n\n".join(READ), **SHORT).audio)


def test_another_markup_is_refused_at_once() -> None:
    for speak in (speak_long, stream_sentences):
        with pytest.raises(InputError, match="markup is 'html'"):
            speak(FakeBark(), "a", markup="html")
    with pytest.raises(InputError, match="markup is 'html'"):
        speak_script(FakeBark(), "A: a", {"A": None}, markup="html")
