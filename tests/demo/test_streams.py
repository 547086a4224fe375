"""The demo voice in streams and on a long text."""

import numpy as np
import pytest

from barkfast import Bark
from barkfast.bench.compare import log_mel_distance

# One sentence: of several, a stream generates one after the other, a clip all at once.
TEXT = "Hello, my name is Bark, the weather is nice today, and the train leaves in ten minutes."
LONG_TEXT = (
    "Once upon a time there was a small machine that wanted to speak. Every morning it listened to the rain, and every "
    "evening it counted from one to ten. One day a teacher came by, opened the door, and said good morning. The "
    "machine was very happy, and answered in a clear voice. After that they talked every day."
)
# Largest ratio of pitch and difference of level between sixths of a long text; the training voice's differ by 1.3 dB.
HIGHEST_PITCH, LOUDEST_DB = 1.25, 5.0


def test_an_exact_stream_is_the_clip(bark: Bark) -> None:
    clip = bark.generate(TEXT, seed=3).audio
    streamed = np.concatenate(list(bark.stream(TEXT, seed=3)))
    np.testing.assert_array_equal(streamed, clip)


def test_low_latency_is_about_as_far_off_as_another_draw(bark: Bark, texts: list[str]) -> None:
    clip = bark.generate(TEXT, seed=3)
    streamed = np.concatenate(list(bark.stream(TEXT, seed=3, mode="low_latency")))
    again = bark.decode(bark.generate_fine(clip.coarse, seed=4))
    assert len(streamed) == len(clip.audio) == len(again)
    distance, chance = (log_mel_distance(clip.audio, sound, bark.sample_rate) for sound in (streamed, again))
    texts.append(
        f"demo voice: low-latency stream {distance:.2f} dB of log-mel from the exact one; "
        f"fine codes drawn with another seed {chance:.2f} dB"
    )
    assert 0 < distance < 1.5 * chance


def test_long_text_keeps_its_voice(bark: Bark, texts: list[str]) -> None:
    features = pytest.importorskip("training.demo_voice.features", reason="needs scipy (the extra `reference`)")
    pieces: list = []
    # In pieces of a sentence or two, so that there are joins between pieces.
    sound = np.concatenate(list(bark.generate_long(LONG_TEXT, seed=0, seconds=5.0, on_piece=pieces.append)))
    seconds = len(sound) / bark.sample_rate
    assert seconds > 15 and len(pieces) >= 3
    pitch = features.measure_pitch(sound, np.arange(0.0, seconds, 0.02))
    stretches = [stretch[~np.isnan(stretch)] for stretch in np.array_split(pitch, 6)]
    assert min(map(len, stretches)) > 20, "a stretch has hardly a voice in it"
    medians = [float(np.median(stretch)) for stretch in stretches]
    levels = [20 * np.log10(np.sqrt(np.mean(np.square(part)))) for part in np.array_split(sound, 6)]
    texts.append(
        f"demo voice: {seconds:.1f} s of a long text in {len(pieces)} pieces; sixths of it have a median pitch of "
        f"{min(medians):.0f} to {max(medians):.0f} Hz, and levels within {max(levels) - min(levels):.1f} dB"
    )
    assert max(medians) < HIGHEST_PITCH * min(medians), medians
    assert max(levels) - min(levels) < LOUDEST_DB, levels
