"""docs/server.md: its tables say what the server has, and its examples run against a real server."""

import argparse
import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from barkfast.cli import build_parser
from barkfast.server.encoders import ENCODERS
from barkfast.server.speech import OPTIONS
from barkfast.server.voices import OPENAI

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
# Where the page's examples ask.
ADDRESS = "http://127.0.0.1:8000"
FENCES = [token for token in MarkdownIt("commonmark").parse(PAGE) if token.type == "fence"]
PROGRAMS = [fence.content for fence in FENCES if fence.info == "python"]


def rows_of(heading: str) -> list[str]:
    """The rows of the tables below a heading."""
    section = re.split(r"(?m)^##+ ", PAGE.partition(f"# {heading}\n")[2])[0]
    assert section, f"there is no heading {heading!r}"
    return [row for row in section.splitlines() if row.startswith("|")]


def names_in(rows: list[str], pattern: str, cell: int = 1) -> list[str]:
    """The matches in one cell of each row."""
    return [name for row in rows for name in re.findall(pattern, row.split("|")[cell])]


def row_with(rows: list[str], pattern: str) -> str:
    """The one row whose first cell matches."""
    (row,) = (row for row in rows if re.search(pattern, row.split("|")[1]))
    return row


def test_every_option_has_its_row_and_default(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("BARKFAST_SERVE_")]:
        monkeypatch.delenv(name)
    commands = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    options = {action.option_strings[-1]: action.default for action in commands.choices["serve"]._actions}
    del options["--help"]
    rows = rows_of("Options")
    assert sorted(names_in(rows, r"`(--[\w-]+)")) == sorted(options)
    for name, default in options.items():
        row = row_with(rows, rf"`{name}(?![\w-])")
        if default:
            shown = f"{default:g}s" if isinstance(default, float) else default
            assert f"| `{shown}` |" in row


def test_every_field_format_and_voice_has_its_row():
    fields = names_in(rows_of("Speak"), r"`(\w+)`")
    assert len(fields) == len(set(fields)) and set(OPTIONS) <= set(fields)
    formats = rows_of("Formats")
    for name, encoder in ENCODERS.items():
        assert f"| `{encoder.media_type}` |" in row_with(formats, f"`{name}`")
    voices = [line for line in PAGE.splitlines() if line.startswith(("| | alloy", "| N |"))]
    names, numbers = ([cell.strip() for cell in line.split("|")[2:-1]] for line in voices)
    assert dict(zip(names, map(int, numbers), strict=True)) == OPENAI


def test_every_code_of_an_error_has_its_row():
    raised = set()
    for path in (ROOT / "barkfast" / "server").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
                given = [*node.args[2:3], *(word.value for word in node.keywords if word.arg == "code")]
                raised |= {code.value for code in given if isinstance(code, ast.Constant)}
    assert "voice_not_found" in raised
    assert raised <= set(names_in(rows_of("Errors"), r"`([a-z_]+)`", cell=2))


def test_every_metric_has_its_row():
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed (the extra `serve`)")
    from barkfast.server.metrics import Metrics

    metrics = [*Metrics({"version": "1"}).registry.collect()]
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics}
    rows = rows_of("Metrics")
    assert set(names_in(rows, r"`(barkfast_\w+)")) == names
    for metric in metrics:
        assert f"| {metric.type} |" in row_with(rows, rf"`{metric.name}(_total)?[`{{]")


def examples() -> Iterator[tuple[str, str]]:
    """Commands of the page, and what they print, with `...` for what differs."""
    for fence in FENCES:
        if fence.info == "console":
            for example in re.split(r"(?m)^\$ ", fence.content)[1:]:
                command = re.match(r".*(?:\n> .*)*", example).group()
                yield command.replace("\n> ", "\n"), example[len(command) :].strip()


def ready(address: str) -> bool:
    """Whether a server takes requests; "" is none."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=10):
            return True
    except (urllib.error.URLError, ValueError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the demo voice."""
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        pytest.importorskip(module, reason=f"{module} is not installed (the extra `serve`)")
    folder = tmp_path_factory.mktemp("server")
    log = folder / "log"
    program = "import sys; from barkfast.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--model", "demo", "--port", "0"]
    command += ["--allow-upload", "--upload-folder", str(folder / "voices")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BARKFAST_")}
    with log.open("w") as file, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=file) as process:
        try:
            deadline = time.monotonic() + 120
            while not ready(address := "".join(re.findall(r"listening at (http://[\d.:]+)", log.read_text()))):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="bash or curl is not installed")
def test_the_commands_print_what_the_page_shows(server: str, tmp_path: Path):
    shutil.copy(ROOT / "barkfast" / "demo" / "voices" / "calm.npz", tmp_path / "mine.npz")
    assert (tried := [*examples()])
    for command, expected in tried:
        run = ["bash", "-c", command.replace(ADDRESS, server)]
        result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, command
        same = doctest.OutputChecker().check_output(expected + "\n", result.stdout.strip() + "\n", doctest.ELLIPSIS)
        assert same, f"{command}\nprints\n{result.stdout}\nand not\n{expected}"
    assert (tmp_path / "hello.mp3").stat().st_size > 1000


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[0])
def test_the_programs_run(server: str, tmp_path: Path, program: str):
    for module in re.findall(r"(?m)^from ([\w.]+) import", program):
        if find_spec(module.partition(".")[0]) is None or find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    subprocess.run([sys.executable, "-c", program.replace(ADDRESS, server)], cwd=tmp_path, check=True, timeout=60)
