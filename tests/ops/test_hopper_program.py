"""CUDA sources compiled to machine code: cached on disk by content, rebuilt if the cache is damaged or unusable."""

import stat
from pathlib import Path

import pytest

from barkfast_kernels.hopper.program import ELF, ProgramError, compile_cubin, kept

KEY = "ab" * 32
CUBIN = ELF + b"code"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return tmp_path


def build_once() -> list[bytes]:
    """A list with the result of one build; a second build fails."""
    return [CUBIN]


def test_a_cubin_is_built_once() -> None:
    left = build_once()
    assert kept(KEY, "step.cubin", left.pop) == CUBIN
    assert kept(KEY, "step.cubin", left.pop) == CUBIN
    with pytest.raises(IndexError):
        kept("cd" * 32, "step.cubin", left.pop)


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_cubin_is_built_anew(content: bytes, folder: Path) -> None:
    kept(KEY, "step.cubin", build_once().pop)
    (path,) = folder.rglob("step.cubin")
    path.write_bytes(content)
    assert kept(KEY, "step.cubin", build_once().pop) == CUBIN
    assert path.read_bytes() == CUBIN


def test_where_nothing_can_be_kept_it_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = folder / "file"
    blocked.write_text("not a folder")
    blocked.chmod(stat.S_IREAD)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(blocked))
    for _ in range(2):
        assert kept(KEY, "step.cubin", build_once().pop) == CUBIN


def test_the_compiler_is_asked_once_for_the_same_source(folder: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC's bindings are not installed")
    source, options = 'extern "C" __global__ void nothing() {}', ["--gpu-architecture=sm_90"]
    cubin = compile_cubin(source, options, "nothing.cu")
    assert cubin.startswith(ELF)
    (path,) = folder.rglob("nothing.cu.cubin")
    path.write_bytes(CUBIN)
    assert compile_cubin(source, options, "nothing.cu") == CUBIN
    assert compile_cubin(source + "\n", options, "nothing.cu") == cubin


def test_what_does_not_compile_says_why() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC's bindings are not installed")
    with pytest.raises(ProgramError, match="undefined"):
        compile_cubin('extern "C" __global__ void wrong() { missing(); }', [], "wrong.cu")


def test_its_error_ends_a_capture_as_torchs_own_do() -> None:
    assert issubclass(ProgramError, RuntimeError)
