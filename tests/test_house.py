"""The structure of the repository: direction of imports, cost of an import, packaging and documentation."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "barkfast"

# Room -> the rooms of barkfast it may import. A room is a sub-package or a top-level module; each has an entry, and
# none imports a room that is listed below it:
#   face (api -> generation; bench, cli) -> bark -> single_stages -> engine -> {components, longform}
#   -> {stages, runtime, weights, voices, text, audio} -> models -> config
GROUND = {"errors", "config"}
ROOMS = {
    "errors": set(),
    "alias": {"errors"},
    "cores": set(),
    "import_torch": {"cores"},
    "fields": {"errors"},
    "checks": {"errors"},
    "config": {"errors", "fields", "checks"},
    "locks": set(),
    "jobs": GROUND,
    "files": GROUND,
    "cache": GROUND | {"files"},
    "native": GROUND,
    "models": GROUND,
    "model": {"models", "config"},
    "model_fine": {"model", "models", "config"},
    "stages": GROUND | {"jobs"},
    "runtime": GROUND | {"checks", "cores", "jobs", "files", "cache", "models", "model", "native"},
    "weights": GROUND | {"fields", "files", "cache"},
    "audio": GROUND | {"files"},
    "normalize": GROUND,
    "watermark": GROUND | {"checks", "weights", "audio"},
    "text": GROUND | {"checks", "files", "weights", "normalize"},
    "voices": GROUND | {"checks", "files", "weights"},
}
PIPELINE = {*ROOMS}
ROOMS["components"] = PIPELINE - {"stages"}
ROOMS["longform"] = GROUND | {"voices", "normalize"}
ROOMS["options"] = PIPELINE | {"longform"}
ROOMS["engine"] = PIPELINE | {"components", "longform", "options"}
ROOMS["single_stages"] = ROOMS["engine"] | {"engine"}
ROOMS["bark"] = ROOMS["single_stages"] | {"single_stages"}
# The modules that have the names of `bark`'s own, and what they need.
ROOMS["compat"] = GROUND
ROOMS["custom_networks"] = ROOMS["components"] | {"components"}
ROOMS["generation"] = ROOMS["bark"] | {"bark", "model", "model_fine", "compat", "custom_networks"}
ROOMS["api"] = ROOMS["generation"] | {"generation"}
ROOMS["__init__"] = {*ROOMS}
# "" is `barkfast` itself, the public API.
ROOMS["as_bark"] = {""}
ROOMS["bench"] = {*ROOMS, ""}
ROOMS["server"] = {*ROOMS, ""}
ROOMS["cli"] = {*ROOMS, ""}
ROOMS["__main__"] = ROOMS["cli"] | {"cli"}

# Room -> the packages it may use besides the standard library; a room without an entry may use none.
THIRD_PARTY = {
    "import_torch": {"torch"},
    "fields": set(),
    "checks": {"numpy"},
    "config": set(),
    "jobs": {"numpy"},
    "models": {"torch", "numpy"},
    "stages": {"numpy"},
    "runtime": {"torch", "numpy", "barkfast_kernels"},
    "weights": {"torch", "numpy", "safetensors", "huggingface_hub"},
    "audio": {"numpy", "soundfile"},
    "watermark": {"torch", "numpy"},
    "text": {"tokenizers"},
    "normalize": {"markdown_it"},
    "voices": {"numpy"},
    "components": {"torch"},
    "options": {"numpy"},
    "engine": {"numpy", "tqdm"},
    "longform": {"numpy", "sentencex"},
    "single_stages": {"numpy"},
    "bark": {"numpy"},
    "model": {"torch"},
    "model_fine": {"torch"},
    "compat": {"torch", "numpy"},
    "custom_networks": {"torch"},
    "api": {"numpy"},
    "generation": {"torch", "numpy", "tqdm"},
    "bench": {
        *("torch", "numpy", "barkfast_kernels", "rich", "matplotlib", "transformers", "bark", "encodec"),
        *("psutil", "pynvml", "httpx"),
    },
    "server": {"numpy", "soundfile", "av", "fastapi", "starlette", "uvicorn", "prometheus_client", "wyoming"},
    "cli": {"torch", "numpy", "huggingface_hub", "rich"},
}
KERNELS_MAY_IMPORT = {"torch", "triton", "barkfast_kernels"}
# Loaded with `import barkfast`; any other package is imported by the function that needs it.
AT_IMPORT = {"torch", "numpy"}
# These are themselves imported by the function that needs them, so they may import their packages when loaded.
LATE = {
    PACKAGE / "runtime" / "cuda": {"barkfast_kernels"},
    PACKAGE / "server": {"fastapi", "starlette", "uvicorn", "prometheus_client", "wyoming"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_in(tree: ast.AST, path: Path) -> Iterator[str]:
    """Every dotted name imported anywhere in `tree`, `from a import b` as "a.b", relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*package, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_when_loaded(tree: ast.Module, path: Path) -> Iterator[str]:
    """The imports that run with the module: not those in functions, nor those for type checkers alone."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports_in(node, path)
        else:
            pending += ast.iter_child_nodes(node)


def rooms_imported(names: Iterator[str]) -> set[str]:
    """The rooms of barkfast among dotted names; `from barkfast import X` is the room X, or "" if X is no room."""
    rooms = set()
    for name in names:
        head, _, rest = name.partition(".")
        if head == "barkfast":
            room = rest.partition(".")[0]
            rooms.add(room if room in ROOMS and room != "__init__" else "")
    return rooms


def third_party(names: Iterator[str]) -> set[str]:
    heads = {name.partition(".")[0] for name in names}
    return heads - set(sys.stdlib_module_names) - {"barkfast"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_flow_one_way(path: Path):
    room = room_of(path)
    assert room in ROOMS, f"{name_of(path)}: give the room {room!r} a line in ROOMS"
    upward = rooms_imported(imports_in(parse(path), path)) - ROOMS[room] - {room}
    assert not upward, f"{name_of(path)} imports {sorted(upward)}; {room} may import {sorted(ROOMS[room])}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_packages_are_used_where_they_belong(path: Path):
    room, tree = room_of(path), parse(path)
    foreign = third_party(imports_in(tree, path)) - THIRD_PARTY.get(room, set())
    assert not foreign, f"{name_of(path)} imports {sorted(foreign)}; {room} may not"
    allowed = AT_IMPORT.union(*(packages for folder, packages in LATE.items() if path.is_relative_to(folder)))
    early = third_party(imports_when_loaded(tree, path)) - allowed
    assert not early, f"{name_of(path)} imports {sorted(early)} when loaded; import it in the function that needs it"


def test_the_table_of_rooms_has_no_cycle_and_no_dead_line():
    order = list(ROOMS)
    for room, may_import in ROOMS.items():
        later = {other for other in may_import if other and order.index(other) >= order.index(room)}
        assert not later, f"{room} may import {sorted(later)}, which stand below it"
    assert {room_of(path) for path in MODULES} == set(ROOMS)


def names_bound(tree: ast.Module) -> set[str]:
    """The names that a module has when loaded, in whichever branch they are bound; "*" where it can make any name."""
    names, pending = set(), list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add("*" if node.name == "__getattr__" else node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        else:
            pending += ast.iter_child_nodes(node)
    return names


def test_every_import_names_what_exists():
    """Of the repository's own modules, also those that no test runs: tools, benchmarks, training, examples."""
    roots = [ROOT, ROOT / "kernels", ROOT / "tests"]
    paths = [path for path in repository_files() if path.suffix == ".py"]
    own: dict[str, Path] = {}
    for path in paths:
        for root in roots:
            if path.is_relative_to(root):
                parts = path.relative_to(root).with_suffix("").parts
                own[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    folders = {name.rpartition(".")[0] for name in own}
    bound = {name: names_bound(parse(path)) for name, path in own.items()}
    wrong = []
    for path in paths:
        beside = "" if path.parent in roots else ".".join(path.parent.relative_to(ROOT).parts) + "."
        for name in imports_in(parse(path), path):
            head = name.partition(".")[0]
            if name in own or name in folders or beside + name in own or head not in {*own, *folders}:
                continue
            module, _, attribute = name.rpartition(".")
            names = bound.get(module, bound.get(beside + module, set()))
            if not names & {attribute, "*"}:
                wrong.append(f"{name_of(path)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_kernels_know_only_tensors():
    kernels = ROOT / "kernels"
    assert not (kernels / "__init__.py").exists(), "kernels/ must not be importable: transformers imports `kernels`"
    for path in sorted((kernels / "barkfast_kernels").rglob("*.py")):
        # NVIDIA's bindings are allowed where CUDA is compiled and where the driver is called.
        allowed = KERNELS_MAY_IMPORT | ({"cuda"} if path.parent.name == "hopper" or path.stem == "driver" else set())
        foreign = third_party(imports_in(parse(path), path)) - allowed
        assert not foreign, f"{name_of(path)} imports {sorted(foreign)}"


def test_native_sources_do_not_include_torch():
    for path in sorted((ROOT / "csrc").rglob("*.[ch]*")):
        assert not re.search(r"#include\s*[<\"](torch|ATen|c10)/", path.read_text(encoding="utf-8")), name_of(path)


def python(code: str, **env: str) -> str:
    """Run code in a fresh interpreter in the root of the repository; return its output."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_costs_little_beyond_torch():
    # CPU time, and the best of several runs: wall time would include other load on the machine.
    code = "import time, torch; start = time.process_time(); import barkfast; print(time.process_time() - start)"
    python(code)
    best = min(float(python(code)) for _ in range(3))
    assert best < 0.3, f"import barkfast took {best:.2f} s beyond import torch"


def test_import_touches_neither_network_nor_gpu():
    code = """
import sys
import torch
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.startswith(("socket.", "urllib.")) else None)
before = set(sys.modules)
import barkfast
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
heavy = loaded & {"transformers", "tokenizers", "huggingface_hub", "safetensors", "soundfile", "tqdm", "scipy"}
heavy |= loaded & {"triton", "barkfast_kernels"}
print(events, torch.cuda.is_initialized(), sorted(heavy))
"""
    assert python(code).strip() == "[] False []"


def test_transformers_works_beside_the_repository():
    pytest.importorskip("transformers", reason="transformers is not installed (the extra `reference`)")
    spec = "import importlib.util; spec = importlib.util.find_spec('kernels'); print(spec and spec.origin)"
    assert not python(spec).startswith(str(ROOT)), "the repository must not provide a package named `kernels`"
    assert python("from transformers import BarkModel; print(BarkModel.__name__)").strip() == "BarkModel"


def repository_files() -> list[Path]:
    """What git tracks or would track; outside a checkout, everything that is not hidden or built."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if git.returncode == 0:
        names = git.stdout.decode().split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    built = {"build", "dist", "__pycache__", "_native_build.txt"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(p in built or p.startswith(".") or p.endswith(".egg-info") for p in path.relative_to(ROOT).parts)
    ]


def test_no_file_names_a_machine_path():
    machine_path = re.compile(r"(?<![\w.~/-])/(?:home|root|work|Users|mnt|tmp)/[\w.-]+")
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in machine_path.finditer(text)]
    assert not found


# Words that once stood for the field's own (docs/architecture.md has those). JSON keys that users read are quoted.
ABANDONED = re.compile(
    r"""(?<![\w"'])(seats?|seated|seating|desks?|company|contenders?|exams?|passages?|intake|tickets?|listeners?"""
    r"""|whose turn|led along|came to nothing|for oneself|by whom)(?![\w"'])""",
    re.IGNORECASE,
)


def test_abandoned_words_stay_away():
    found = []
    for path in repository_files():
        name = name_of(path)
        if path.suffix not in (".py", ".h", ".cpp", ".cu", ".cuh", ".md") or path == Path(__file__):
            continue
        # The names of blocks of results are part of the results' format.
        text = re.sub(r"<!-- .*? -->", "", path.read_text(encoding="utf-8"))
        found += [f"{name}: {match.group()}" for match in ABANDONED.finditer(text)]
        found += [f"{name}: Errors:" for _ in re.finditer(r"(?m)^ *(?:\"\"\"[^\n]*)?\bErrors:", text)]
    assert not found


def test_every_environment_variable_is_documented():
    named, read = set(), set()
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"^(?:BARKFAST|SUNO|XDG|HF)_[A-Z0-9_]+$", node.value))
            elif isinstance(node, ast.Call) and re.search(r"\benviron\.get$|\bgetenv$", ast.unparse(node.func)):
                assert isinstance(node.args[0], ast.Constant), f"{name_of(path)}: {ast.unparse(node)} hides the name"
                read.add(node.args[0].value)
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    # Variables of huggingface_hub are named but not read, and have no row in the tables.
    libraries = {name for name in named - read if name.startswith("HF_")}
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)`", page, flags=re.MULTILINE))
    assert (named | read) - libraries == documented
    assert not {name for name in libraries if f"`{name}`" not in page}


@pytest.mark.parametrize(
    ("package", "example"), [(PACKAGE, "py.typed"), (ROOT / "kernels" / "barkfast_kernels", "hopper/device.cuh")]
)
def test_package_data_is_complete(package: Path, example: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"][package.name]
    data = [
        path.relative_to(package).as_posix()
        for path in repository_files()
        if path.is_relative_to(package) and path.suffix != ".py"
    ]
    assert example in data
    unpackaged = [name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)]
    assert not unpackaged, f"not in package-data: {unpackaged}"


def test_every_dependency_has_its_sentence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    required = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        required += extra
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for requirement in required:
        name = re.match(r"[\w.-]+", requirement).group()
        assert f"| `{name}`" in page, f"{name} is not in docs/dependencies.md"


def test_the_versions_agree():
    import barkfast

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert barkfast.__version__ == project["project"]["version"]
