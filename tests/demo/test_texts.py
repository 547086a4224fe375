"""Any text through every entry point of the demo voice: spelled out, refused in one line, or spoken anyway."""

import asyncio

import numpy as np
import pytest

import barkfast
from barkfast import Bark
from barkfast.cli import main
from barkfast.config import Sampling
from barkfast.engine.async_engine import Engine
from barkfast.errors import InputError
from barkfast.generation import forget_default_bark

WRITTEN, SPELLED = "Mr. Smith paid $5.", "mister smith paid five dollars."
RUSSIAN = "Привет, мир"
SHORT = {"seed": 1, "max_duration_s": 0.3}


def test_digits_are_words_on_every_way_in(bark: Bark, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bark.generate(SPELLED, **SHORT).semantic
    ways = {
        "generate": bark.generate(WRITTEN, **SHORT).semantic,
        "batch": bark.generate_batch([WRITTEN, {"text": WRITTEN}], **SHORT)[1].semantic,
        "semantic": bark.generate_semantic(WRITTEN, max_duration_s=0.3, seed=1),
    }
    for way, tokens in ways.items():
        np.testing.assert_array_equal(tokens, expected, err_msg=way)
    sound = bark.generate(SPELLED, **SHORT).audio
    np.testing.assert_array_equal(np.concatenate(list(bark.stream(WRITTEN, **SHORT))), sound)
    monkeypatch.setenv("BARKFAST_MODEL", "demo")
    forget_default_bark()
    try:
        greedy = bark.generate_semantic(SPELLED, sampling=Sampling(0.0))
        np.testing.assert_array_equal(barkfast.text_to_semantic(WRITTEN, temp=0.0, silent=True), greedy)
    finally:
        forget_default_bark()


def test_an_engine_spells_out_too() -> None:
    async def speak() -> list[np.ndarray]:
        async with Engine(Bark("demo", device="cpu"), n_slots=2) as engine:
            with pytest.raises(InputError, match="speaks English"):
                await engine.generate(RUSSIAN, **SHORT)
            both = await asyncio.gather(engine.generate(WRITTEN, **SHORT), engine.generate(SPELLED, **SHORT))
            return [one.semantic for one in both]

    np.testing.assert_array_equal(*asyncio.run(speak()))


def test_other_scripts_are_refused_on_every_way_in(bark: Bark, tmp_path, capsys: pytest.CaptureFixture) -> None:
    for speak in (
        lambda: bark.generate(RUSSIAN),
        lambda: bark.generate_batch(["Hello.", RUSSIAN], **SHORT),
        lambda: list(bark.stream(RUSSIAN)),
        lambda: list(bark.generate_long(RUSSIAN)),
    ):
        with pytest.raises(InputError, match="the demo voice speaks English; use suno/bark"):
            speak()
    kept = bark.generate_batch(["Hello.", RUSSIAN], keep_errors=True, **SHORT)
    assert len(kept[0].audio) and isinstance(kept[1], InputError)
    assert main(["say", RUSSIAN, "--model", "demo", "-o", str(tmp_path / "a.wav")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
        "x" * 500,
        "1234567 and 9,876,543,210",
        "Crème brûlée, s'il vous plaît",
        "zzzzz qqqqq xkcd",
        "Hi 😀!",
        "a",
    ],
)
def test_what_it_cannot_say_well_still_gives_sound(bark: Bark, text: str) -> None:
    speech = bark.generate(text, seed=0)
    assert 0.1 < speech.duration < 15.5
    assert np.isfinite(speech.audio).all() and np.abs(speech.audio).max() > 0.01


def test_pieces_in_which_nothing_is_said_are_left_out(bark: Bark) -> None:
    text = "Hello there. [laughs] ♪ ♪ And I like pizza. 😀"
    assert len(np.concatenate(list(bark.generate_long(text, **SHORT))))
    assert len(np.concatenate(list(bark.stream(text, **SHORT))))
    with pytest.raises(InputError, match=r"piece 2 of the text \('Привет\.'\).*speaks English"):
        list(bark.stream("Hello there. Привет.", **SHORT))


def test_a_long_text_counts_what_is_said(bark: Bark) -> None:
    pieces: list = []
    text = "The number is 123,456,789. " * 8
    sound = np.concatenate(list(bark.generate_long(text, seed=0, max_duration_s=0.3, on_piece=pieces.append)))
    # 256 tokens are not enough for three of these sentences once their numbers are words.
    assert len(pieces) >= 4 and len(sound)
