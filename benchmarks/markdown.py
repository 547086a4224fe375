"""Measured figures in the documents: `python -m benchmarks.markdown` (`make results`) writes them from the results.

A document holds blocks, `<!-- results: NAME from FILE -->` to `<!-- end of results -->`. What stands between is made
here, from the newest run of its kind in benchmarks/results and from nothing else. With --check nothing is written, and
the exit status says whether every block is what the run that it names makes of it.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from barkfast.bench.report import VOICES, backend_table, batch_table, number, stage_table
from benchmarks.budget import CPU_DTYPES as DTYPES
from benchmarks.budget import NOT_ASKED_FOR
from benchmarks.pages import PAGES, describe, render_targets
from benchmarks.process import ROOT
from benchmarks.tables import Page, join, make_table, percent
from benchmarks.targets import rows_of, share_of_layer

RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", "docs/performance.md", "docs/streaming.md")
BLOCK = re.compile(
    r"<!-- results: (?P<name>[\w ]+?)(?: from (?P<source>\S+\.json))? -->\n.*?<!-- end of results -->", re.DOTALL
)

Run = Mapping[str, Any]


class PageError(Exception):
    """A document asks for something that no result has."""


def find_run(
    folder: Path, wanted: Callable[[Run], bool], name: str | None = None, section: str | None = None
) -> tuple[Path, Run]:
    """The run of that file name, or the one with the latest date: such as have `section` first, then complete ones.

    Raises: PageError if there is none.
    """
    paths = folder.glob("*.json") if name is None else [folder / name]
    runs = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in paths if path.exists()]
    runs = [(path, run) for path, run in runs if not run.get("smoke") and wanted(run)]
    if not runs:
        raise PageError(f"{folder} has no {name or 'run of this kind'}")
    return max(runs, key=lambda found: (has(found[1], section), is_complete(found[1]), found[1]["environment"]["date"]))


def is_call(*calls: str) -> Callable[[Run], bool]:
    """Whether a run is one of these: "cpu", "gpu", "gpu-full", or "bench"."""
    return lambda run: run.get("call", run["kind"]) in calls


def is_complete(run: Run) -> bool:
    """Whether it came to its end, and was a run of everything."""
    if run["kind"] == "bench":
        return run["status"] == "complete"
    return run["complete"] and not any(step["reason"] == NOT_ASKED_FOR for step in run["steps"])


def has(run: Run, section: str | None) -> bool:
    """Whether something was measured in a section of a run."""
    return section is not None and bool(run.get("sections", {}).get(section, {"rows": []})["rows"])


# --- blocks: lines of Markdown from a run


def machine(path: Path, run: Run) -> list[str]:
    """Which machine, which sources, how complete."""
    environment = run["environment"]
    state = "" if run["complete"] else "**ended early: what it did not reach is missing below**; "
    link = f"[all of it](../benchmarks/results/{path.stem}.md)"
    whose = "" if run["threads"] else f"{run['device']}. "
    head = f"{whose}One run of {environment['date'][:10]}, {run['seconds'] / 60:.0f} minutes, {state}{link}:"
    return [head, "", *describe(run)]


def targets(path: Path, run: Run) -> list[str]:
    return render_targets(run)


def section_page(page: Page, path: Path, run: Run) -> list[str]:
    """A section as the run's own page shows it."""
    section = run["sections"].get(page.section)
    if section is None or not section["rows"]:
        return [f"Not run: {section['reason'] if section else 'the run has no such section'}.", ""]
    # What is not from the run of everything, which the documents describe once, says where it is from.
    kind = "a run that ended early" if not run["complete"] else "a run of some sections"
    source = [] if is_complete(run) else [f"{run['device']}, {run['environment']['date'][:10]}, {kind}:", ""]
    return source + page.lines(section["rows"])


def cpu_clips(path: Path, run: Run) -> list[str]:
    """Real-time factors of a 10 s clip by size, voice and threads, a column per dtype."""
    cases = [
        (size, voice, threads)
        for size in ("small", "large")
        for voice in (True, False)
        for threads in sorted(run["threads"], reverse=True)
    ]
    rows = []
    for size, voice, threads in cases:
        values = [
            [
                r["real_time_factor_median"]
                for r in rows_of(run, "clips", size=size, dtype=d, voice=voice, threads=threads)
            ]
            for d in DTYPES
        ]
        if any(values):
            rows.append((size, "full" if voice else "none", threads, *(v[0] if v else None for v in values)))
    return make_table(["real-time factor", "voice", "threads", *DTYPES], rows)


def cpu_steps(path: Path, run: Run) -> list[str]:
    """Decode steps with all threads; those with fewer are on the run's own page."""
    return BY_SECTION["decode"].lines(rows_of(run, "decode", threads=max(run["threads"])))


def cpu_shares(path: Path, run: Run) -> list[str]:
    """A layer's matrices together, against reading the same memory in turn with them."""
    cases = [(size, threads) for size in ("small", "large") for threads in sorted(run["threads"], reverse=True)]
    rows = [(*case, *(percent(share_of_layer(run, case[0], dtype, case[1])) for dtype in DTYPES)) for case in cases]
    return make_table(["a layer's matrices, share of read bandwidth", "threads", *DTYPES], rows)


def cpu_logits(path: Path, run: Run) -> list[str]:
    """The worst of the three networks, by size and dtype."""
    found: dict[tuple[str, str], float] = {}
    for row in (row for row in rows_of(run, "gate") if "dtype" in row):
        # Runs of before the check was one for all have a figure per network of each size.
        for size, ratio in row.get("rms_ratios", {row.get("size", ""): row.get("rms_ratio")}).items():
            if ratio is not None:
                key = size.split()[0], row["dtype"]
                found[key] = max(found.get(key, 0.0), ratio)
    sizes = [size for size in ("nano", "small", "large") if (size, "float32") in found]
    limits = [t["target"] for d in DTYPES for t in run["targets"] if t["name"].startswith(f"{d} logits")]
    rows: list[tuple[Any, ...]] = [(size, *(found.get((size, dtype)) for dtype in DTYPES)) for size in sizes]
    return make_table(["rms ratio of logits", *DTYPES], [*rows, ("bound that was set", *limits)])


# --- blocks from a result of `barkfast bench`


def describe_bench(run: Run) -> str:
    environment, case = run["environment"], run["case"]
    weights = ", random weights" if case["random_weights"] else ""
    voice = VOICES.get(case["voice"], case["voice"])
    return (
        f"{environment['device']['name']}, {environment['threads']} threads, {environment['date'][:10]}: "
        f"`{case['model']}`{weights}, {case['seconds']:g} s, {voice}."
    )


def bench_backends(path: Path, run: Run) -> list[str]:
    """Who is how fast with the same clip and the same weights."""
    timed = [row for row in run["contenders"] if row["clips"]]
    head, rows = backend_table(timed, timed[0])
    rows = [[f"**{cell}**" if row is rows[0] and i == 3 else cell for i, cell in enumerate(row)] for row in rows]
    return [describe_bench(run), "", *make_table(head, rows)]


def bench_stages(path: Path, run: Run) -> list[str]:
    """What we do in each stage, and how near the machine's limits that is."""
    limits = run["limits"]
    read, flop = number(limits["read_gb_per_s"]), number(limits["tflop_per_s"])
    what = f"Limits measured in the same run: {read} GB/s of reading, {flop} TFLOP/s in {run['case']['dtype']}."
    return [describe_bench(run), "", what, "", *make_table(*stage_table(run["contenders"][0]))]


def bench_batch(path: Path, run: Run) -> list[str]:
    return [describe_bench(run), "", *make_table(*batch_table(run["batch"]))]


BY_SECTION = {page.section: page for page in PAGES}
Render = Callable[[Path, Run], list[str]]
CPU, GPU, BENCH = is_call("cpu"), is_call("gpu", "gpu-full"), is_call("bench")
BLOCKS: dict[str, tuple[Callable[[Run], bool], Render]] = {
    **{f"cpu {name}": (CPU, partial(section_page, page)) for name, page in BY_SECTION.items()},
    **{f"gpu {name}": (GPU, partial(section_page, page)) for name, page in BY_SECTION.items()},
    "cpu machine": (CPU, machine),
    "cpu targets": (CPU, targets),
    "cpu clips": (CPU, cpu_clips),
    "cpu shares": (CPU, cpu_shares),
    "cpu logits": (CPU, cpu_logits),
    "cpu steps": (CPU, cpu_steps),
    "gpu machine": (GPU, machine),
    "gpu targets": (is_call("gpu"), targets),
    "gpu full targets": (is_call("gpu-full"), targets),
    "bench backends": (BENCH, bench_backends),
    "bench stages": (BENCH, bench_stages),
    "bench batch": (BENCH, bench_batch),
}


def fill(text: str, folder: Path = RESULTS, *, anew: bool = True) -> str:
    """The document with all its blocks made from the newest runs, or from those that they name.

    Raises: PageError naming the block.
    """

    def make(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in BLOCKS:
            raise PageError(f"there is no block {name!r}; known are {', '.join(sorted(BLOCKS))}")
        wanted, render = BLOCKS[name]
        try:
            section = None if wanted is BENCH else name.split(" ", 1)[1]
            path, run = find_run(folder, wanted, None if anew else block["source"], section)
            lines = render(path, run)
        except PageError as error:
            raise PageError(f"block {name!r}: {error}") from error
        return f"<!-- results: {name} from {path.name} -->\n\n{join(lines)}\n<!-- end of results -->"

    return BLOCK.sub(make, text)


def main(argv: list[str] | None = None) -> int:
    """Write the documents; 1 if with --check a block is not what its run makes of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if anything would change")
    check, wrong = parser.parse_args(argv).check, False
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = fill(before, anew=not check)
        if after != before and check:
            print(f"{name}: its tables are not what the results say; run `make results`")
            wrong = True
        elif after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{name}: written anew")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
