"""EnCodec's weights: from a Bark file, from EnCodec's own `.th` file, or in Hugging Face's format."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from barkfast.config import CodecConfig
from barkfast.errors import CheckpointError, MissingFileError
from barkfast.fields import read_fields, read_section
from barkfast.files import expand, hash_file
from barkfast.weights.checkpoint import CodecWeights
from barkfast.weights.files import Tensors, read_json, read_tensors
from barkfast.weights.hub import hub_cache, is_repo_id
from barkfast.weights.shapes import list_some
from barkfast.weights.sources import WEIGHT_FILES, Folder, Repo, Source, has_keys, read_weights

BARK_PREFIX = "codec_model."
ENCODEC_REPO = "facebook/encodec_24khz"
TH_FILE = "encodec_24khz-d7cc33bc.th"

_CONFIG_NAMES = {
    "sample_rate": "sampling_rate",
    "codebook_size": "codebook_size",
    "dimension": "hidden_size",
    "n_filters": "num_filters",
    "ratios": "upsampling_ratios",
    "kernel_size": "kernel_size",
    "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size",
    "n_residual_layers": "num_residual_layers",
    "dilation_base": "dilation_growth_rate",
    "compress": "compress",
    "n_lstm_layers": "num_lstm_layers",
    "conv_shortcut": "use_conv_shortcut",
    "trim_right_ratio": "trim_right_ratio",
}
# The only kind of EnCodec that Bark uses, and the only one that barkfast decodes.
_FIXED = {"norm_type": "weight_norm", "use_causal_conv": True, "pad_mode": "reflect", "audio_channels": 1}

_FROM_ENCODEC = (
    (re.compile(r"^(decoder|encoder)\.model\."), r"\1.layers."),
    (re.compile(r"\.(?:convtr\.convtr|conv\.conv)\."), ".conv."),
    (re.compile(r"^quantizer\.vq\.layers\.(\d+)\._codebook\."), r"quantizer.layers.\1.codebook."),
)
_NORM_PAIRS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def open_codec(where: str | os.PathLike, n_codebooks: int) -> CodecWeights:
    """The codec that the user named: a `.th`, `.safetensors` or `.bin` file, a folder, or a hub repository."""
    path = expand(where)
    if path.is_file():
        return _read_file(path, n_codebooks)
    if path.is_dir():
        return _read_folder(path, n_codebooks)
    if is_repo_id(os.fspath(where)):
        return read_source(Repo(os.fspath(where)), n_codebooks)
    raise MissingFileError(
        f"no codec at {os.fspath(where)!r}; expected {TH_FILE}, a folder or file of {ENCODEC_REPO}, a Hugging Face "
        f"Bark folder, or a hub repository"
    )


def find_codec(n_codebooks: int, folder: Path | None = None) -> CodecWeights:
    """The codec of a model without one: from the model's folder, torch's hub cache, the Hugging Face cache or hub."""
    torch_cache = Path(torch.hub.get_dir()) / "checkpoints"
    for place in filter(None, (folder, torch_cache)):
        for path in sorted(place.glob("encodec_24khz-*.th")):
            return read_th(path, n_codebooks)
    try:
        return read_source(Repo(ENCODEC_REPO), n_codebooks)
    except MissingFileError as error:
        places = [f"encodec_24khz-*.th in {place}" for place in (folder, torch_cache) if place]
        raise MissingFileError(
            f"no EnCodec weights: BARKFAST_CODEC is not set; looked for {', '.join(places)}; for {ENCODEC_REPO} in "
            f"{hub_cache()}; and on the hub ({error}). Get them with `hf download {ENCODEC_REPO} config.json "
            f"model.safetensors`, or set BARKFAST_CODEC to such a file or folder"
        ) from error


def read_source(source: Source, n_codebooks: int, prefix: str = "") -> CodecWeights:
    """The codec in Hugging Face's format; `prefix` is "codec_model." inside a Bark checkpoint."""
    path = source.find("config.json")
    if path is None:
        raise MissingFileError(f"{source} has no config.json")
    content, where = read_json(path), str(path)
    if section := read_section(content, "codec_config", where):
        content, prefix, where = dict(section), BARK_PREFIX, f"{where}: codec_config"
    return _build(lambda: read_weights(source, prefix), read_config(content, n_codebooks, where), str(source))


def read_th(path: Path, n_codebooks: int) -> CodecWeights:
    """EnCodec's own file; the digits in `encodec_24khz-d7cc33bc.th`, the start of its SHA-256, are checked."""
    if match := re.search(r"-([0-9a-f]{8,64})\.th$", path.name):
        found = hash_file(path)
        if not found.startswith(match[1]):
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 should begin with {match[1]}, found {found}. Delete it and get it "
                f"again"
            )
    return _build(lambda: read_tensors(path), CodecConfig(n_codebooks=n_codebooks), str(path))


def read_config(section: Mapping[str, Any], n_codebooks: int, where: str) -> CodecConfig:
    """Sizes from EnCodec's config.json, or from the codec_config of a Bark model's."""
    for key, expected in _FIXED.items():
        if section.get(key, expected) != expected:
            raise CheckpointError(f"{where}: {key} is {section[key]!r}; barkfast decodes only {expected!r}")
    return CodecConfig(n_codebooks=n_codebooks, **read_fields(CodecConfig, section, _CONFIG_NAMES, where))


def write_config(config: CodecConfig) -> dict[str, Any]:
    """The inverse of `read_config`; from the bandwidth transformers computes the same number of codebooks."""
    frame_rate = -(-config.sample_rate // config.hop_length)
    bits = (config.codebook_size - 1).bit_length()
    bandwidth = config.n_codebooks * frame_rate * bits / 1000
    values = {hf: getattr(config, ours) for ours, hf in _CONFIG_NAMES.items()}
    values["upsampling_ratios"] = list(config.ratios)
    return {"model_type": "encodec", **_FIXED, **values, "normalize": False, "target_bandwidths": [bandwidth]}


def fold_weight_norm(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Replace each pair (g, v) by g * v / ||v||, the norm taken over all dimensions but the first; fp32."""
    folded = dict(tensors)
    for g_end, v_end in _NORM_PAIRS:
        for key in [key for key in folded if key.endswith(g_end)]:
            stem = key.removesuffix(g_end)
            if stem + v_end not in folded:
                raise CheckpointError(f"weight norm is incomplete: {key} without {stem + v_end}")
            g, v = folded.pop(key).float(), folded.pop(stem + v_end).float()
            folded[f"{stem}.weight"] = _fold_exactly(g, v) if stem.startswith("encoder.") else _fold(g, v)
    return folded


def _fold(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return v * (g / torch.norm_except_dim(v, 2, 0))


def _fold_exactly(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Bit-exact with encodec and transformers: between codes at nearly equal distance the last bit decides."""
    return torch._weight_norm(v, g, 0)


def split_weight_norm(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Undo `fold_weight_norm`, for files that transformers reads: v is the weight, g its norm, so folding is exact."""
    split: Tensors = {}
    for key, value in tensors.items():
        if key.endswith(".conv.weight"):
            split[f"{key}_g"], split[f"{key}_v"] = torch.norm_except_dim(value, 2, 0), value
        else:
            split[key] = value
    return split


def _read_folder(path: Path, n_codebooks: int) -> CodecWeights:
    source = Folder(path)
    if source.find("config.json") and source.find_first(WEIGHT_FILES):
        return read_source(source, n_codebooks)
    for file in sorted(path.glob("encodec_24khz-*.th")):
        return read_th(file, n_codebooks)
    raise MissingFileError(
        f"no codec in {path}; expected encodec_24khz-*.th, or config.json with one of {', '.join(WEIGHT_FILES)}; it "
        f"holds {list_some(p.name for p in path.iterdir()) or 'nothing'}"
    )


def _read_file(path: Path, n_codebooks: int) -> CodecWeights:
    if path.suffix == ".th":
        return read_th(path, n_codebooks)
    beside = path.parent / "config.json"
    content = read_json(beside) if beside.is_file() else {}
    prefix = BARK_PREFIX if has_keys(path, BARK_PREFIX) else ""

    def read() -> Tensors:
        tensors = read_tensors(path, lambda key: key.startswith(prefix))
        return {key.removeprefix(prefix): value for key, value in tensors.items()}

    section = read_section(content, "codec_config", str(beside))
    if not section and content.get("model_type") == "encodec":
        section = content
    return _build(read, read_config(section, n_codebooks, str(beside)), str(path))


def _build(read: Callable[[], Tensors], config: CodecConfig, where: str) -> CodecWeights:
    """The decoder and the used codebooks, with canonical names and folded weight norm; the encoder on demand.

    `read` reads all tensors; it is called again for the encoder, so that its tensors are not in memory before.
    """
    tensors = read()
    named = _rename(tensors)
    available = sum(re.fullmatch(r"quantizer\.layers\.\d+\.codebook\.embed", key) is not None for key in named)
    if not available or not any(key.startswith("decoder.layers.") for key in named):
        raise CheckpointError(f"{where} does not hold EnCodec's decoder and codebooks; it has {list_some(tensors)}")
    if available < config.n_codebooks:
        raise CheckpointError(f"{where} has {available} codebooks; the model speaks {config.n_codebooks}")
    used = {f"quantizer.layers.{i}.codebook.embed" for i in range(config.n_codebooks)}

    def read_encoder() -> Tensors:
        named = _rename(read())
        encoder = {key: value for key, value in named.items() if key.startswith("encoder.layers.")}
        if not encoder:
            raise CheckpointError(
                f"{where} does not hold EnCodec's encoder, which making a voice from a recording needs; get a whole "
                f"codec with `hf download {ENCODEC_REPO} config.json model.safetensors` and set BARKFAST_CODEC to it"
            )
        return _finish(encoder | {key: named[key] for key in used})

    kept = {key: value for key, value in named.items() if key.startswith("decoder.layers.") or key in used}
    return CodecWeights(config, _finish(kept), read_encoder)


def _rename(tensors: Tensors) -> Tensors:
    named: Tensors = {}
    for key, value in tensors.items():
        for pattern, replacement in _FROM_ENCODEC:
            key = pattern.sub(replacement, key)
        named[key] = value
    return named


def _finish(tensors: Tensors) -> Tensors:
    return {key: value.float() for key, value in fold_weight_norm(tensors).items()}
