"""EnCodec opened from each of its locations decodes as the model that was saved there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from barkfast.errors import CheckpointError, MissingFileError
from barkfast.files import hash_file
from barkfast.models.encodec import EncodecDecoder
from barkfast.weights import CodecWeights, open_model
from barkfast.weights.codec import fold_weight_norm, open_codec, split_weight_norm

from .build import (
    CODEC,
    fill_codebooks,
    make_encodec,
    needs_encodec,
    needs_transformers,
    write_hf,
    write_hf_bin,
    write_suno,
)

CODES = torch.randint(0, 1024, (1, 8, 20), generator=torch.Generator().manual_seed(0))


def decode(weights: CodecWeights) -> torch.Tensor:
    decoder = EncodecDecoder(weights.config)
    decoder.load_state_dict(weights.tensors)
    with torch.inference_mode():
        return decoder(CODES).flatten()


def decode_hf(codec: Any) -> torch.Tensor:
    with torch.inference_mode():
        return codec.decoder(codec.quantizer.decode(CODES.transpose(0, 1))).flatten()


@pytest.fixture(scope="module")
def th_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """EnCodec's own file, named by its hash as the original is, and the samples that its model decodes."""
    model = make_encodec()
    with torch.inference_mode():
        expected = model.decoder(model.quantizer.decode(CODES.transpose(0, 1))).flatten()
    path = tmp_path_factory.mktemp("th") / "encodec.th"
    torch.save(model.state_dict(), path)
    named = path.with_name(f"encodec_24khz-{hash_file(path)[:8]}.th")
    return path.rename(named), expected


@needs_encodec
@pytest.mark.parametrize("by", ["argument", "folder", "environment", "beside the model", "torch's cache"])
def test_th_file_is_found_and_sounds_as_in_encodec(
    by: str, th_file: tuple[Path, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = th_file
    folder, codec = write_suno(tmp_path / "model"), None
    if by in ("argument", "folder"):
        codec = path if by == "argument" else path.parent
    elif by == "environment":
        monkeypatch.setenv("BARKFAST_CODEC", str(path))
    else:
        place = folder if by == "beside the model" else tmp_path / "torch" / "hub" / "checkpoints"
        place.mkdir(parents=True, exist_ok=True)
        (place / path.name).symlink_to(path)
    weights = open_model(folder, codec=codec).codec()
    torch.testing.assert_close(decode(weights), expected, atol=1e-5, rtol=0)


@needs_encodec
def test_th_file_that_does_not_match_its_name(th_file: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "encodec_24khz-d7cc33bc.th"
    path.symlink_to(th_file[0])
    with pytest.raises(CheckpointError, match="should begin with d7cc33bc, found [0-9a-f]{64}"):
        open_codec(path, 8)


@needs_transformers
@pytest.mark.parametrize("write", [write_hf, write_hf_bin], ids=["parametrizations", "weight_g"])
def test_codec_of_a_bark_folder(write: Callable[[Path], Path], tmp_path: Path) -> None:
    from transformers import BarkModel

    folder = write(tmp_path / "model")
    model = BarkModel.from_pretrained(folder).eval()
    file = next(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    for weights in (open_model(folder).codec(), open_codec(folder, 8), open_codec(file, 8)):
        assert weights.config == CODEC
        torch.testing.assert_close(decode(weights), decode_hf(model.codec_model), atol=1e-5, rtol=0)
    assert sum("quantizer" in key for key in weights.tensors) == 8


@needs_transformers
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_codec_of_an_encodec_folder(kind: str, tmp_path: Path) -> None:
    from transformers import EncodecConfig, EncodecModel

    state = torch.random.get_rng_state()
    model = EncodecModel(EncodecConfig(num_filters=4, hidden_size=32)).eval()
    torch.random.set_rng_state(state)
    fill_codebooks(model)
    model.save_pretrained(tmp_path / "encodec")
    weights = open_codec(tmp_path / "encodec" if kind == "folder" else tmp_path / "encodec" / "model.safetensors", 8)
    assert (weights.config.n_filters, weights.config.dimension) == (4, 32)
    torch.testing.assert_close(decode(weights), decode_hf(model), atol=1e-5, rtol=0)


@needs_transformers
def test_the_named_codec_wins_over_the_models_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_hf(tmp_path / "model")
    monkeypatch.setenv("BARKFAST_CODEC", str(folder))
    assert open_model("random:nano").codec().config == CODEC
    monkeypatch.delenv("BARKFAST_CODEC")
    assert open_model("random:nano", codec=str(folder)).codec().config == CODEC
    assert open_model("random:nano").codec().config.n_filters == 4


def test_fold_weight_norm_against_torch() -> None:
    convolution = torch.nn.utils.parametrizations.weight_norm(torch.nn.ConvTranspose1d(6, 3, 4))
    with torch.no_grad():
        convolution.parametrizations.weight.original0.mul_(3)
    folded = fold_weight_norm({f"a.{key}": value for key, value in convolution.state_dict().items()})
    assert folded.keys() == {"a.weight", "a.bias"}
    torch.testing.assert_close(folded["a.weight"], convolution.weight.detach())


def test_splitting_and_folding_changes_no_bit() -> None:
    weights = open_model("random:nano").codec().tensors
    folded = fold_weight_norm(split_weight_norm(weights))
    assert all(torch.equal(folded[key], weights[key]) for key in weights)


def test_half_a_weight_norm_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"a\.weight_g without a\.weight_v"):
        fold_weight_norm({"a.weight_g": torch.ones(1, 1, 1)})


def test_codec_found_nowhere_names_every_place(tmp_path: Path) -> None:
    folder = write_suno(tmp_path / "model")
    with pytest.raises(MissingFileError) as caught:
        open_model(folder).codec()
    message = str(caught.value)
    for part in (
        "BARKFAST_CODEC",
        str(folder),
        str(tmp_path / "torch"),
        "facebook/encodec_24khz",
        str(tmp_path / "hf"),
    ):
        assert part in message, part


@pytest.mark.parametrize(("content", "error"), [("nothing there", MissingFileError), ("foreign", CheckpointError)])
def test_codec_that_is_none(content: str, error: type[Exception], tmp_path: Path) -> None:
    place = tmp_path / "codec.th"
    if content == "foreign":
        torch.save({"encoder.model.0.weight": torch.ones(1)}, place)
    with pytest.raises(error, match="codec" if content == "nothing there" else r"encoder\.model\.0\.weight"):
        open_codec(place, 8)


def test_empty_folder_is_no_codec(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"encodec_24khz-\*\.th"):
        open_codec(tmp_path, 8)


@needs_transformers
def test_codec_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"use_causal_conv": true', '"use_causal_conv": false'))
    with pytest.raises(CheckpointError, match="use_causal_conv is False"):
        open_model(folder).codec()


@needs_transformers
def test_too_few_codebooks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has 32 codebooks; the model speaks 33"):
        open_codec(write_hf(tmp_path / "model"), 33)
