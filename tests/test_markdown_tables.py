"""The tables in the documents match the results that they name."""

import json
from pathlib import Path

import pytest

from benchmarks import markdown
from benchmarks.budget import cpu_budget
from benchmarks.results import merge

SERVED = ("sentences", "seconds", "audio_s", "real_time_factor", "times_one_by_one")
DOCUMENT = "before\n\n<!-- results: {} -->\nold\n<!-- end of results -->\n\nafter\n"


def make_run(date: str, seconds: float, *, complete: bool = True) -> dict:
    """A run in which only history was measured."""
    row = {"row": "small", "max_coarse_history": 60, "seconds": seconds, "windows": 25, "tokens": 1500, "threads": 2}
    fragments = {
        "environment": {
            "rows": [{"row": "e", "date": date, "device": {"name": "a CPU"}}],
            "failures": [],
            "complete": True,
        },
        "history": {"rows": [row], "failures": [], "complete": True},
    }
    gate = {"open": True, "dtypes": ["float32"], "reason": ""}
    budget = cpu_budget((2,))
    return merge(budget=budget, smoke=False, complete=complete, seconds=60, steps=[], fragments=fragments, gate=gate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = {
        "old": make_run("2026-01-01T00:00:00Z", 3.25),
        "new": make_run("2026-02-01T00:00:00Z", 2.5),
        "partial": make_run("2026-03-01T00:00:00Z", 1.75, complete=False),
        "smoke": make_run("2026-04-01T00:00:00Z", 9.0) | {"smoke": True},
    }
    for name, run in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(run), encoding="utf-8")
    return tmp_path


def test_the_documents_are_what_the_results_make_of_them() -> None:
    assert markdown.main(["--check"]) == 0, "run `make results`"


def test_a_block_is_made_from_the_newest_complete_run(folder: Path) -> None:
    text = markdown.fill(DOCUMENT.format("cpu history"), folder)
    assert "results: cpu history from new.json" in text
    assert "2.5" in text and "3.25" not in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n")


def test_a_block_can_be_made_again_from_the_run_it_names(folder: Path) -> None:
    text = markdown.fill(DOCUMENT.format("cpu history from old.json"), folder, anew=False)
    assert "from old.json" in text and "3.25" in text
    assert markdown.fill(text, folder, anew=False) == text
    typed = text.replace("3.25", "1.25")
    assert markdown.fill(typed, folder, anew=False) != typed


def test_a_run_of_some_sections_stands_back_behind_a_run_of_all_but_not_for_what_only_it_has(folder: Path) -> None:
    narrow = make_run("2026-05-01T00:00:00Z", 0.25)
    narrow["steps"] = [{"name": "load", "status": "not run", "reason": "not asked for"}]
    (folder / "narrow.json").write_text(json.dumps(narrow), encoding="utf-8")
    assert "from new.json" in markdown.fill(DOCUMENT.format("cpu history"), folder)
    narrow["sections"]["serving"] = {"rows": [{"row": "eight", **dict.fromkeys(SERVED, 1.5)}], "reason": ""}
    (folder / "narrow.json").write_text(json.dumps(narrow), encoding="utf-8")
    assert "from new.json" in markdown.fill(DOCUMENT.format("cpu history"), folder)
    text = markdown.fill(DOCUMENT.format("cpu serving"), folder)
    assert "from narrow.json" in text and "eight | 1.5" in " ".join(text.split())


def test_what_was_not_run_is_called_so(folder: Path) -> None:
    assert "Not run" in markdown.fill(DOCUMENT.format("cpu batch"), folder)


def test_what_no_result_has_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(markdown.PageError, match="no block 'cpu weather'; known are .*cpu batch"):
        markdown.fill(DOCUMENT.format("cpu weather"), folder)
    with pytest.raises(markdown.PageError, match="block 'cpu history': .* has no gone.json"):
        markdown.fill(DOCUMENT.format("cpu history from gone.json"), folder, anew=False)
    with pytest.raises(markdown.PageError, match="no run of this kind"):
        markdown.fill(DOCUMENT.format("cpu history"), tmp_path / "empty")
