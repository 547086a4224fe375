"""A result of `barkfast bench`: a dict that barkfast/bench/schema.json describes, and its tables for people."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from barkfast.bench.backends import OURS, TORCH
from barkfast.bench.machine import describe_machine
from barkfast.bench.measure import Limits, summarize
from barkfast.bench.roofline import Work
from barkfast.bench.workload import FULL_VOICE, NO_VOICE, STAGES, UNITS, Clip, Workload, is_random
from barkfast.files import replacing

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
COMPLETE, PARTIAL, RED = "complete", "partial", "gate red"
OK, NOT_RUN, FAILED = "ok", "not run", "failed"
# Characters of a line where no terminal says how many it has.
PLAIN_WIDTH = 160
VOICES = {NO_VOICE: "no voice", FULL_VOICE: "a voice that fills every history"}
# What most of the least time of a stage goes into.
BOUNDS = {"read": "reading", "compute": "computing", None: "-"}
NOTES = (
    "share of limit: the time that reading and computing at this machine's own limits would take, over the time taken",
    "GB/s, TFLOP/s: what must be read, and computed of prompts, windows and frames, over the stage's whole time",
    "first audio: bench does not stream, so the first sample comes with the last",
    "memory: the most while speaking, the process's own and, on a GPU, the device's",
)
OVER = "more than 100%: some of what is read stays in caches, which the limit of reading memory leaves out"

Result = dict[str, Any]
Rows = tuple[list[str], list[list[str]]]


def new_result(workload: Workload, repeats: int) -> dict[str, Any]:
    """A result with nothing measured yet; the workload must be resolved."""
    checkpoint = workload.open()
    return {
        "schema": SCHEMA,
        "kind": "bench",
        "status": PARTIAL,
        "seconds": 0.0,
        "environment": describe_machine(workload.device),
        "case": {
            "model": checkpoint.name,
            **{key: getattr(workload, key) for key in ("device", "engine", "dtype", "voice")},
            "seconds": float(workload.seconds),
            "repeats": repeats,
            "seed": workload.seed,
            "random_weights": is_random(checkpoint),
        },
        "gate": {"ok": False, "checks": []},
        "limits": None,
        "contenders": [],
        "batch": [],
    }


def new_row(name: str) -> dict[str, Any]:
    """A backend that has not been loaded yet."""
    head = {"name": name, "version": None, "dtype": "", "status": NOT_RUN, "reason": "the run ended before its turn"}
    found = dict.fromkeys(("real_time_factor", "first_audio_s", "start_up", "memory"))
    return {**head, **found, "clips": [], "stages": []}


def describe_check(check: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the check; numbers that JSON does not have, of logits that are not finite, become null."""

    def finite(number: float | None) -> float | None:
        return None if number is None or not math.isfinite(number) else float(number)

    return {**check, "value": finite(check["value"]), "limit": finite(check["limit"]), "ok": bool(check["ok"])}


def describe_limits(limits: Limits, codec_limits: Limits) -> dict[str, Any]:
    """Both, and every way they were measured; of the codec's dtype the products alone."""
    ways = list(limits.ways)
    names = {way["name"] for way in ways}
    ways += [way for way in codec_limits.ways if way["unit"] == "TFLOP/s" and way["name"] not in names]
    return {"read_gb_per_s": limits.read_gb_per_s, "tflop_per_s": limits.tflop_per_s, "ways": ways}


def describe_clips(
    spoken: Sequence[tuple[int, Clip]], work: Mapping[str, Work], limits: Mapping[str, Limits]
) -> dict[str, Any]:
    """What the clips of a backend amount to.

    Args:
        spoken: seed and clip of each, at least one.
        work, limits: by stage, where known.
    """
    clips = [clip for _, clip in spoken]
    return {
        "clips": [{"seed": seed, "seconds": dict(clip.seconds), "audio_s": clip.audio_s} for seed, clip in spoken],
        "real_time_factor": summarize([clip.real_time_factor for clip in clips]),
        "first_audio_s": summarize([clip.first_audio_s for clip in clips]),
        "stages": [describe_stage(stage, clips, work.get(stage), limits.get(stage)) for stage in STAGES],
    }


def describe_stage(stage: str, clips: Sequence[Clip], work: Work | None, limits: Limits | None) -> dict[str, Any]:
    """One stage of clips, at least one, that are equally long.

    Args:
        work: what the stage must read and compute; None where that is not known.
        limits: of the machine, in the stage's dtype.
    """
    count, seconds = clips[-1].counts[stage], summarize([clip.seconds[stage] for clip in clips])
    line = {
        "stage": stage,
        "count": count,
        "unit": UNITS[stage],
        "s": seconds,
        "ms_per_count": seconds["median"] / count * 1e3,
        **dict.fromkeys(("bytes", "flop", "gb_per_s", "tflop_per_s", "limit", "share")),
    }
    if work is None or limits is None:
        return line
    read = work.bytes / limits.read_gb_per_s / 1e9
    compute = work.flop / limits.tflop_per_s / 1e12
    # A stage that decodes reads for its steps and computes for its prompts, one after the other; for whole windows
    # the weights are read while the machine computes.
    decodes = UNITS[stage] == "tokens"
    return line | {
        "bytes": work.bytes,
        "flop": work.flop,
        "operations": work.operations,
        "gb_per_s": work.bytes / seconds["median"] / 1e9,
        "tflop_per_s": work.flop / seconds["median"] / 1e12,
        "limit": "read" if decodes and read > compute else "compute",
        "share": (read + compute if decodes else compute) / seconds["median"],
    }


def write_result(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Replace `path` in one go."""
    with replacing(path) as file:
        file.write((json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def print_result(result: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print everything in a result; of one whose check failed, what was wrong and no time."""
    console = make_console(file)
    for line in describe_run(result):
        console.print(line, soft_wrap=True)
    console.print()
    if not result["gate"]["ok"]:
        console.print("What is wrong is not timed.")
        return
    if result["status"] == PARTIAL:
        console.print("This run ended early, or something failed: the result is partial.\n")
    timed = [row for row in result["contenders"] if row["clips"]]
    ours = next((row for row in timed if row["name"] == OURS), None)
    if ours is not None:
        show(console, "Where the time of a clip goes", *stage_table(ours))
    if timed:
        show(console, "Side by side, the same clip with the same weights", *backend_table(timed, ours))
    if len(timed) > 1:
        show(console, "Seconds of each stage, medians", *peer_stages(timed))
        for line in describe_slower(timed):
            console.print(f"{line}\n", soft_wrap=True)
    if result["batch"]:
        show(console, "Coarse steps of several jobs together", *batch_table(result["batch"]))
    for row in result["contenders"]:
        if row["status"] != OK:
            console.print(f"{row['name']}: {row['status']}: {row['reason']}", soft_wrap=True)
    if timed:
        over = ours is not None and any((stage["share"] or 0) > 1 for stage in ours["stages"])
        for note in (*NOTES, *([OVER] if over else [])):
            console.print(note, style="dim", soft_wrap=True)


def make_console(file: TextIO | None = None) -> "Console":
    """Of a terminal's own width and colours, or for a file or a pipe wide and plain."""
    from rich.console import Console

    stream = file or sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show(console: "Console", title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with its title; the first column is on the left, numbers on the right."""
    from rich import box
    from rich.table import Table

    table: Table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 1))
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left", no_wrap=not i, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(title, style="bold")
    console.print(table)
    console.print()


def describe_run(result: Mapping[str, Any]) -> Iterator[str]:
    """What was run where, whether it is right, and the machine's limits."""
    environment, workload, gate = result["environment"], result["case"], result["gate"]
    source = environment["source"]
    commit = source["commit"]
    built = f", commit {commit[:12]}{' with changes' if source['dirty'] else ''}" if commit else ""
    torch = environment["packages"].get("torch")
    device = environment["device"]["name"]
    processor = (environment.get("cpu") or {}).get("name")
    beside = f", {processor}" if processor and processor != device else ""
    yield f"barkfast {environment['barkfast']}{built}, torch {torch}, {environment['date']}"
    yield f"{device}{beside}, {environment['threads']} threads"
    random = (
        " (random weights: the time is that of trained ones, the sound is noise)" if workload["random_weights"] else ""
    )
    voice = VOICES.get(workload["voice"], f"voice {workload['voice']}")
    how = f"{workload['engine']} engine, {workload['dtype']}, {voice}"
    yield f"{workload['model']}{random}, {how}, clips of {workload['seconds']:g} s"
    checks = gate["checks"]
    wrong = [check for check in checks if not check["ok"]]
    yield f"gate: {'RED' if not gate['ok'] else 'green'}, {len(checks) - len(wrong)} of {len(checks)} checks hold"
    for check in wrong:
        value, limit = number(check["value"]), number(check["limit"])
        yield f"  {check['name']}: {value} {check['unit']}, limit {limit} {check['note']}".rstrip()
    if result["limits"] is not None:
        read, flop = result["limits"]["read_gb_per_s"], result["limits"]["tflop_per_s"]
        dtype = workload["dtype"]
        yield f"limits measured in this run: {number(read)} GB/s of reading, {number(flop)} TFLOP/s in {dtype}"


def stage_table(row: Mapping[str, Any]) -> Rows:
    """What a backend did in each stage, and how near the machine's limits it came."""
    rows = []
    for stage in row["stages"]:
        times = stage["s"]["median"], stage["s"]["p95"], stage["ms_per_count"]
        rates = stage["gb_per_s"], stage["tflop_per_s"]
        share = "-" if stage["share"] is None else f"{stage['share']:.0%}"
        cells = [stage["stage"], f"{stage['count']} {stage['unit']}", *map(number, (*times, *rates))]
        rows.append([*cells, BOUNDS[stage["limit"]], share])
    return ["stage", "count", "s", "p95 s", "ms each", "GB/s", "TFLOP/s", "bound by", "share of limit"], rows


def backend_table(timed: Sequence[Mapping[str, Any]], ours: Mapping[str, Any] | None) -> Rows:
    """The backends that were timed, one under the other."""
    rows = []
    for row in timed:
        factor, memory, start = row["real_time_factor"], row["memory"], row["start_up"]
        times = "" if ours is None or row is ours else f"{factor['median'] / ours['real_time_factor']['median']:.1f}"
        sizes = [] if memory is None else [memory["rss_bytes"], memory["device_bytes"]]
        rows.append(
            [
                f"{row['name']} {row['version'] or ''}".strip(),
                row["dtype"],
                str(factor["n"]),
                number(factor["median"]),
                number(factor["p95"]),
                number(row["first_audio_s"]["median"]),
                "" if start is None else f"{number(start['import_s'])} + {number(start['load_s'])}",
                " + ".join(f"{size / 1e9:.2f}" for size in sizes if size is not None),
                times,
            ]
        )
    head = ["", "dtype", "clips", "real-time factor", "p95", "first audio s", "import + load s", "memory GB"]
    if len(rows) == 1:
        return head, [row[:-1] for row in rows]
    return [*head, f"times {OURS}'s"], rows


def peer_stages(timed: Sequence[Mapping[str, Any]]) -> Rows:
    """Medians by backend and stage."""
    rows = []
    for row in timed:
        medians = {stage["stage"]: stage["s"]["median"] for stage in row["stages"]}
        rows.append([row["name"], *(number(medians[stage]) if stage in medians else "" for stage in STAGES)])
    return ["", *STAGES], rows


def describe_slower(timed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which stages are slower than barkfast's engine in plain torch, where that was timed beside another."""
    rows = {row["name"]: row for row in timed}
    if OURS not in rows or TORCH not in rows:
        return
    ours, plain = ({s["stage"]: s["s"]["median"] for s in rows[name]["stages"]} for name in (OURS, TORCH))
    ratios = {stage: round(ours[stage] / plain[stage], 2) for stage in STAGES}
    slower = [f"{stage} {ratio:.2f} times its time" for stage, ratio in ratios.items() if ratio > 1]
    engine = f"the torch engine in {rows[TORCH]['dtype']}"
    yield f"SLOWER than {engine}: {', '.join(slower)}" if slower else f"no stage is slower than {engine}"


def batch_table(batch: Sequence[Mapping[str, Any]]) -> Rows:
    """What a step costs by the number of jobs it advances."""
    alone = next((row["tokens_per_s"] for row in batch if row["batch"] == 1), None)
    rows = []
    for row in batch:
        step, rate = row["ms_per_step"], row["tokens_per_s"]
        times = "" if alone is None else f"{rate / alone:.2f}"
        rows.append([str(row["batch"]), number(step["median"]), number(step["p95"]), f"{rate:.0f}", times])
    return ["together", "ms per step", "p95", "tokens/s", "times one alone"], rows


def number(value: float | None) -> str:
    """Three digits, or all before the point; a dash where there is no number."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
