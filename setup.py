"""Build the optional native module through CMake; everything else is declared in pyproject.toml.

Without CMake or a C++17 compiler the install still succeeds: the module is left out, and the reason is written to
`barkfast/_native_build.txt`, where `barkfast info` finds it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuildError(Exception):
    """CMake is absent, or one of its steps failed."""


def run_cmake(*args: str) -> None:
    """Run one CMake step. Raises: CMakeBuildError, with the first error line of its output."""
    command = ["cmake", *args]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(result.stdout, flush=True)
    if result.returncode:
        lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
        first = next((i for i, line in enumerate(lines) if "error" in line.lower()), len(lines) - 1)
        detail = " ".join(lines[first : first + 3])[:300]
        raise CMakeBuildError(f"`{' '.join(command[:2])} ...` failed with status {result.returncode}: {detail}")


class BuildNative(build_ext):
    """`build_ext` whose only extension comes from CMakeLists.txt and may be missing."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        homes = [target.parent, ROOT / "barkfast"] if self.editable_mode else [target.parent]
        for home in homes:
            # A module of an earlier build must not remain in use with newer sources.
            (home / target.name).unlink(missing_ok=True)
            (home / "_native_build.txt").unlink(missing_ok=True)
        try:
            self.build_with_cmake(target)
        except (CMakeBuildError, OSError) as error:
            print(f"barkfast: installing without the native module: {error}", file=sys.stderr, flush=True)
            for home in homes:
                (home / "_native_build.txt").write_text(f"{error}\n", encoding="utf-8")

    def build_with_cmake(self, target: Path) -> None:
        if shutil.which("cmake") is None:
            raise CMakeBuildError("cmake was not found on PATH when barkfast was installed")
        import pybind11

        build = Path(self.build_temp).resolve() / "cmake"
        # A build folder caches the compilers and interpreters of earlier builds, so start clean; the build is small.
        shutil.rmtree(build, ignore_errors=True)
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(target.parent),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "BARKFAST_MODULE_FILE": target.name,
        }
        run_cmake("-S", str(ROOT), "-B", str(build), *(f"-D{key}={value}" for key, value in options.items()))
        run_cmake("--build", str(build), "--config", "Release", "--parallel")
        if not target.exists():
            raise CMakeBuildError(f"the build succeeded but left no {target.name}")


setup(
    ext_modules=[Extension("barkfast._native", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative},
)
