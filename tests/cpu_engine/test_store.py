"""Packed weights on disk: read back unchanged, packed again if damaged, and no failure without a usable folder."""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from barkfast import cache
from barkfast.config import GPTConfig
from barkfast.native import load_native, native_status
from barkfast.runtime.cpu import store
from barkfast.runtime.cpu.packing import FORMATS, Packed, pack_network
from barkfast.weights import open_model
from barkfast.weights.random import make_gpt

if load_native() is None:
    pytest.skip(native_status()[1], allow_module_level=True)

CONFIG = GPTConfig(2, 2, 64, 96, 80, 128)
TENSORS = make_gpt(CONFIG, torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own cache folder, which does not exist yet."""
    monkeypatch.setenv("BARKFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_warned", False)
    return tmp_path / "cache"


def open_it(dtype: str = "int8", content: str = "some numbers", tensors: dict | None = None) -> Packed:
    given = TENSORS if tensors is None else tensors
    return store.open_packed(CONFIG, given, dtype, what="the network", content=lambda: content)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "packed").glob("*"))


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_is_found_again_is_what_was_packed(dtype: str, folder: Path):
    first = open_it(dtype)
    # With nothing to pack from, it can only come from the cache.
    again = open_it(dtype, tensors={})
    assert again.pieces == first.pieces
    np.testing.assert_array_equal(again.block, first.block)
    assert again.block.ctypes.data % 64 == 0
    assert not again.block.flags.writeable
    expected = pack_network(CONFIG, TENSORS, dtype, what="the network")
    np.testing.assert_array_equal(first.block, expected.block)
    assert [entry[:5] for entry in again.entries] == [entry[:5] for entry in expected.entries]


def test_the_file_is_a_safetensors_file_whose_data_start_on_a_page(folder: Path):
    from safetensors import safe_open

    packed = open_it()
    (path,) = files(folder)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % 4096 == 0
    assert content[8 + length :] == packed.block.tobytes()
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(TENSORS)
        for piece in packed.pieces:
            np.testing.assert_array_equal(file.get_tensor(piece.name), packed.block[piece.offset : piece.end])


def test_other_content_config_or_dtype_is_another_file(folder: Path):
    open_it()
    open_it(content="other numbers")
    open_it("bfloat16")
    assert len(files(folder)) == 3
    names = {
        store.name_packed(config, "int8", "some numbers")
        for config in (CONFIG, GPTConfig(2, 2, 64, 96, 80, 128, bias=False), GPTConfig(2, 4, 64, 96, 80, 128))
    }
    assert len(names) == 3


def cut_data(content: bytes) -> bytes:
    return content[:-64]


def cut_header(content: bytes) -> bytes:
    return content[:100]


def empty(content: bytes) -> bytes:
    return b""


def lengthen(content: bytes) -> bytes:
    return content + bytes(64)


def zero_the_end(content: bytes) -> bytes:
    """What a file system may leave after a power failure."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def claim_a_huge_header(content: bytes) -> bytes:
    return b"\xff" * 8 + content[8:]


def change_header(content: bytes) -> bytes:
    """Swap the rows and columns of a piece; the length stays the same."""
    changed = content.replace(rb"0, 96, 64,", rb"0, 64, 96,").replace(rb"1, 96, 64,", rb"1, 64, 96,")
    assert changed != content
    return changed


def replace_header(content: bytes) -> bytes:
    return (16).to_bytes(8, "little") + json.dumps({"a": [1]}).ljust(16).encode() + content[24:]


def change_layout(content: bytes) -> bytes:
    changed = content.replace(b'"layout": "1"', b'"layout": "9"')
    assert changed != content
    return changed


@pytest.mark.parametrize(
    "damage",
    [cut_data, cut_header, empty, lengthen, zero_the_end, claim_a_huge_header, change_header, replace_header]
    + [change_layout],
)
def test_a_damaged_file_is_made_again(damage: Callable[[bytes], bytes], folder: Path):
    first = open_it()
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert store.load_packed(path) is None
    np.testing.assert_array_equal(open_it().block, first.block)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("value", ["off", "OFF", "0"])
def test_it_can_be_switched_off(value: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BARKFAST_CACHE", value)
    assert cache.cache_folder() is None
    open_it()
    assert not folder.exists() and not Path(value).exists()


def test_what_has_no_name_is_not_kept(folder: Path):
    store.open_packed(CONFIG, TENSORS, "int8", what="the network")
    assert not folder.exists()


def test_where_it_lies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache.cache_folder() == folder
    monkeypatch.delenv("BARKFAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "barkfast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "barkfast"


def test_a_folder_that_cannot_be_written_costs_one_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    # Permissions do not stop root; a file in the folder's place stops everybody.
    folder.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        first, second = open_it(), open_it("bfloat16")
    assert len(first.pieces) == len(second.pieces) == len(TENSORS)
    (record,) = caplog.records
    assert "cannot be kept in" in record.message and "BARKFAST_CACHE" in record.message


def test_a_full_disk_leaves_nothing_behind(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    open_it()
    assert files(folder) == []
    assert "No space left on device" in caplog.text


def test_abandoned_files_are_removed(folder: Path):
    (folder / "packed").mkdir(parents=True)
    old, new = folder / "packed" / ".aa.part", folder / "packed" / ".bb.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    open_it()
    assert not old.exists() and new.exists()


def _open_in_child(queue: "multiprocessing.Queue[bytes]") -> None:
    queue.put(open_it().block.tobytes())


def test_two_processes_at_once_agree(folder: Path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_open_in_child, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    blocks = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert blocks[0] == blocks[1]
    assert len(files(folder)) == 1


def test_threads_at_once_agree(folder: Path):
    with ThreadPoolExecutor(4) as callers:
        blocks = {packed.block.tobytes() for packed in callers.map(lambda _: open_it(), range(8))}
    assert blocks == {pack_network(CONFIG, TENSORS, "int8", what="the network").block.tobytes()}
    assert len(files(folder)) == 1


def test_a_file_in_use_is_marked_so(folder: Path):
    open_it()
    (path,) = files(folder)
    os.utime(path, (1, 1))
    open_it()
    assert path.stat().st_mtime > time.time() - 60


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"numbers")
    os.utime(path, (1, 1))
    digest = cache.hash_content(path)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "hash_file", lambda path: pytest.fail("it was read again"))
        assert cache.hash_content(path) == digest
    path.write_bytes(b"others!")
    os.utime(path, (2, 2))
    assert cache.hash_content(path) != digest
    (folder / "hashes.json").write_text("{nonsense")
    path.write_bytes(b"numbers")
    os.utime(path, (1, 1))
    assert cache.hash_content(path) == digest


def test_a_file_that_may_still_change_is_not_remembered(tmp_path: Path, folder: Path):
    """Two changes within the resolution of its time stamp would look like one."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"numbers")
    cache.hash_content(path)
    assert not (folder / "hashes.json").exists()


def test_made_networks_are_named_without_being_made(monkeypatch: pytest.MonkeyPatch):
    from barkfast.weights import random

    monkeypatch.setattr(random, "make_gpt", lambda *args: pytest.fail("the network was made"))
    names = {
        open_model(model).stage(stage).content()
        for model in ("random:nano", "random:nano:1", "random:demo")
        for stage in ("text", "coarse", "fine")
    }
    assert len(names) == 9
