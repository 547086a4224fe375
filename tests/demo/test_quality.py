"""How well the demo voice speaks held-out sentences (200 with `--full`); phones are read back from its units."""

import numpy as np
import pytest

from barkfast import Bark

from .conftest import Spoken
from .model import all_said, phone_error_rate, read_back, read_short_texts

# The highest phone error rate that is promised.
HIGHEST = 0.12
# Minimum share of texts of several short sentences that are spoken completely; 0.95 was measured.
WHOLE = 0.9
FRUIT, FRUIT_PHONES = "Apples. Pears. Plums.", ["ae p ax l z", "p eh r z", "p l ah m z"]
# Seconds per phone: below SHORTEST the clip is dead, above LONGEST it did not stop in time.
SHORTEST, LONGEST = 0.03, 0.3
# The phones that the training voice speaks for the sentence of `make demo`.
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


def test_it_says_all_of_several_short_sentences(bark: Bark) -> None:
    lost = [seed for seed in range(12) if not all_said(bark.generate_semantic(FRUIT, seed=seed), FRUIT_PHONES)]
    assert len(lost) <= 1, lost


def test_it_says_all_of_short_texts_it_never_saw(bark: Bark, request: pytest.FixtureRequest, texts: list[str]) -> None:
    full = request.config.getoption("--full")
    tries = [(one, seed) for one in read_short_texts()[: None if full else 40] for seed in range(3 if full else 1)]
    said = [all_said(bark.generate_semantic(one["text"], seed=seed), one["phones"]) for one, seed in tries]
    texts.append(f"demo voice: all sentences said in {sum(said)} of {len(said)} tries at texts of short sentences")
    assert sum(said) >= WHOLE * len(said), [
        one["text"] for (one, _), whole in zip(tries, said, strict=True) if not whole
    ]


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
    picture = pytest.importorskip("training.demo_voice.picture", reason="needs scipy (the extra `reference`)")
    text, seed = picture.read_sentence()
    speech = bark.generate(text, seed=seed)
    assert 3 < speech.duration < 9
    assert phone_error_rate([read_back(speech.semantic)], [DEMO_PHONES.split()]) <= HIGHEST
