"""What the demo voice says of sentences it never saw; `--full` for 200 of them. Phones are read from its units."""

import numpy as np
import pytest

from barkfast import Bark

from .conftest import Spoken
from .model import phone_error_rate, read_back

# The phone error rate that is promised.
HIGHEST = 0.12
# Seconds for a phone: fewer is a dead clip, more one that ran on.
SHORTEST, LONGEST = 0.03, 0.3
# What the training voice says for the sentence of `make demo`.
DEMO_PHONES = (
    "hh ax l ow ay ae m b aa r k f ae s t ae n d eh v er iy s t eh p ah v s p iy k ih ng dh ih s s eh n t ax n s "
    "r ae n aa n y ao r ow n m ax sh iy n"
)


def test_it_says_the_phones_of_the_sentence(spoken: list[Spoken], texts: list[str]) -> None:
    rate = phone_error_rate([read_back(one.generation.semantic) for one in spoken], [one.phones for one in spoken])
    texts.append(f"demo voice: phone error rate {rate:.3f} over {len(spoken)} sentences it never saw")
    assert rate <= HIGHEST


def test_it_ends_by_itself(spoken: list[Spoken], bark: Bark) -> None:
    cut = [one.text for one in spoken if len(one.generation.semantic) >= bark.layout.semantic.max_steps]
    assert len(cut) <= 0.01 * len(spoken), cut


def test_every_clip_can_be_listened_to(spoken: list[Spoken]) -> None:
    for one in spoken:
        audio = one.generation.audio
        assert np.isfinite(audio).all() and np.abs(audio).max() <= 1, one.text
        assert np.sqrt(np.mean(audio**2)) > 0.01, f"{one.text!r} is silent"
        assert SHORTEST < one.generation.duration / len(one.phones) < LONGEST, one.text


def test_a_batch_says_what_each_says_alone(bark: Bark, spoken: list[Spoken]) -> None:
    some = spoken[:8]
    together = bark.generate_batch([{"text": one.text, "seed": number} for number, one in enumerate(some)])
    assert len({len(one.semantic) for one in together}) > 4, "they should end at different times"
    for one, alone in zip(together, some, strict=True):
        np.testing.assert_array_equal(one.semantic, alone.generation.semantic)
        np.testing.assert_array_equal(one.audio, alone.generation.audio)


def test_each_voice_speaks(bark: Bark, spoken: list[Spoken]) -> None:
    for voice in ("calm", "plain", "lively"):
        said = [bark.generate(one.text, voice, seed=number) for number, one in enumerate(spoken[:8])]
        rate = phone_error_rate([read_back(one.semantic) for one in said], [one.phones for one in spoken[:8]])
        assert rate <= HIGHEST, voice


def test_make_demo_says_its_sentence(bark: Bark) -> None:
    picture = pytest.importorskip("tools.demo_voice.picture", reason="needs scipy (the extra `reference`)")
    text, seed = picture.read_sentence()
    speech = bark.generate(text, seed=seed)
    assert 3 < speech.duration < 9
    assert phone_error_rate([read_back(speech.semantic)], [DEMO_PHONES.split()]) <= HIGHEST
