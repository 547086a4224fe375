"""Every name of `bark` exists with the reference's meaning, or importing it fails with an explanation."""

import importlib

import numpy as np
import pytest
import torch

import barkfast.api
import barkfast.generation
import barkfast.model
import barkfast.model_fine

from .reference import Pair, assert_logits, build_module, import_reference, read_tokenizer

# Left-over loop variables without a meaning, and typing's names.
NOT_MEANT = {"lang", "prefix", "n", "_", "Dict", "Optional", "Union"}
MODULES = ["api", "generation", "model", "model_fine", "cli"]


def both(name: str) -> tuple[object, object]:
    import_reference()
    return importlib.import_module(f"bark.{name}"), importlib.import_module(f"barkfast.{name}")


@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_there_or_refused_with_a_sentence(module: str) -> None:
    reference, ours = both(module)
    everything = {name for name in vars(reference) if not name.startswith("__")} - NOT_MEANT
    own = {name for name in everything if getattr(vars(reference)[name], "__module__", "") == reference.__name__}
    refused = []
    for name in everything if module == "generation" else own:
        try:
            getattr(ours, name)
        except ImportError as error:
            refused.append(name)
            assert f"barkfast.{module} has no '{name}', which bark.{module} has: " in str(error)
    if module == "generation":
        assert set(refused) == set(barkfast.generation._REFUSED)


def test_a_refused_name_says_why_in_an_import() -> None:
    with pytest.raises(ImportError, match="barkfast.generation has no 'autocast', .*BARKFAST_DTYPE"):
        from barkfast.generation import autocast  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from barkfast.generation import nonsense  # noqa: F401


@pytest.mark.parametrize("module", ["api", "generation"])
def test_star_imports_bring_what_bark_s_bring(module: str) -> None:
    reference, _ = both(module)
    ours: dict[str, object] = {}
    exec(f"from barkfast.{module} import *", ours)
    wanted = {name for name in vars(reference) if not name.startswith("_")} - NOT_MEANT
    assert wanted - ours.keys() <= set(barkfast.generation._REFUSED)


@pytest.mark.parametrize("stage", ["text", "coarse"])
@pytest.mark.parametrize("bias", [False, True])
def test_gpt_is_the_reference_s(stage: str, bias: bool) -> None:
    reference = build_module(stage, bias)
    ours = barkfast.model.GPT(barkfast.model.GPTConfig(**vars(reference.config)))
    assert vars(ours.config) == vars(reference.config)
    ours.load_state_dict(reference.state_dict())
    assert ours.eval().get_num_params() == reference.get_num_params()
    assert ours.get_num_params(False) == reference.get_num_params(False)
    ids = torch.arange(3, 3 + 513)[None]
    with torch.inference_mode():
        for merge in (False, True):
            expected, past = reference(ids, merge_context=merge, use_cache=True)
            logits, present = ours(ids, merge_context=merge, use_cache=True)
            assert_logits(logits, expected)
            for step in range(3):
                expected, past = reference(ids[:, step : step + 1], past_kv=past, use_cache=True)
                logits, present = ours(ids[:, step : step + 1], past_kv=present, use_cache=True)
                assert_logits(logits, expected)
            assert len(present) == len(past) and present[0][0].shape == past[0][0].shape
    assert ours(ids[:, :5])[1] is None
    with pytest.raises(ValueError, match="1025 positions"):
        ours(torch.zeros(1, 1025, dtype=torch.int64))


def test_fine_gpt_is_the_reference_s() -> None:
    reference = build_module("fine", True)
    ours = barkfast.model_fine.FineGPT(barkfast.model_fine.FineGPTConfig(**vars(reference.config)))
    ours.load_state_dict(reference.state_dict())
    assert ours.get_num_params() == reference.get_num_params()
    codes = torch.arange(8 * 64).view(1, 64, 8)
    with torch.inference_mode():
        for codebook in (1, 7):
            assert_logits(ours.eval()(codebook, codes), reference(codebook, codes))
    with pytest.raises(ValueError, match="codebook 0 of 8; expected one from 1 to 7"):
        ours(0, codes)


@pytest.mark.parametrize("offset", [1024, 7, None])
def test_flatten_codebooks(offset: int | None) -> None:
    reference, ours = both("generation")
    codes = np.arange(12, dtype=np.int32).reshape(3, 4)
    expected, actual = (module._flatten_codebooks(codes, offset) for module in (reference, ours))
    assert actual.dtype == expected.dtype and np.array_equal(actual, expected)


def test_checkpoint_paths_are_the_reference_s(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, ours = both("generation")
    assert ours.REMOTE_MODEL_PATHS == reference.REMOTE_MODEL_PATHS
    for module in (reference, ours):
        monkeypatch.setitem(vars(module), "CACHE_DIR", "somewhere")
    for stage in ("text", "coarse", "fine"):
        for small in (False, True):
            assert ours._get_ckpt_path(stage, small) == reference._get_ckpt_path(stage, use_small=small)


def test_networks_put_into_models_speak_with_the_reference_s_tokens(pair: Pair) -> None:
    """The reference's own modules, and ours of the same names, with transformers' tokenizer."""
    live, before = pair.barkfast.models, dict(pair.barkfast.models)
    import_reference()
    try:
        for kind in ("the reference's", "ours"):
            for stage in ("text", "coarse", "fine"):
                entry = pair.reference.models[stage]
                network = entry["model"] if stage == "text" else entry
                if kind == "ours":
                    fine = stage == "fine"
                    config = (barkfast.model_fine.FineGPTConfig if fine else barkfast.model.GPTConfig)(
                        **vars(network.config)
                    )
                    twin = (barkfast.model_fine.FineGPT if fine else barkfast.model.GPT)(config)
                    twin.load_state_dict(network.state_dict())
                    network = twin.eval()
                tokenizer = read_tokenizer(pair.files.tokenizer)
                live[stage] = {"model": network, "tokenizer": tokenizer} if stage == "text" else network
            semantic = pair.compare_tokens("generate_text_semantic", "Hello there", max_gen_duration_s=0.4)
            coarse = pair.compare_tokens("generate_coarse", semantic)
            pair.compare_tokens("generate_fine", coarse)
            assert live["coarse"].config.n_embd == 48 and not isinstance(live["coarse"], torch.nn.Module)
        live["fine"] = torch.nn.Linear(2, 2)
        with pytest.raises(ValueError, match=r"models\['fine'\] \(Linear\) has no model_args"):
            pair.barkfast.generate_fine(coarse)
    finally:
        live.clear()
        live.update(before)
