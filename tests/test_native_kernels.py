"""The native tests of csrc/tests, built with sanitizers and run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The smallest program that needs the sanitizer's runtime.
HELLO = "int main() { return 0; }\n"


def _run(*command: str | Path, seconds: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        # A preloaded library would come before the sanitizer's runtime.
        env={key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "BARKFAST_CPU_ISA")},
    )


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name
    pytest.skip("there is no C++ compiler ($CXX, c++, g++, clang++) on PATH")


def _require_sanitizer(compiler: str, flag: str, folder: Path) -> None:
    """Skip unless a program built with `flag` links and starts here."""
    source = folder / "hello.cpp"
    source.write_text(HELLO, encoding="utf-8")
    built = _run(*compiler.split(), flag, source, "-o", folder / "hello")
    if built.returncode:
        pytest.skip(f"{compiler} {flag} does not link: {built.stdout.strip()[-200:]}")
    started = _run(folder / "hello")
    if started.returncode:
        pytest.skip(f"a program built with {flag} does not start: {started.stdout.strip()[-200:]}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizer", "flag", "target"),
    [
        ("address", "-fsanitize=address,undefined", "barkfast_tests"),
        ("thread", "-fsanitize=thread", "barkfast_thread_tests"),
    ],
)
def test_native_tests_pass_with_sanitizers(sanitizer: str, flag: str, target: str, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake on PATH")
    compiler = _compiler()
    _require_sanitizer(compiler, flag, tmp_path)
    build = tmp_path / "build"
    chosen = ["env", f"CXX={compiler}", "cmake", f"-DBARKFAST_SANITIZE={sanitizer}"]
    configured = _run(*chosen, "-S", ROOT / "csrc" / "tests", "-B", build)
    assert configured.returncode == 0, configured.stdout[-4000:]
    built = _run("cmake", "--build", build, "--target", target, "--parallel", "2")
    assert built.returncode == 0, built.stdout[-4000:]
    result = _run(build / target)
    assert result.returncode == 0, result.stdout[-4000:]
    last = result.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", last), last
