"""Voices: found in every location, checked as the reference checks them, and no pickle is ever run."""

import importlib.util
import io
import json
import os
import pickle
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from barkfast.config import Layout, SemanticLayout
from barkfast.errors import InputError, MissingFileError, VoiceError
from barkfast.voices import VOICE_NAMES, check_voice, check_voice_output, find_voices, load_voice, save_voice

KEYS = ("semantic_prompt", "coarse_prompt", "fine_prompt")


def make_voice(tokens: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    """A voice with the right ratio, in the dtypes of Suno's presets."""
    random = np.random.default_rng(seed)
    fine = random.integers(0, 1024, (8, round(tokens * 75 / 49.9)), dtype=np.int32)
    semantic = random.integers(0, 10_000, tokens)
    return {"semantic_prompt": semantic, "coarse_prompt": fine[:2].astype(np.int64), "fine_prompt": fine}


def write_triple(folder: Path, name: str, voice: dict[str, np.ndarray]) -> dict[str, str]:
    """Write a voice as three .npy files; returns its entry for the index."""
    entry = {key: f"speaker_embeddings/{name}_{key}.npy" for key in KEYS}
    for key in KEYS:
        (folder / entry[key]).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / entry[key], voice[key])
    return entry


def assert_same(voice, other) -> None:
    assert list(voice) == list(other)
    for key in other:
        np.testing.assert_array_equal(voice[key], other[key])
        assert voice[key].dtype == other[key].dtype


@dataclass(frozen=True)
class FakeCheckpoint:
    """The fields that `barkfast.voices` reads from a checkpoint."""

    folder: Path | None = None
    repo: str | None = None
    layout: Layout = Layout()
    name: str = "some model"


@pytest.fixture(autouse=True)
def no_bark(monkeypatch: pytest.MonkeyPatch) -> None:
    """No installed `bark`, unless a test provides one."""
    monkeypatch.setattr("barkfast.voices.locations.bark_folder", lambda: None)


@pytest.fixture
def voice_file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "me.npz", **make_voice())
    return tmp_path / "me.npz"


def test_there_are_261_names():
    assert len(VOICE_NAMES) == 261
    assert {"announcer", "en_speaker_0", "v2/zh_speaker_9"} <= VOICE_NAMES
    assert not {"speaker_0", "v2/announcer"} & VOICE_NAMES


def test_none_a_dict_and_files_load(voice_file: Path):
    assert load_voice(None) is None
    voice = make_voice()
    for given in (voice, str(voice_file), voice_file):
        loaded = load_voice(given)
        assert_same(loaded, voice)
        check_voice(loaded, Layout())


def test_a_folder_of_files_is_searched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "v2").mkdir()
    save_voice(tmp_path / "v2" / "en_speaker_6.npz", make_voice(seed=1))
    save_voice(tmp_path / "me.old.npz", make_voice(seed=2))
    for name, seed in (("v2/en_speaker_6", 1), (f"v2{os.sep}en_speaker_6", 1), ("me.old", 2)):
        assert_same(load_voice(name, folder=tmp_path), make_voice(seed=seed))
        monkeypatch.setenv("BARKFAST_VOICES", str(tmp_path))
        assert_same(load_voice(name), make_voice(seed=seed))
        monkeypatch.delenv("BARKFAST_VOICES")


@pytest.mark.parametrize("index", [True, False])
def test_the_hugging_face_layout_is_read(tmp_path: Path, index: bool):
    voice = make_voice()
    entry = write_triple(tmp_path, "v2/de_speaker_3", voice)
    if index:
        content = {"repo_or_path": "ignored", "v2/de_speaker_3": entry}
        (tmp_path / "speaker_embeddings_path.json").write_text(json.dumps(content))
    for found in (
        load_voice("v2/de_speaker_3", FakeCheckpoint(tmp_path)),
        load_voice("v2/de_speaker_3", folder=tmp_path),
    ):
        assert_same(found, voice)
    assert "v2/de_speaker_3" in find_voices(FakeCheckpoint(tmp_path))


def test_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prompts = tmp_path / "bark" / "assets" / "prompts"
    locations = [tmp_path / "named", tmp_path / "model", tmp_path / "variable", prompts]
    for seed, place in enumerate(locations):
        place.mkdir(parents=True)
        save_voice(place / "announcer.npz", make_voice(seed=seed))
    (tmp_path / "bark" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.undo()
    # Other tests may have imported the real one.
    monkeypatch.delitem(sys.modules, "bark", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BARKFAST_VOICES", str(locations[2]))
    checkpoint = FakeCheckpoint(locations[1])
    assert_same(load_voice("announcer", checkpoint, locations[0]), make_voice(seed=0))
    assert_same(load_voice("announcer", checkpoint), make_voice(seed=1))
    assert_same(load_voice("announcer"), make_voice(seed=2))
    monkeypatch.delenv("BARKFAST_VOICES")
    assert_same(load_voice("announcer"), make_voice(seed=3))
    assert str(prompts) in find_voices()["announcer"]


def test_voices_come_from_the_hub_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    voice = make_voice()
    entry = write_triple(tmp_path, "v2/fr_speaker_1", voice)
    (tmp_path / "speaker_embeddings_path.json").write_text(json.dumps({"v2/fr_speaker_1": entry, "mine": entry}))
    asked = []

    def fetch(repo: str, filename: str, *, optional: bool = False) -> Path | None:
        asked.append((repo, filename))
        return tmp_path / filename

    monkeypatch.setattr("barkfast.voices.locations.fetch_from_hub", fetch)
    assert_same(load_voice("v2/fr_speaker_1"), voice)
    assert_same(load_voice("mine", FakeCheckpoint(repo="owner/model")), voice)
    assert {repo for repo, _ in asked} == {"suno/bark", "owner/model"}
    assert len(asked) == 8
    # Suno's voices do not fit a model with other tokens, and an unknown name is not looked up on the hub.
    asked.clear()
    other = Layout(semantic=SemanticLayout(vocab_size=160))
    with pytest.raises(VoiceError, match="other tokens"):
        load_voice("v2/fr_speaker_1", FakeCheckpoint(layout=other))
    with pytest.raises(VoiceError, match="unknown"):
        load_voice("nobody")
    assert asked == []


def test_the_conventional_paths_serve_where_the_hub_has_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    voice = make_voice()
    write_triple(tmp_path, "speaker_4", voice)

    def fetch(repo: str, filename: str, *, optional: bool = False) -> Path | None:
        return tmp_path / filename if (tmp_path / filename).is_file() else None

    monkeypatch.setattr("barkfast.voices.locations.fetch_from_hub", fetch)
    assert_same(load_voice("speaker_4"), voice)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("v2/en_speaker_66", "v2/en_speaker_6"),
        ("EN_SPEAKER_3", "en_speaker_3"),
        ("anouncer", "announcer"),
        ("v2/en-speaker-1", "v2/en_speaker_1"),
        ("../../me", None),
        ("somebody else entirely", None),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path, name: str, nearest: str | None):
    with pytest.raises(VoiceError, match="is unknown") as error:
        load_voice(name, FakeCheckpoint(tmp_path))
    assert repr(name) in str(error.value) and "barkfast voices" in str(error.value)
    if nearest:
        assert f"did you mean {nearest!r}?" in str(error.value)


def test_a_known_name_that_is_nowhere_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fetch(repo: str, filename: str, *, optional: bool = False) -> Path | None:
        if optional:
            return None
        raise MissingFileError("the network is unplugged")

    monkeypatch.setattr("barkfast.voices.locations.fetch_from_hub", fetch)
    monkeypatch.setenv("BARKFAST_VOICES", str(tmp_path))
    with pytest.raises(VoiceError, match="BARKFAST_VOICES") as error:
        load_voice("v2/ko_speaker_2")
    for said in ("v2/ko_speaker_2", str(tmp_path), "unplugged", "install the bark package"):
        assert said in str(error.value)


@pytest.mark.parametrize("voice", [5, "", " ", ["list"], b"bytes", Path("me.wav")])
def test_what_is_no_voice_is_refused(voice: object):
    with pytest.raises(VoiceError, match=r"\.npz"):
        load_voice(voice)


def test_a_missing_file_or_folder_is_named(tmp_path: Path):
    with pytest.raises(VoiceError, match=r"gone\.npz does not exist"):
        load_voice(tmp_path / "gone.npz")
    with pytest.raises(VoiceError, match="'v2/en_speaker_1', without .npz"):
        load_voice("v2/en_speaker_1.npz")
    with pytest.raises(VoiceError, match="gone.*not a folder"):
        load_voice("me", folder=tmp_path / "gone")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(VoiceError, match=r"folder\.npz"):
        load_voice(tmp_path / "folder.npz")


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("key", KEYS)
def test_a_pickle_inside_is_refused_and_not_run(tmp_path: Path, key: str):
    exploded = tmp_path / "exploded"
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb(exploded)
    np.savez(tmp_path / "bomb.npz", **make_voice() | {key: bomb})
    with pytest.raises(VoiceError, match=rf"bomb\.npz: {key}.*allow_pickle"):
        load_voice(tmp_path / "bomb.npz")
    entry = write_triple(tmp_path, "bomb", make_voice())
    np.save(tmp_path / entry[key], bomb)
    with pytest.raises(VoiceError, match=rf"bomb_{key}\.npy: {key}"):
        load_voice("bomb", folder=tmp_path)
    assert not exploded.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path):
    exploded = tmp_path / "exploded"
    (tmp_path / "bomb.npz").write_bytes(pickle.dumps(Bomb(exploded)))
    with pytest.raises(VoiceError, match=r"bomb\.npz is not an \.npz archive"):
        load_voice(tmp_path / "bomb.npz")
    assert not exploded.exists()


def test_every_truncation_is_noticed(voice_file: Path):
    whole = voice_file.read_bytes()
    for size in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        voice_file.write_bytes(whole[:size])
        with pytest.raises(VoiceError, match=r"me\.npz"):
            load_voice(voice_file)


def test_damage_inside_is_noticed(voice_file: Path):
    damaged = bytearray(voice_file.read_bytes())
    damaged[400:420] = bytes(20)
    voice_file.write_bytes(damaged)
    with pytest.raises(VoiceError, match=r"me\.npz: semantic_prompt cannot be read"):
        load_voice(voice_file)


def test_foreign_files_are_refused(tmp_path: Path):
    np.save(tmp_path / "array.npy", np.arange(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(VoiceError, match="single array"):
        load_voice(tmp_path / "array.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(VoiceError, match=r"other\.npz holds weights; expected semantic_prompt"):
        load_voice(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "bytes.npz", "w") as archive:
        archive.writestr("semantic_prompt.npy", b"not an array")
    with pytest.raises(VoiceError, match=r"bytes\.npz: semantic_prompt"):
        load_voice(tmp_path / "bytes.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("semantic_prompt.npy", header.getvalue())
    with pytest.raises(VoiceError, match=r"huge\.npz: semantic_prompt"):
        load_voice(tmp_path / "huge.npz")


@pytest.mark.parametrize(
    "path",
    ["../secret.npy", "speaker_embeddings/../../secret.npy", "/etc/hostname", "C:\\secret.npy", "..\\secret.npy"],
)
def test_an_index_that_leads_outside_is_not_followed(tmp_path: Path, path: str):
    model = tmp_path / "model"
    entry = write_triple(model, "me", make_voice())
    np.save(tmp_path / "secret.npy", make_voice()["semantic_prompt"])
    (model / "speaker_embeddings_path.json").write_text(json.dumps({"me": entry | {"semantic_prompt": path}}))
    with pytest.raises(VoiceError, match="outside") as error:
        load_voice("me", FakeCheckpoint(model))
    assert repr(path) in str(error.value) and "speaker_embeddings_path.json" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not an index"), ("[1]", "not an index"), ('{"me": {"semantic_prompt": 5}}', "no path for semantic_prompt")],
)
def test_a_broken_index_is_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "speaker_embeddings_path.json").write_text(content)
    with pytest.raises(VoiceError, match=f"speaker_embeddings_path.json.*{message}"):
        load_voice("me", FakeCheckpoint(tmp_path))


def test_a_listed_file_that_is_missing_is_named(tmp_path: Path):
    entry = write_triple(tmp_path, "me", make_voice())
    (tmp_path / "speaker_embeddings_path.json").write_text(json.dumps({"me": entry}))
    (tmp_path / entry["fine_prompt"]).unlink()
    with pytest.raises(VoiceError, match=r"me_fine_prompt\.npy: fine_prompt"):
        load_voice("me", FakeCheckpoint(tmp_path))


def change(key: str, value) -> dict[str, np.ndarray]:
    return make_voice() | {key: value}


VOICE = make_voice()
BAD = {
    "semantic missing": ({k: v for k, v in VOICE.items() if k != "semantic_prompt"}, "no semantic_prompt; it holds"),
    "coarse missing": ({k: v for k, v in VOICE.items() if k != "coarse_prompt"}, "no coarse_prompt"),
    "fine missing": ({k: v for k, v in VOICE.items() if k != "fine_prompt"}, "no fine_prompt"),
    "semantic list": (change("semantic_prompt", [1, 2]), "semantic_prompt is a list"),
    "semantic float": (change("semantic_prompt", np.ones(200)), "semantic_prompt is float64"),
    "coarse bool": (change("coarse_prompt", np.ones((2, 300), bool)), "coarse_prompt is bool"),
    "fine float": (change("fine_prompt", np.ones((8, 300), np.float32)), "fine_prompt is float32"),
    "semantic 2-D": (change("semantic_prompt", np.ones((1, 200), int)), r"semantic_prompt has shape \(1, 200\)"),
    "coarse rows": (change("coarse_prompt", np.ones((3, 300), int)), r"coarse_prompt has shape \(3, 300\)"),
    "fine rows": (change("fine_prompt", np.ones((2, 300), int)), r"fine_prompt has shape .*expected \(8, frames\)"),
    "semantic empty": (change("semantic_prompt", np.ones(0, int)), "semantic_prompt is empty"),
    "coarse empty": (change("coarse_prompt", np.ones((2, 0), int)), "coarse_prompt is empty"),
    "fine empty": (change("fine_prompt", np.ones((8, 0), int)), "fine_prompt is empty"),
    "semantic pad": (change("semantic_prompt", np.full(200, 10_000)), "semantic_prompt holds .*0 to 9999"),
    "coarse pad": (change("coarse_prompt", np.full((2, 301), 1024)), "coarse_prompt holds .*0 to 1023"),
    "fine negative": (change("fine_prompt", np.full((8, 301), -1)), "fine_prompt holds values from -1"),
    "ratio": (change("coarse_prompt", np.ones((2, 330), int)), "330 frames for 200 tokens.*expected 1.5"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_voice_is_refused_naming_key_and_file(tmp_path: Path, name: str):
    voice, message = BAD[name]
    with pytest.raises(VoiceError, match=f"the voice given as a dict.*{message}"):
        check_voice(load_voice(voice), Layout())
    if all(isinstance(array, np.ndarray) for array in voice.values()):
        np.savez(tmp_path / "bad.npz", **voice)
        with pytest.raises(VoiceError, match=rf"bad\.npz.*{message}"):
            check_voice(load_voice(tmp_path / "bad.npz"), Layout())


def test_only_the_parts_that_are_used_are_checked():
    check_voice(BAD["fine missing"][0], Layout(), ("semantic", "coarse"))
    check_voice(BAD["ratio"][0], Layout(), ("semantic", "fine"))
    with pytest.raises(VoiceError, match="semantic_prompt"):
        check_voice(BAD["semantic missing"][0], Layout(), ("coarse",))


def test_the_layout_rules():
    with pytest.raises(VoiceError, match="another model"):
        check_voice(make_voice(), Layout(semantic=SemanticLayout(vocab_size=160)))
    check_voice({key: array.astype(np.uint16) for key, array in make_voice().items()}, Layout())


def test_save_and_load_return_the_same(tmp_path: Path):
    voice = make_voice() | {"speed": np.array([1.5])}
    save_voice(tmp_path / "out.npz", voice)
    assert_same(load_voice(tmp_path / "out.npz"), make_voice())
    with np.load(tmp_path / "out.npz") as saved:
        assert_same(dict(saved), voice)


@pytest.mark.parametrize(
    ("name", "voice", "message"),
    [
        ("old.npz", BAD["fine missing"][0], "fine_prompt"),
        ("old.npz", change("coarse_prompt", [object()]), "coarse_prompt is not a plain array"),
        ("old.npz", 5, "dict"),
        ("old.npy", make_voice(), r"end in \.npz"),
    ],
)
def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path, name: str, voice: object, message: str):
    (tmp_path / "old.npz").write_bytes(b"precious")
    with pytest.raises(VoiceError, match=message):
        save_voice(tmp_path / name, voice)
    assert (tmp_path / "old.npz").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_ctrl_c_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "old.npz").write_bytes(b"precious")
    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_voice(tmp_path / "old.npz", make_voice())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_where_a_voice_goes_is_checked_before_the_work(tmp_path: Path):
    check_voice_output(tmp_path / "new.npz")
    for path in (tmp_path / "new.wav", tmp_path / "gone" / "new.npz"):
        with pytest.raises(InputError):
            check_voice_output(path)
    assert list(tmp_path.iterdir()) == []


def test_the_presets_of_bark_all_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    if importlib.util.find_spec("bark") is None:
        pytest.skip("the reference `bark` is not installed (the extra `reference`)")
    found = find_voices()
    assert VOICE_NAMES | {f"speaker_{n}" for n in range(10)} == set(found)
    for name in found:
        check_voice(load_voice(name), Layout())
    assert load_voice("announcer")["semantic_prompt"].dtype == np.uint16
