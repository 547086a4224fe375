"""The asyncio engine with a model: results as of single calls, bad input, one engine at a time."""

import asyncio
from typing import Any

import numpy as np
import pytest

from barkfast import Bark, InputError, VoiceError
from barkfast.engine.async_engine import Engine
from barkfast.errors import EngineError
from barkfast.runtime.cpu.codec import CpuCodec
from engine.asyncio_tools import read_all, running

TEXT = "Hello, this is a test."
SHORT = {"max_duration_s": 0.4}


@pytest.fixture(scope="module")
def bark() -> Bark:
    return Bark("random:demo", device="cpu")


@pytest.fixture(scope="module")
def single(bark: Bark) -> dict[int, Any]:
    """Seed -> the result of a single call; two seeds."""
    return {seed: bark.generate(TEXT, seed=seed, **SHORT) for seed in (1, 2)}


def test_a_model_speaks_as_it_does_alone(bark: Bark, single: dict[int, Any]) -> None:
    async def main() -> None:
        async with running(bark, n_slots=2) as engine:
            streams = [engine.stream(TEXT, seed=seed, **SHORT) for seed in (1, 2)]
            tasks = [engine.generate(TEXT, seed=seed, **SHORT) for seed in (1, 2)]
            first, second, *received = await asyncio.gather(*tasks, *map(read_all, streams))
            for seed, generation, sound in ((1, first, received[0]), (2, second, received[1])):
                for key in ("semantic", "coarse", "fine", "audio"):
                    np.testing.assert_array_equal(getattr(generation, key), getattr(single[seed], key))
                if not isinstance(bark.components.network("codec"), CpuCodec):
                    np.testing.assert_allclose(sound, single[seed].audio, atol=1e-6)
                else:
                    np.testing.assert_array_equal(sound, single[seed].audio)
            low = engine.stream(TEXT, seed=1, mode="low_latency", **SHORT)
            assert (await read_all(low)).shape == single[1].audio.shape
            np.testing.assert_array_equal(low.generation.semantic, single[1].semantic)
            # The first of two sentences can be kept as a voice.
            twice = engine.stream(f"{TEXT} {TEXT}", seed=1, **SHORT)
            await read_all(twice)
            for key, tokens in single[1].prompt.items():
                np.testing.assert_array_equal(twice.voice[key], tokens)

    asyncio.run(main())
    # The engine has released the model.
    np.testing.assert_array_equal(bark.generate(TEXT, seed=1, **SHORT).audio, single[1].audio)


def test_bad_input_to_a_model(bark: Bark) -> None:
    async def main() -> None:
        async with running(bark, n_slots=2) as engine:
            for text, options, error, message in (
                ("", {}, InputError, "nothing to say"),
                (TEXT, {"voice": "v2/en_speaker_66"}, VoiceError, "v2/en_speaker_6"),
                (TEXT, {"text_temp": -1}, InputError, "text_temp is -1"),
                (TEXT, {"seed": "lucky"}, InputError, "seed is 'lucky'"),
                ("abcd " * 200_000, {"overflow": "error"}, InputError, "tokens"),
                (TEXT, {"priority": "high"}, InputError, "priority is 'high'"),
            ):
                with pytest.raises(error, match=message):
                    await engine.generate(text, **options, **SHORT)
            assert (await engine.generate(TEXT, seed=1, **SHORT)).audio.size

    asyncio.run(main())


def test_a_model_serves_one_engine_at_a_time(bark: Bark, single: dict[int, Any]) -> None:
    async def main() -> None:
        async with running(bark, n_slots=2) as engine:
            with pytest.raises(EngineError, match="at work already"):
                await Engine(bark).start()
            with pytest.raises(EngineError, match="at work already"):
                await asyncio.to_thread(bark.generate, TEXT, **SHORT)
            generation = await engine.generate(TEXT, seed=1, **SHORT)
            np.testing.assert_array_equal(generation.audio, single[1].audio)

    asyncio.run(main())
