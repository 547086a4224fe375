"""The demo voice's folder in transformers: it loads and chooses the same tokens."""

from typing import Any

import numpy as np
import pytest
import torch

from barkfast import Bark
from barkfast.config import Sampling
from barkfast.weights.demo import FOLDER

transformers = pytest.importorskip("transformers", reason="transformers is not installed (the extra `reference`)")
TEXT = "hello there, it's me."
GREEDY = Sampling(0)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return transformers.BarkModel.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_greedy_tokens_and_samples_are_the_same(theirs: Any) -> None:
    from transformers.models.bark import generation_configuration_bark as generation

    ours = Bark("demo", device="cpu", engine="torch", dtype="float32")
    semantic = ours.generate_semantic(TEXT, sampling=GREEDY, min_eos_p=None, max_duration_s=2.0)
    coarse = ours.generate_coarse(semantic, sampling=GREEDY)
    fine = ours.generate_fine(coarse, sampling=GREEDY)

    settings = theirs.generation_config
    of_semantic = generation.BarkSemanticGenerationConfig(**settings.semantic_config)
    of_coarse = generation.BarkCoarseGenerationConfig(**settings.coarse_acoustics_config)
    of_fine = generation.BarkFineGenerationConfig(**settings.fine_acoustics_config)
    of_semantic.do_sample, of_semantic.min_eos_p, of_semantic.max_new_tokens = False, None, len(semantic)
    of_coarse.do_sample, of_fine.temperature = False, None
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    size = {"padding": "max_length", "max_length": of_semantic.max_input_semantic_length}
    text = tokenizer(TEXT, add_special_tokens=False, return_tensors="pt", **size)
    with torch.inference_mode():
        units = theirs.semantic.generate(
            text["input_ids"], attention_mask=text["attention_mask"], semantic_generation_config=of_semantic
        )
        both = {"semantic_generation_config": of_semantic, "coarse_generation_config": of_coarse}
        both["codebook_size"] = settings.codebook_size
        flat = theirs.coarse_acoustics.generate(units[:, : len(semantic)], **both)
        codes = theirs.fine_acoustics.generate(flat, fine_generation_config=of_fine, **both)
        samples = theirs.codec_decode(torch.from_numpy(fine)[None].long())
    np.testing.assert_array_equal(units[0, : len(semantic)].numpy(), semantic)
    offsets = of_semantic.semantic_vocab_size + settings.codebook_size * np.arange(2)
    np.testing.assert_array_equal(flat[0].numpy().reshape(-1, 2).T - offsets[:, None], coarse)
    np.testing.assert_array_equal(codes[0].numpy(), fine)
    np.testing.assert_allclose(samples[0].numpy(), ours.decode(fine), atol=1e-5)
