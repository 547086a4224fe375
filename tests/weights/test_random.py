"""Models made from a seed: the same every time, in Suno's sizes, and without using torch's global generator."""

import pytest
import torch

from barkfast.models.encodec import EncodecDecoder
from barkfast.models.gpt import GPT, KVCache
from barkfast.text import load_tokenizer
from barkfast.weights import STAGES, open_model

from .build import same_tensors

SMALL_ENOUGH = ("random:nano", "random:nano:7", "random:demo")


@pytest.mark.parametrize("name", SMALL_ENOUGH)
def test_same_every_time_in_any_order_and_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, other = open_model(name), open_model(name)
    first = {stage: one.stage(stage).tensors for stage in STAGES}
    torch.manual_seed(2)
    second = {stage: other.stage(stage).tensors for stage in reversed(STAGES)}
    assert all(same_tensors(first[stage], second[stage]) for stage in STAGES)
    assert same_tensors(one.codec().tensors, other.codec().tensors)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_global_generator_is_untouched() -> None:
    before = torch.random.get_rng_state()
    for name in SMALL_ENOUGH:
        checkpoint = open_model(name)
        for stage in STAGES:
            checkpoint.stage(stage)
        checkpoint.codec()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeds_and_stages_differ() -> None:
    def table(name: str, stage: str) -> torch.Tensor:
        return open_model(name).stage(stage).tensors["transformer.wpe.weight"]

    assert torch.equal(table("random:nano", "text"), table("random:nano:0", "text"))
    assert not torch.equal(table("random:nano", "text"), table("random:nano:1", "text"))
    assert not torch.equal(table("random:nano", "text"), table("random:nano", "coarse"))


@pytest.mark.parametrize(("size", "n_layer", "n_head", "n_embd"), [("nano", 2, 2, 64), ("small", 12, 12, 768)])
def test_sizes(size: str, n_layer: int, n_head: int, n_embd: int) -> None:
    config = open_model(f"random:{size}").stage("fine").config
    assert (config.n_layer, config.n_head, config.n_embd, config.bias) == (n_layer, n_head, n_embd, False)


@pytest.mark.parametrize("name", SMALL_ENOUGH)
def test_every_token_id_is_inside_the_vocabularies(name: str) -> None:
    checkpoint = open_model(name)
    semantic, coarse = checkpoint.layout.semantic, checkpoint.layout.coarse
    text, acoustic, fine = (checkpoint.stage(stage).config for stage in STAGES)
    n_texts = 119_547 if checkpoint.folder is None else load_tokenizer(checkpoint).vocab_size
    assert max(semantic.pad_token, semantic.text_pad_token, semantic.infer_token) < text.input_vocab_size
    # Text ids come after the semantic ones and before the padding and the infer token.
    assert semantic.pad_token < semantic.text_offset
    assert semantic.text_offset + n_texts <= semantic.text_pad_token < semantic.infer_token
    assert semantic.pad_token < text.output_vocab_size
    coarse_end = semantic.vocab_size + coarse.n_codebooks * checkpoint.layout.codebook_size
    assert coarse_end <= coarse.semantic_pad_token < acoustic.input_vocab_size
    assert coarse.semantic_pad_token != coarse.infer_token < acoustic.input_vocab_size
    assert coarse_end <= acoustic.output_vocab_size
    assert checkpoint.layout.codebook_size < fine.input_vocab_size


@pytest.mark.parametrize("name", [*SMALL_ENOUGH, "random:small", "random:small:3"])
def test_codec_is_audible_and_does_not_clip(name: str) -> None:
    weights = open_model(name).codec()
    decoder = EncodecDecoder(weights.config)
    decoder.load_state_dict(weights.tensors)
    codes = torch.randint(0, weights.config.codebook_size, (1, 8, 75), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        audio = decoder(codes)
    assert 0.03 < audio.square().mean().sqrt() < 0.2
    assert audio.abs().max() < 1


@pytest.mark.parametrize("stage", ["text", "coarse"])
@pytest.mark.parametrize("name", ["random:nano", "random:demo"])
def test_networks_listen_to_their_context(name: str, stage: str) -> None:
    """A network with flat logits, or with logits that do not depend on the context, would hide errors."""
    weights = open_model(name).stage(stage)
    network = GPT(weights.config)
    network.load_state_dict(weights.tensors)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, weights.config.input_vocab_size, (2, 100), generator=generator)
    prompts[1, 50:] = prompts[0, 50:]
    rows = []
    with torch.inference_mode():
        for prompt in prompts:
            cache = KVCache(weights.config, device=torch.device("cpu"), dtype=torch.float32)
            rows.append(network.logits(network(prompt[None], cache), 0, weights.config.output_vocab_size)[0])
    logits = torch.stack(rows)
    assert logits.std(dim=-1).min() > 1 and logits.std(dim=-1).max() < 4
    assert (logits[0] - logits[1]).abs().max() > 0.05
