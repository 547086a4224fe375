"""Edited or damaged files are either read, or refused with one of barkfast's errors; no other exception occurs.

Five kinds: config.json, generation_config.json, voices, weights, tokenizers; by values and by bytes.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from barkfast.config import GPTConfig, Layout, Sampling
from barkfast.errors import BarkfastError, CheckpointError, VoiceError
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import semantic_job
from barkfast.text import Tokenizer
from barkfast.voices import check_voice, load_voice
from barkfast.weights import STAGES, demo, open_model, suno
from barkfast.weights.files import list_keys, read_tensors
from barkfast.weights.random import make_gpt
from barkfast.weights.sources import Folder

from .build import model_args

st = pytest.importorskip("hypothesis.strategies")
from hypothesis import example, given, settings  # noqa: E402

# A damaged pickle may claim any protocol.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
few = settings(max_examples=40)

VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30]), st.floats()),
    *(st.text(max_size=4), st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=2), st.integers())),
)


def paths_in(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path to every value of a JSON document, including values that contain others."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths_in(value, (*path, key))


def replaced(content: Any, path: tuple, value: Any) -> Any:
    """The document with another value at the end of a path."""
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@st.composite
def damaged(draw: Any, whole: bytes) -> bytes:
    """`whole` with a few bytes changed, removed or inserted, or cut off at the end."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, kind = draw(st.integers(0, max(len(data) - 1, 0))), draw(st.integers(0, 3))
        if kind == 0 and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 30))]
        elif kind == 2:
            data[at:at] = draw(st.binary(max_size=8))
        else:
            del data[at:]
    return bytes(data)


def only_ours(work: Callable[[], Any]) -> None:
    """Run it; any exception but barkfast's own fails the test."""
    try:
        work()
    except BarkfastError as error:
        assert len(str(error)) > 10


DEMO = {name: json.loads((demo.FOLDER / name).read_text()) for name in ("config.json", "generation_config.json")}
EDITS = [(name, path) for name, content in DEMO.items() for path in paths_in(content)]


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Read the weights once: they are the same in all examples of the configurations."""
    read = cache(read_tensors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "barkfast.weights.sources.read_tensors",
            lambda path, wanted: {key: value for key, value in read(path).items() if wanted(key)},
        )
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model without its configurations, and with linked weights."""
    place = tmp_path_factory.mktemp("model")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copyfile(demo.FOLDER / name, place / name)
    (place / "model.safetensors").symlink_to(demo.FOLDER / "model.safetensors")
    return place


def use_model(folder: Path) -> None:
    """Open all networks, and lay out a prompt of each stage."""
    checkpoint = open_model(folder)
    for stage in STAGES:
        checkpoint.stage(stage)
    checkpoint.codec()
    layout, greedy = checkpoint.layout, Sampling(0)
    semantic_job(np.arange(5), layout, greedy)
    CoarseWindows(np.zeros(300, np.int64), layout, greedy).next_job()
    FineWindows(np.zeros((layout.coarse.n_codebooks, 30), np.int64), layout, greedy).next_job()


def write_model(folder: Path, edited: str, content: Any) -> None:
    for name, original in DEMO.items():
        (folder / name).write_text(json.dumps(content if name == edited else original))


@settings(max_examples=200)
@given(edit=st.sampled_from(EDITS), value=VALUES)
@example(edit=("config.json", ("semantic_config", "num_heads")), value=0)
@example(edit=("config.json", ("semantic_config",)), value=[])
@example(edit=("generation_config.json", ("semantic_config", "semantic_rate_hz")), value=0)
@example(edit=("generation_config.json", ("fine_acoustics_config", "max_fine_input_length")), value=2**31 - 1)
def test_a_configuration_with_one_value_changed(folder: Path, edit: tuple, value: Any):
    name, path = edit
    write_model(folder, name, replaced(DEMO[name], path, value))
    only_ours(lambda: use_model(folder))


@few
@given(data=st.data(), name=st.sampled_from(sorted(DEMO)))
def test_a_configuration_with_damaged_bytes(folder: Path, data: Any, name: str):
    write_model(folder, "", None)
    (folder / name).write_bytes(data.draw(damaged(json.dumps(DEMO[name]).encode())))
    only_ours(lambda: use_model(folder))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("config.json", ("fine_acoustics_config", "num_layers"), "twelve"),
        ("config.json", ("coarse_acoustics_config", "hidden_size"), [768]),
        ("config.json", ("codec_config", "upsampling_ratios"), 320),
        ("config.json", ("codec_config", "num_filters"), 1.5),
        ("config.json", ("semantic_config", "bias"), "false"),
        ("generation_config.json", ("semantic_config", "eos_token_id"), [10_000]),
        ("generation_config.json", ("coarse_acoustics_config", "coarse_rate_hz"), 0),
        ("generation_config.json", ("sample_rate",), "24 kHz"),
        ("generation_config.json", ("fine_acoustics_config",), "none"),
    ],
)
def test_the_error_names_file_key_and_value(folder: Path, name: str, path: tuple, value: Any):
    write_model(folder, name, replaced(DEMO[name], path, value))
    with pytest.raises(CheckpointError) as error:
        use_model(folder)
    for said in (name, *path, repr(value)):
        assert str(said) in str(error.value)


def test_null_is_what_is_left_out(folder: Path):
    """As for transformers' own configurations, whose defaults are Suno's."""
    edited = replaced(DEMO["generation_config.json"], ("semantic_config", "min_eos_p"), None)
    write_model(folder, "generation_config.json", edited)
    assert open_model(folder).layout.semantic.min_eos_p == Layout().semantic.min_eos_p


def make_voice(folder: Path, **arrays: Any) -> Path:
    good = {
        "semantic_prompt": np.arange(20),
        "coarse_prompt": np.ones((2, 30), np.int32),
        "fine_prompt": np.ones((8, 30), np.int32),
    }
    np.savez(folder / "voice.npz", **(good | arrays))
    return folder / "voice.npz"


def use_voice(path: Path) -> None:
    voice = load_voice(path)
    assert voice is not None
    check_voice(voice, Layout())


@given(data=st.data())
@settings(max_examples=100)
def test_a_voice_with_damaged_bytes(tmp_path_factory: pytest.TempPathFactory, data: Any):
    path = make_voice(tmp_path_factory.getbasetemp())
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    only_ours(lambda: use_voice(path))


@few
@given(
    key=st.sampled_from(["semantic_prompt", "coarse_prompt", "fine_prompt"]),
    value=st.one_of(VALUES.filter(lambda value: value is not None and not isinstance(value, dict)), st.binary()),
)
def test_a_voice_with_another_array(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any):
    path = make_voice(tmp_path_factory.getbasetemp(), **{key: np.asarray(value)})
    with pytest.raises(VoiceError):
        use_voice(path)


SMALL = GPTConfig(1, 1, 4, 12, 12, 8, bias=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A network of a few numbers in files of every kind; file name -> bytes."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    tensors = make_gpt(SMALL, torch.Generator().manual_seed(0))
    save_file(tensors, folder / "new.safetensors")
    content = {"model": tensors, "model_args": model_args(SMALL)}
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def use_weights(path: Path) -> None:
    if path.suffix == ".pt":
        suno.read_stage(path, "text", Folder(path.parent))
    else:
        list_keys(path)
        read_tensors(path)


@given(data=st.data(), name=st.sampled_from(["new.safetensors", "new.pt", "old.pt"]))
@settings(max_examples=150)
def test_weights_with_damaged_bytes(
    weights: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: Any, name: str
):
    path = tmp_path_factory.getbasetemp() / name
    path.unlink(missing_ok=True)
    path.write_bytes(data.draw(damaged(weights[name])))
    only_ours(lambda: use_weights(path))


@few
@given(key=st.sampled_from([*model_args(SMALL), "model", "model_args"]), value=VALUES)
def test_weights_with_other_values(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any):
    content: dict[str, Any] = {"model": make_gpt(SMALL, torch.Generator()), "model_args": model_args(SMALL)}
    (content if key in content else content["model_args"])[key] = value
    path = tmp_path_factory.getbasetemp() / "other.pt"
    torch.save(content, path)
    only_ours(lambda: use_weights(path))


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b"]


def use_tokenizer(path: Path) -> None:
    ids = Tokenizer.from_path(path).encode("Ab ba [MASK] ab, c.")
    assert all(isinstance(token, int) for token in ids)


@given(data=st.data())
@settings(max_examples=150)
def test_a_tokenizer_with_another_value(tmp_path_factory: pytest.TempPathFactory, data: Any):
    content = json.loads(Tokenizer.from_vocabulary(VOCABULARY)._tokenizer.to_str())
    edit = data.draw(st.sampled_from(list(paths_in(content))))
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    path.write_text(json.dumps(replaced(content, edit, data.draw(VALUES))))
    only_ours(lambda: use_tokenizer(path))


SETTINGS = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": False, "spell_out": "english"}


@few
@given(data=st.data(), form=st.sampled_from(["vocab.txt", "tokenizer.json"]))
def test_tokenizer_settings_with_another_value(tmp_path_factory: pytest.TempPathFactory, data: Any, form: str):
    folder = tmp_path_factory.getbasetemp() / f"settings-{form}"
    folder.mkdir(exist_ok=True)
    Tokenizer.from_vocabulary(VOCABULARY)._tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    edited = SETTINGS | {data.draw(st.sampled_from(sorted(SETTINGS))): data.draw(VALUES)}
    (folder / "tokenizer_config.json").write_text(json.dumps(edited))
    only_ours(lambda: use_tokenizer(folder / form))


@few
@given(data=st.data(), name=st.sampled_from(["tokenizer.json", "vocab.txt"]))
def test_a_tokenizer_with_damaged_bytes(tmp_path_factory: pytest.TempPathFactory, data: Any, name: str):
    whole = (
        Tokenizer.from_vocabulary(VOCABULARY)._tokenizer.to_str() if name.endswith("json") else "\n".join(VOCABULARY)
    )
    folder = tmp_path_factory.getbasetemp() / "damaged-tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data.draw(damaged(whole.encode())))
    only_ours(lambda: use_tokenizer(folder / name))


def test_a_tokenizer_without_its_unknown_token(tmp_path: Path):
    content = json.loads(Tokenizer.from_vocabulary(VOCABULARY)._tokenizer.to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(replaced(content, ("model", "unk_token"), "[GONE]")))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot read"):
        use_tokenizer(tmp_path)


@pytest.mark.parametrize("depth", [1_000, 200_000])
def test_json_that_is_nested_too_deeply(tmp_path: Path, depth: int):
    (tmp_path / "config.json").write_text("[" * depth)
    (tmp_path / "tokenizer.json").write_text("[" * depth)
    for work in (lambda: open_model(tmp_path), lambda: use_tokenizer(tmp_path)):
        with pytest.raises(CheckpointError, match=r"\.json"):
            work()
