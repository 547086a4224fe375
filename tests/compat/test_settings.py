"""Settings that a program assigns to the module after import take effect when a network is loaded, as in `bark`."""

from pathlib import Path

import pytest
import torch

import barkfast
import barkfast.generation as generation
from barkfast.errors import EngineError, InputError, MissingFileError
from golden.tiny import write_vocabulary
from weights.build import CONFIGS, make_tensors, write_suno

KEY = "transformer.h.0.mlp.c_fc.weight"


def weight(network: object) -> torch.Tensor:
    return network.model.get_parameter(KEY)


def test_cache_dir(unloaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert str(tmp_path / "empty") in generation.CACHE_DIR
    for shift in (1.0, 2.0):
        generation.CACHE_DIR = str(write_suno(tmp_path / f"mine{shift}", stages=("coarse", "fine"), shift=shift))
        coarse = generation.load_model(model_type="coarse", force_reload=shift == 2.0)
        assert torch.equal(weight(coarse), make_tensors("coarse")[KEY] + shift)
        assert generation._get_ckpt_path("coarse") == str(tmp_path / f"mine{shift}" / "coarse_2.pt")
    # Networks that are loaded implicitly come from there too.
    assert torch.equal(weight(generation.current_bark().components.load("fine")), make_tensors("fine")[KEY] + 2)


def test_cache_dir_that_is_empty_is_named(unloaded: None, tmp_path: Path) -> None:
    generation.CACHE_DIR = tmp_path / "nothing here"
    with pytest.raises(MissingFileError, match="nothing here"):
        generation.load_model(model_type="coarse")


@pytest.mark.parametrize(
    ("environment", "assigned", "small"), [("", True, True), ("1", False, False), ("1", None, True)]
)
def test_use_small_models(
    environment: str,
    assigned: bool | None,
    small: bool,
    unloaded: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUNO_USE_SMALL_MODELS", environment)
    generation.CACHE_DIR = str(write_suno(tmp_path, "", stages=("fine",)))
    write_suno(tmp_path, "_2", stages=("fine",), shift=1.0)
    if assigned is not None:
        generation.USE_SMALL_MODELS = assigned
    assert torch.equal(weight(generation.load_model(model_type="fine")), make_tensors("fine")[KEY] + (not small))
    assert generation._get_ckpt_path("fine").endswith("fine.pt" if small else "fine_2.pt")
    # The argument overrides the setting.
    fine = generation.load_model(model_type="fine", use_small=True, force_reload=True)
    assert torch.equal(weight(fine), make_tensors("fine")[KEY])


def test_offload_cpu(nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = []
    monkeypatch.setattr("barkfast.runtime.torch_.TorchCodec.to", lambda self, device: moves.append(device))
    codec = generation.load_codec_model()
    codes = torch.zeros(8, 3, dtype=torch.int64).numpy()
    generation.codec_decode(codes)
    assert moves == [] and codec is generation.models["codec"]
    generation.OFFLOAD_CPU = True
    generation.codec_decode(codes)
    assert moves == ["cpu", "cpu"], "to its device, and away"
    generation.OFFLOAD_CPU = False
    generation.codec_decode(codes)
    assert len(moves) == 2


def test_global_enable_mps(nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BARKFAST_DEVICE")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert generation._grab_best_device() == "cpu"
    generation.GLOBAL_ENABLE_MPS = True
    assert generation._grab_best_device() == "mps" and generation._grab_best_device(use_gpu=False) == "cpu"
    assert generation.current_bark().components.device == "mps"
    generation.GLOBAL_ENABLE_MPS = False
    assert generation.current_bark().components.device == "cpu"


def test_settings_that_nobody_assigned_follow_the_environment(nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, variable in (("USE_SMALL_MODELS", "SUNO_USE_SMALL_MODELS"), ("OFFLOAD_CPU", "SUNO_OFFLOAD_CPU")):
        for value in ("1", "0"):
            monkeypatch.setenv(variable, value)
            assert getattr(generation, name) is (value == "1")
    assert "OFFLOAD_CPU" not in vars(generation)


@pytest.mark.parametrize("engine", ["torch", "cpu", "cuda"])
def test_networks_have_suno_s_configuration(engine: str, nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "cuda":
        pytest.importorskip("triton")
        for name in ("decoder.CudaDecoder", "refiner.CudaRefiner", "codec.CudaCodec"):
            monkeypatch.setattr(f"barkfast.runtime.cuda.{name}.warm_up", lambda self: None)
    monkeypatch.setenv("BARKFAST_ENGINE", engine)
    generation.preload_models()
    networks = [generation.models["text"]["model"], generation.models["coarse"], generation.models["fine"]]
    vocabularies = [(129_600, 10_048), (12_096, 12_096), (1056, 1056)]
    for network, vocabulary in zip(networks, vocabularies, strict=True):
        config = network.config
        assert (config.n_layer, config.n_head, config.n_embd, config.block_size) == (2, 2, 64, 1024)
        assert (config.input_vocab_size, config.output_vocab_size) == vocabulary
        assert (config.dropout, config.bias) == (0.0, False)
        assert network.eval().to("cpu") is network
        if engine == "torch":
            assert next(network.parameters()).device == torch.device("cpu")
            continue
        with pytest.raises(AttributeError, match="'parameters'; networks of the cpu and cuda .*BARKFAST_ENGINE=torch"):
            network.parameters()
        with pytest.raises(EngineError, match="BARKFAST_ENGINE=torch"):
            network(torch.zeros(1, 1, dtype=torch.int64))
    assert (networks[2].config.n_codes_total, networks[2].config.n_codes_given) == (8, 1)


def test_a_network_of_one_s_own_checkpoint(unloaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKFAST_TOKENIZER", str(write_vocabulary(tmp_path / "tokenizer").parent))
    generation.CACHE_DIR = str(write_suno(tmp_path / "cache"))
    write_suno(tmp_path / "tuned", stages=("fine", "text"), shift=1.0)
    fine = generation._load_model(str(tmp_path / "tuned" / "fine_2.pt"), "cpu", model_type="fine")
    assert torch.equal(weight(fine), make_tensors("fine")[KEY] + 1) and fine.config == CONFIGS["fine"]
    text = generation._load_model(str(tmp_path / "tuned" / "text_2.pt"), torch.device("cpu"))
    assert set(text) == {"model", "tokenizer"}
    absent = generation._load_model(str(tmp_path / "absent.pt"), "cpu", model_type="fine")
    assert torch.equal(weight(absent), make_tensors("fine")[KEY])
    assert generation.models == {}


def test_a_seeded_first_call_is_a_seeded_later_call(nano: None) -> None:
    """Loading draws no random numbers, so it does not matter whether anything was loaded before."""
    clips = []
    for _ in range(2):
        torch.manual_seed(7)
        semantic = generation.generate_text_semantic("Hello", max_gen_duration_s=0.2, silent=True)
        clips.append(barkfast.semantic_to_waveform(semantic, silent=True))
    assert torch.equal(*map(torch.from_numpy, clips))


def test_what_has_no_effect(nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced functions are not called, and a replaced `models` has no effect: the first dict stays in use."""

    def never(*args: object, **options: object) -> None:
        raise AssertionError("it was called")

    live = generation.models
    monkeypatch.setattr(generation, "_load_codec_model", never)
    monkeypatch.setattr(generation, "_get_ckpt_path", never)
    generation.models = {}
    codec = generation.load_codec_model()
    assert live["codec"] is codec and generation.models == {}


def test_the_tokenizer_takes_the_argument_of_transformers(nano: None) -> None:
    tokenizer = generation.load_model(model_type="text")["tokenizer"]
    ids = tokenizer.encode("Hello there", add_special_tokens=False)
    assert ids == generation._tokenize(tokenizer, "Hello there") == tokenizer.encode("Hello there")
    with pytest.raises(InputError, match="add_special_tokens is True"):
        tokenizer.encode("Hello there", add_special_tokens=True)
    assert generation._detokenize(tokenizer, ids)
