"""`make house`: how large the repository is, how far a call reads through it, and what stands in it twice.

    python -m tools.house

Counted are the lines of what git tracks: Python, C++, CUDA, shell and build files. Nothing is judged here;
tests/test_house.py holds what must not change.
"""

import ast
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = {".py", ".cpp", ".h", ".cu", ".cuh", ".sh", ".js", ".html", ".css"}
BUILD = {"CMakeLists.txt", "Makefile"}
LONGEST = 450
# Lines that two places must share to be told.
SHARED = 10
NOT_COUNTED = ("import ", "from ", "#include", "# ", "//")
# An import of several lines.
IMPORT = re.compile(r"^from [\w.]+ import \(\n[^)]*\)\n", re.MULTILINE)
# What a caller does -> the program that does it, with `bark` a loaded model.
PATHS = {
    "Bark.generate": "bark.generate('hello there', seed=1, max_duration_s=0.2)",
    "Bark.stream": "[*bark.stream('hello there. good bye', seed=1, max_duration_s=0.2)]",
    "Engine.generate": "asyncio.run(generate())",
    "Engine.stream": "asyncio.run(stream())",
    "barkfast bench": "bench()",
}
PROGRAM = """
import asyncio, contextlib, io, os, sys, threading
sys.path[:0] = [{root!r}, {root!r} + "/kernels"]
from barkfast import Bark, Engine
from barkfast import Engine
package = {root!r} + "/barkfast/"
bark = Bark("random:nano", device="cpu", dtype="float32", engine="torch")
bark.load()
entered = set()

def note(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(package) and code.co_name != "<module>":
        owner = frame.f_locals.get("self")
        entered.add((code.co_filename, type(owner).__qualname__ if owner is not None else ""))

async def generate():
    async with Engine(bark) as engine:
        await engine.generate("hello there", seed=1, max_duration_s=0.2)

async def stream():
    async with Engine(bark) as engine:
        async with engine.stream("hello there. good bye", seed=1, max_duration_s=0.2) as chunks:
            async for _ in chunks:
                pass

def bench():
    from barkfast.cli import main
    with contextlib.redirect_stdout(io.StringIO()):
        main("bench --model random:nano --device cpu --dtype float32 --repeats 1 --seconds 1".split())

threading.setprofile(note)
sys.setprofile(note)
{call}
sys.setprofile(None)
print(len({{name for name, _ in entered}}), len({{(name, owner) for name, owner in entered if owner}}))
"""


def main() -> None:
    """Print the table."""
    sources = read_sources()
    rows = [
        *count_lines(sources),
        *((f"files, classes entered by {name}", trace(call)) for name, call in PATHS.items()),
        *((f"files that {what}", str(len(found))) for what, found in find_places(sources).items()),
        ("import circles", str(len(find_circles(sources)))),
        (f"files over {LONGEST} lines", str(sum(len(lines) > LONGEST for lines in sources.values()))),
        (f"pairs of places that share {SHARED} lines or more", str(len(find_shared(sources)))),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value:>12}")


def read_sources() -> dict[str, list[str]]:
    """Path -> lines, of all code that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name]
    found = [path for path in paths if path.suffix in CODE or path.name in BUILD]
    return {
        str(path): (ROOT / path).read_text(encoding="utf-8").splitlines() for path in found if (ROOT / path).is_file()
    }


def is_test(name: str) -> bool:
    """Whether a file tests others."""
    return name.startswith(("tests/", "csrc/tests/"))


def count_lines(sources: dict[str, list[str]]) -> list[tuple[str, str]]:
    """The sizes of the whole and of some parts."""
    parts = {
        "tests": is_test,
        "measuring (barkfast/bench, benchmarks)": lambda name: name.startswith(("barkfast/bench/", "benchmarks/")),
        "engine/": lambda name: name.startswith("barkfast/engine/"),
    }
    rows = [("lines outside tests", lambda name: not is_test(name)), *parts.items()]
    table = []
    for title, belongs in rows:
        chosen = [lines for name, lines in sources.items() if belongs(name)]
        table.append((f"{title}: files, lines", f"{len(chosen)}, {sum(map(len, chosen))}"))
    return table


def trace(call: str) -> str:
    """How many files and classes of barkfast a call enters; loading is done before."""
    program = PROGRAM.format(root=str(ROOT), call=call)
    env = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    if result.returncode:
        return result.stderr.strip().splitlines()[-1]
    files, classes = result.stdout.split()
    return f"{files}, {classes}"


def find_places(sources: dict[str, list[str]]) -> dict[str, list[str]]:
    """What should be done in one place -> the measuring files that do it, as far as a pattern tells."""
    patterns = {
        "read a clock to measure": r"\bperf_counter\(|enable_timing=True",
        "start processes": r"\bsubprocess\.(Popen|run|check_output)\(|\bProcess\(",
        "write Markdown tables": r"\| ?-{3}|-{3}:? ?\|",
    }
    measuring = {n: lines for n, lines in sources.items() if n.startswith(("barkfast/bench/", "benchmarks/"))}
    return {
        what: [name for name, lines in measuring.items() if re.search(pattern, "\n".join(lines))]
        for what, pattern in patterns.items()
    }


def find_circles(sources: dict[str, list[str]]) -> list[set[str]]:
    """Modules of the package that import each other, those imported by functions included."""
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): ast.parse("\n".join(lines))
        for name, lines in sources.items()
        if name.startswith("barkfast/") and name.endswith(".py")
    }
    reach = {name: {*imports_of(tree, modules)} - {name} for name, tree in modules.items()}
    changed = True
    while changed:
        changed = False
        for targets in reach.values():
            further = set().union(*(reach[target] for target in targets)) - targets
            if further:
                targets |= further
                changed = True
    circles = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in reach if name in reach[name]
    }
    return [set(circle) for circle in circles]


def imports_of(tree: ast.AST, modules: Container[str]) -> Iterator[str]:
    """The modules of the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in inner)


def find_shared(sources: dict[str, list[str]]) -> list[tuple[str, int, str, int, int]]:
    """Two places outside tests that share lines: file, line, file, line, how many; not imports, not comments."""
    text = {}
    for name, lines in sources.items():
        if not is_test(name):
            # Blank lines instead of imports, so that the numbers of the others stay.
            plain = IMPORT.sub(lambda match: "\n" * match[0].count("\n"), "\n".join(lines)).split("\n")
            kept = [(number, line.strip()) for number, line in enumerate(plain, 1) if line.strip()]
            text[name] = [(n, line) for n, line in kept if not line.startswith(NOT_COUNTED)]
    seen: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in text.items():
        for start in range(len(lines) - SHARED + 1):
            seen[tuple(line for _, line in lines[start : start + SHARED])].append((name, start))
    pairs: Counter[tuple[str, str, int]] = Counter()
    first: dict[tuple[str, str, int], tuple[int, int]] = {}
    for places in seen.values():
        for i, (name, start) in enumerate(places):
            for other, other_start in places[i + 1 :]:
                key = (name, other, other_start - start)
                pairs[key] += 1
                first.setdefault(key, (start, other_start))
    found = []
    for (name, other, shift), n in pairs.items():
        a, b = first[name, other, shift]
        found.append((name, text[name][a][0], other, text[other][b][0], n + SHARED - 1))
    return sorted(found, key=lambda pair: -pair[-1])


if __name__ == "__main__":
    main()
