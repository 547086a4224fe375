"""EnCodec's encoder gives the codes of the `encodec` package, from every format, and is not read if it is unused."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from barkfast.components import Components
from barkfast.config import CodecConfig
from barkfast.errors import CheckpointError, InputError
from barkfast.models.encodec_encoder import EncodecEncoder
from barkfast.weights import CodecWeights, open_model
from barkfast.weights.codec import open_codec
from barkfast.weights.convert import convert

from .build import fill_codebooks, make_encodec, needs_encodec, needs_transformers, write_hf, write_hf_bin


def load(weights: CodecWeights) -> EncodecEncoder:
    encoder = EncodecEncoder(weights.config)
    encoder.load_state_dict(weights.read_encoder())
    return encoder.eval()


def clip(n_samples: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 1, n_samples, generator=torch.Generator().manual_seed(seed)) * 0.3


@pytest.fixture(scope="module")
def encodec_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, EncodecEncoder, Path]:
    """encodec's model, ours with the same weights, and the file.

    The codebooks are near the model's latents; new ones would be all zeros.
    """
    model, generator = make_encodec(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        frames = model.encoder(clip(24_000))[0].t()
        for i, layer in enumerate(model.quantizer.vq.layers):
            embed, noise = layer._codebook.embed, float(frames.std()) * 0.01 * 0.9**i
            embed.normal_(0, noise, generator=generator)
            if i == 0:
                embed += frames[torch.arange(len(embed)) % len(frames)]
    path = tmp_path_factory.mktemp("encodec") / "codec.th"
    torch.save(model.state_dict(), path)
    return model, load(open_codec(path, 8)), path


@needs_encodec
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_samples=st.integers(1, 4000), batch=st.integers(1, 2), seed=st.integers(0, 99))
@example(n_samples=1, batch=1, seed=0)
@example(n_samples=320, batch=2, seed=0)
@example(n_samples=24_000, batch=1, seed=0)
def test_codes_are_encodec_s(
    n_samples: int, batch: int, seed: int, encodec_file: tuple[torch.nn.Module, EncodecEncoder, Path]
) -> None:
    model, encoder, _ = encodec_file
    wav = clip(n_samples, seed, batch)
    with torch.no_grad():
        ((expected, scale),) = model.encode(wav)
        assert torch.equal(encoder(wav), expected) and scale is None
    if n_samples == 24_000:
        variety = [len(set(codes.tolist())) for codes in expected[0]]
        assert variety[0] > 20 and min(variety) > 1, "one code throughout shows nothing"


@needs_encodec
def test_stereo_as_scripts_make_it_mono(encodec_file: tuple[torch.nn.Module, EncodecEncoder, Path]) -> None:
    model, _, path = encodec_file
    stereo = torch.randn(2, 5000, generator=torch.Generator().manual_seed(2)) * 0.3
    components = made_components(path)
    codec = components.load("codec")
    wav = stereo.mean(0, keepdim=True)[None]
    with torch.no_grad():
        codes = torch.cat([encoded[0] for encoded in codec.encode(wav)], dim=-1).squeeze()
        expected = torch.cat([encoded[0] for encoded in model.encode(wav)], dim=-1).squeeze()
    assert torch.equal(codes, expected) and codes.shape == (8, 16) and codes.dtype == torch.int64
    with pytest.raises(InputError, match=r"\(1, 2, 5000\); expected a tensor of \(batch, 1 channel"):
        codec.encode(stereo[None])


def made_components(codec: Path | None = None, engine: str = "torch", model: str = "random:nano") -> Components:
    options = {"device": "cpu", "dtype": "float32", "small": False, "tokenizer": None}
    return Components(model, engine=engine, codec=codec, **options)  # type: ignore[arg-type]


@needs_transformers
@pytest.mark.parametrize("form", ["parametrizations", "weight_g", "encodec folder", "converted"])
def test_every_format_holds_the_encoder(form: str, tmp_path: Path) -> None:
    from transformers import BarkModel, EncodecConfig, EncodecModel

    folder = tmp_path / "model"
    if form == "encodec folder":
        state = torch.random.get_rng_state()
        model = EncodecModel(EncodecConfig(num_filters=4, hidden_size=32)).eval()
        torch.random.set_rng_state(state)
        fill_codebooks(model)
        model.save_pretrained(folder)
    else:
        (write_hf_bin if form == "weight_g" else write_hf)(folder)
        model = BarkModel.from_pretrained(folder).eval().codec_model
    if form == "converted":
        folder = convert(folder, tmp_path / "converted", voices=False, tokenizer=False)
    wav = clip(6000)
    with torch.no_grad():
        latent = model.encoder(wav)
        encoder = load(open_codec(folder, 8))
        torch.testing.assert_close(encoder.encoder(wav), latent, atol=1e-5, rtol=0)
        assert torch.equal(encoder(wav).transpose(0, 1), model.quantizer.encode(latent, 6.0))


@needs_transformers
def test_transformers_finds_the_encoder_in_a_converted_folder(tmp_path: Path) -> None:
    from transformers import BarkModel

    out = convert("random:nano", tmp_path / "out", voices=False, tokenizer=False)
    _, report = BarkModel.from_pretrained(out, output_loading_info=True)
    assert not [key for key in report["missing_keys"] if key.startswith("codec_model.encoder.")]


@pytest.mark.parametrize("engine", ["torch", "cpu", "cuda"])
def test_a_codec_that_only_speaks_reads_no_encoder(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "cuda":
        pytest.importorskip("triton")
    components = made_components(engine=engine)
    codec = components.load("codec")
    codec.decode(torch.zeros(8, 5, dtype=torch.int64).numpy())
    assert codec._encoder is None
    ((codes, _),) = codec.encode(clip(3200))
    assert codes.shape == (1, 8, 10) and codec._encoder is not None
    assert (codec.sample_rate, codec.channels, codec.quantizer.n_q) == (24_000, 1, 8)
    assert codec.eval() is codec and codec.to("cpu") is codec
    monkeypatch.setattr(codec, "read_encoder", None)
    assert torch.equal(codec.encode(clip(3200))[0][0], codes), "it is read once"


def test_a_file_without_an_encoder_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    folder = convert("random:nano", tmp_path / "model", voices=False, tokenizer=False)
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if ".encoder." not in k}
    save_file(tensors, folder / "model.safetensors")
    codec = made_components(model=str(folder)).load("codec")
    codec.decode(torch.zeros(8, 5, dtype=torch.int64).numpy())
    with pytest.raises(CheckpointError, match="does not hold EnCodec's encoder, .*BARKFAST_CODEC"):
        codec.encode(clip(320))
    again = convert(folder, tmp_path / "again", voices=False, tokenizer=False)
    assert "the codec's encoder is left out" in caplog.text
    assert open_model(again).codec().tensors


def test_an_encoder_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = convert("random:nano", tmp_path / "model", voices=False, tokenizer=False)
    config = json.loads((folder / "config.json").read_text())
    assert CodecConfig().last_kernel_size == 7
    config["codec_config"]["last_kernel_size"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="encoder of the codec|codec for"):
        open_model(folder).codec().read_encoder()


@pytest.mark.parametrize(
    "wav", [[0.0], torch.zeros(320), torch.zeros(1, 1, 0), torch.zeros(1, 1, 9, dtype=torch.int16)]
)
def test_what_is_no_recording_is_refused(wav: object) -> None:
    with pytest.raises(InputError, match="wav (is|holds)"):
        made_components().load("codec").encode(wav)
    with pytest.raises(InputError, match="not all finite"):
        made_components().load("codec").encode(torch.full((1, 1, 320), float("nan")))
