"""Text to sound on the native engine: greedy tokens equal the torch engine's, with every voice."""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from barkfast import Bark
from barkfast.bench.workload import full_voice, vocabulary
from barkfast.config import Sampling
from barkfast.runtime.cpu.codec import CpuCodec
from barkfast.runtime.cpu.decoder import CpuDecoder
from barkfast.runtime.cpu.refiner import CpuRefiner
from barkfast.runtime.engines import describe_engines

TEXT = "Hello world, this is a test."
GREEDY = Sampling(0)
# Presets of bark, chosen for lengths and dtypes at the limits of what a stage keeps of a voice.
PRESETS = ("announcer", "de_speaker_7", "tr_speaker_4", "v2/en_speaker_6", "v2/zh_speaker_6")
Pair = tuple[Bark, Bark]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Random weights in Suno's layout, in float32 on both engines."""
    engine = {engine.name: engine for engine in describe_engines()}["cpu"]
    if not engine.available:
        pytest.skip(engine.reason)
    tokenizer = vocabulary(tmp_path_factory.mktemp("tokenizer"))
    ours, theirs = (
        Bark("random:nano", device="cpu", engine=name, dtype="float32", tokenizer=tokenizer)
        for name in ("cpu", "torch")
    )
    yield ours, theirs
    kinds = [type(ours.components.network(part)) for part in ("text", "coarse", "fine", "codec")]
    assert kinds == [CpuDecoder, CpuDecoder, CpuRefiner, CpuCodec], "an engine fell back"


def voice_of(pair: Pair, name: str | None) -> dict[str, np.ndarray] | str | None:
    if name == "full":
        return full_voice(pair[0].layout)
    if name == "short":
        # All three prompts cover the same time: 49.9 semantic tokens and 75 frames a second.
        return {
            k: array[..., : 40 if k == "semantic_prompt" else 60] for k, array in full_voice(pair[0].layout).items()
        }
    if name is not None and find_spec("bark") is None:
        pytest.skip("the presets come with bark, which is not installed (the extra `reference`)")
    return name


@pytest.mark.parametrize("name", [None, "full", "short", *PRESETS])
def test_greedy_tokens_of_all_stages(pair: Pair, name: str | None) -> None:
    voice = voice_of(pair, name)
    # Long enough for six coarse windows; without a voice, each continues from the cache of the one before.
    semantic, expected = (
        bark.generate_semantic(TEXT, voice, GREEDY, max_duration_s=2.4, min_eos_p=None) for bark in pair
    )
    np.testing.assert_array_equal(semantic, expected)
    coarse, expected = (bark.generate_coarse(semantic, voice, GREEDY) for bark in pair)
    np.testing.assert_array_equal(coarse, expected)
    fine, expected = (bark.generate_fine(coarse, voice, GREEDY) for bark in pair)
    np.testing.assert_array_equal(fine, expected)
    audio, expected = (bark.decode(fine) for bark in pair)
    assert np.abs(audio - expected).max() < 1e-5


def test_shorter_coarse_histories(pair: Pair) -> None:
    """`max_history` at its limits and between them."""
    semantic = np.random.default_rng(5).integers(0, 10_000, 150)
    for max_history in (60, 222, 630):
        voice = full_voice(pair[0].layout)
        coarse, expected = (bark.generate_coarse(semantic, voice, GREEDY, max_history=max_history) for bark in pair)
        np.testing.assert_array_equal(coarse, expected)


def test_the_demo_speaks_as_on_the_torch_engine(pair: Pair) -> None:
    greedy = {"text_temp": 0, "waveform_temp": 0, "fine_temp": 0, "max_duration_s": 0.5}
    ours, theirs = (
        Bark("random:demo", device="cpu", dtype="float32", engine=engine).generate("Hello there.", **greedy)
        for engine in ("cpu", "torch")
    )
    for key in ("semantic", "coarse", "fine"):
        np.testing.assert_array_equal(getattr(ours, key), getattr(theirs, key))
    assert np.abs(ours.audio - theirs.audio).max() < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_every_dtype_speaks_the_same_twice(dtype: str) -> None:
    first, second = (
        Bark("random:demo", device="cpu", dtype=dtype, engine="cpu").generate(
            "Hello there.", seed=3, max_duration_s=0.5
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.audio, second.audio)
    assert 0.01 < np.abs(first.audio).max() < 1
