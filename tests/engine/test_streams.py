"""`Bark.stream` from text to samples: exact equals the offline audio, low latency is the same every time."""

import numpy as np
import pytest

from barkfast import Bark
from barkfast.bench.workload import full_voice

TEXT = "Hello there, this is a test of what is heard first."
# Several coarse windows, and several fine windows of a stream. Random weights rarely draw the stop token.
OPTIONS = {"seed": 11, "max_duration_s": 2.4, "min_eos_p": None}


@pytest.mark.parametrize("with_voice", [False, True])
def test_exact_chunks_are_the_offline_samples(bark: Bark, with_voice: bool) -> None:
    voice = full_voice(bark.layout) if with_voice else None
    expected = bark.generate(TEXT, voice, **OPTIONS)
    chunks = list(bark.stream(TEXT, voice, **OPTIONS))
    assert len(chunks) > 1 and all(chunk.dtype == np.float32 and chunk.size for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), expected.audio)


def test_exact_chunks_over_several_fine_windows(bark: Bark) -> None:
    """512 frames of a voice and more than 512 new ones: frames that no later window changes are returned before it."""
    options = OPTIONS | {"max_duration_s": 8.0}
    voice = full_voice(bark.layout)
    expected = bark.generate(TEXT, voice, **options)
    assert expected.fine.shape[1] > 512
    np.testing.assert_array_equal(np.concatenate(list(bark.stream(TEXT, voice, **options))), expected.audio)


def test_exact_on_the_torch_engine() -> None:
    bark = Bark("random:demo", device="cpu", engine="torch", dtype="float32")
    options = {"seed": 5, "max_duration_s": 0.6, "min_eos_p": None}
    expected = bark.generate("Hello there.", **options)
    samples = np.concatenate(list(bark.stream("Hello there.", **options)))
    np.testing.assert_allclose(samples, expected.audio, rtol=0, atol=1e-6)


def test_low_latency_has_the_coarse_codes_of_the_rest(bark: Bark) -> None:
    offline = bark.generate(TEXT, **OPTIONS)
    with bark.scheduler() as session:
        live = [session.add(bark.request(TEXT, stream="low_latency", **OPTIONS)) for _ in range(2)]
        while not session.idle:
            session.round()
    first, second = (utterance.result for utterance in live)
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.semantic, offline.semantic)
    np.testing.assert_array_equal(first.coarse, offline.coarse)
    np.testing.assert_array_equal(first.fine[:2], offline.coarse)
    assert first.fine.shape == offline.fine.shape and (first.fine != offline.fine).any()
    # The stream is the audio of its codes, the same single and batched.
    np.testing.assert_array_equal(first.audio, bark.decode(first.fine))
    np.testing.assert_array_equal(second.audio, first.audio)
    single = np.concatenate(list(bark.stream(TEXT, mode="low_latency", **OPTIONS)))
    np.testing.assert_array_equal(single, first.audio)
