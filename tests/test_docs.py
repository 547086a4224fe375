"""The documentation: the API page names what is public, pages and links are complete, the site can be built."""

import argparse
import importlib
import inspect
import operator
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

import barkfast
from barkfast.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "barkfast" / "demo" / "README.md", *DOCS]
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
DOCUMENTED = [name for page in DOCS for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def find_object(name: str) -> Any:
    """What a dotted name stands for: an attribute of the longest module in it."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_the_api_page_has_every_public_name_once_and_no_other():
    assert [name for name, count in Counter(DOCUMENTED).items() if count > 1] == []
    names = {name.removeprefix("barkfast.") for name in DOCUMENTED}
    assert {name for name in names if "." not in name} == set(barkfast.__all__)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_the_api_page_names_exists_and_is_described(name: str):
    documented = find_object(name)
    if inspect.isclass(documented) or inspect.isroutine(documented):
        assert documented.__doc__
    for member, value in vars(documented).items() if inspect.isclass(documented) else ():
        if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{member} has no docstring"


@pytest.mark.parametrize(
    "name",
    ["Bark.generate", "Bark.stream", "Bark.generate_long", "Bark.generate_script", "Engine.generate", "Engine.stream"],
)
def test_help_describes_every_argument_once_in_the_order_of_the_signature(name: str):
    method = operator.attrgetter(name)(barkfast)
    sections = re.findall(r"^Args:\n((?: .*\n)+)", inspect.getdoc(method), flags=re.MULTILINE)
    assert len(sections) == 1
    described = re.findall(r"^    (\w+): \S", sections[0], flags=re.MULTILINE)
    assert described == list(inspect.signature(method).parameters)[1:]


def test_the_navigation_lists_every_page():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r": (\S+\.md)$", nav, flags=re.MULTILINE)) == sorted(map(name_of, PAGES))


def tokens_of(page: Path) -> Iterator[Any]:
    """The tokens of a Markdown page, those within lines included."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, made as Markdown viewers of code hosts make them."""
    anchors: Counter[str] = Counter()
    found = set()
    heading = False
    for token in tokens_of(page):
        if token.type == "inline" and heading:
            text = "".join(child.content for child in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{anchors[slug]}" if anchors[slug] else slug)
            anchors[slug] += 1
        heading = token.type == "heading_open"
    return found


def test_anchors_are_made_as_viewers_make_them(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# On a GPU\n\n## Markdown, and `normalize`\n\n## On a GPU\n\n    # code\n", encoding="utf-8")
    assert anchors_of(page) == {"on-a-gpu", "markdown-and-normalize", "on-a-gpu-1"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    broken = []
    for token in tokens_of(page):
        target = token.attrs.get("href", token.attrs.get("src"))
        if target is None or re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        # A folder has no page in the site.
        if not linked.is_file() or not linked.is_relative_to(ROOT) or (anchor and anchor not in anchors_of(linked)):
            broken.append(target)
    assert not broken


def code_of(page: Path) -> Iterator[str]:
    """The lines of code on a page, without what is between quotes; a line that ends in a backslash continues."""
    for token in tokens_of(page):
        if token.type in ("code_inline", "code_block", "fence"):
            text = token.content.replace("\\\n", " ")
            yield from re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", '""', text).splitlines()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path):
    parsers = next(
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ).choices
    targets = set(re.findall(r"[\w-]+", " ".join(re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text()))))
    unknown = []
    for line in code_of(page):
        for command, rest in re.findall(r"(?<![\w./-])(?<!from )(?<!import )barkfast ([a-z]+)\b([^|<#;]*)", line):
            options = re.findall(r"(?<!\S)-{1,2}[a-z][\w-]*", rest)
            if command not in parsers or not set(options) <= set(parsers[command]._option_string_actions):
                unknown.append(line)
        unknown += [f"make {target}" for target in re.findall(r"(?<!\S)make ([a-z-]+)", line) if target not in targets]
        for module in re.findall(r"python -m ((?:barkfast|benchmarks|tools|training)\b[\w.]*)", line):
            # Of a package, __main__.py is run.
            path = ROOT / module.replace(".", "/")
            if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
                unknown.append(line)
    assert not unknown


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("mkdocs") is None or find_spec("mkdocstrings_handlers") is None:
        pytest.skip("mkdocs or mkdocstrings-python is not installed (the extra `docs`)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_site_needs_no_network(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert site / "docs" / "api.html" in pages
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert tags and not [tag for tag in tags if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", [barkfast.Bark, barkfast.Engine])
def test_the_site_has_the_signatures_that_python_has(site: Path, kind: type):
    html = (site / "docs" / "api.html").read_text(encoding="utf-8")
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_"):
            continue
        _, found, rest = html.partition(f'id="barkfast.{kind.__name__}.{name}"')
        assert found
        section = re.sub(r"<[^>]+>", "", rest.partition("<h4")[0])
        signature = section[section.index(f"{name}(") : section.index(") -&gt;")]
        parameters = list(inspect.signature(method).parameters)[1:]
        assert re.findall(r"(?<!\w)(\w+): ", signature) == parameters
        described = section.partition(") -&gt;")[2]
        # Where it is described, an argument stands in a line of its own.
        assert [parameter for parameter in parameters if not re.search(rf"(?m)^\s*{parameter}\s*$", described)] == []
