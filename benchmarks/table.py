"""Results for people: Markdown whose columns also line up in a terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
# Title, section, how its rows are shown.
Pages = Sequence[tuple[str, str, Callable[[list[dict[str, Any]]], list[str]]]]


def make_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table; none without rows. Numbers stand on the right."""
    cells = [[show(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(3, len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(head)]
    right = [i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        texts = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(texts)} |"

    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return [line(head), line(rule), *map(line, cells), ""]


def show(value: Any) -> str:
    """A number with four figures, a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "/").replace("\n", " ")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def render(results: Results) -> str:
    """The whole page of a run on a GPU."""
    smoke = "A smoke test on the CPU: it shows that everything runs. The numbers mean nothing."
    lines = [*render_head(results, smoke), *(f"- {line}" for line in results.get("verdict", ())), ""]
    lines += [*describe(results), "", *render_targets(results)]
    return join([*lines, *render_sections(results, PAGES)])


def render_head(results: Results, smoke: str) -> list[str]:
    """The title, and what a smoke test is."""
    date = (results["environment"] or {}).get("date", "no date")
    return [f"# {results['device']}, {date}", "", *([smoke, ""] if results["smoke"] else [])]


def render_targets(results: Results) -> list[str]:
    """A line per target, and why some have no value."""
    lines = make_table(
        ["target", "value", "limit", "unit", "verdict"],
        [
            (
                t["name"],
                t["value"],
                f"{t['target']:g} or {'more' if t['at_least'] else 'less'}",
                t["unit"],
                t["verdict"],
            )
            for t in results["targets"]
        ],
    )
    for target in results["targets"]:
        if target["verdict"] == "not run":
            lines.append(f"- Not run: {target['name']}: {show(target['reason'])}")
    return [*lines, ""]


def render_sections(results: Results, pages: Pages) -> list[str]:
    """Each section's rows as its page shows them, and what it lacks."""
    lines: list[str] = []
    for title, name, make in pages:
        section = results["sections"].get(name)
        if section is None:
            continue
        lines += [f"## {title}", "", *make(section["rows"])]
        lines += [f"- {f['row']}: {f['status']}: {show(f['reason'])}" for f in section["failures"]]
        if not section["complete"]:
            lines.append(f"- Not complete: {section['reason'] or 'ended before its end'}")
        lines.append("")
    return lines


def join(lines: Iterable[str]) -> str:
    """A page, never with two empty lines together."""
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def describe(results: Results) -> list[str]:
    """Device, versions, source, tests."""
    environment, ceilings, tests = results["environment"] or {}, results["ceilings"], results["tests"]
    device, source = environment.get("device", {}), environment.get("source", {})
    smi = device.get("nvidia_smi") or {}
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items() if version)
    dirty = {True: " with changes", False: "", None: ""}[source.get("dirty")]
    sanitizer, gate = results["sanitizer"], results["gate"]
    state = f"open for {', '.join(gate['dtypes'])}" if gate["open"] else "RED"
    return [
        f"- Driver {show(smi.get('driver'))}, CUDA {show(device.get('cuda'))}, power limit "
        f"{show(smi.get('power_limit'))}, SM clock at most {show(smi.get('clock_sm_max'))}",
        f"- Python {show(environment.get('python'))}, {versions}",
        f"- Commit {source.get('commit') or 'unknown'}{dirty}, sources {source.get('digest')}",
        f"- Reads {show(ceilings['read_gb_per_s'])} GB/s measured, {show(ceilings['datasheet_gb_per_s'])} by the "
        f"datasheet; copies {show(ceilings['copy_gb_per_s'])} GB/s; {show(ceilings['bf16_tflop_per_s'])} bf16 TFLOP/s",
        f"- GPU tests: {tests['passed']} passed, {len(tests['failures'])} failed, {tests['skipped']} skipped; "
        f"compute-sanitizer: {sanitizer['status']} {show(sanitizer['reason'])}".rstrip(),
        f"- Correctness gate: {state} {gate['reason']}".rstrip(),
        *(f"- Note: {note}" for note in results.get("notes", ())),
    ]


def page_gate(rows: list[dict[str, Any]]) -> list[str]:
    keys = ("row", "ok")
    return make_table(
        ["check", "ok", "of it"],
        [(r["row"], r["ok"], ", ".join(f"{k} {show(v)}" for k, v in r.items() if k not in keys)) for r in rows],
    )


def page_steps(rows: list[dict[str, Any]]) -> list[str]:
    head = ["step", "us", "p95", "n", "MB read", "GB/s", "of datasheet", "of measured"]
    return make_table(
        head,
        [
            (
                *(r["row"], r["us_median"], r["us_p95"], r["us_n"], round(r["bytes"]["total"] / 1e6, 1)),
                *(r["achieved_gb_per_s"], percent(r["share_of_datasheet"]), percent(r["share_of_read"])),
            )
            for r in rows
            if "us_median" in r
        ],
    )


def page_variants(rows: list[dict[str, Any]]) -> list[str]:
    """Steps by kernel variant, the fastest of each kind of step first."""
    timed = [r for r in rows if "us_median" in r]
    timed.sort(key=lambda r: (r["dtype"], r["stage"], r["context"], r["us_median"]))
    return make_table(
        ["step by variant", "dtype", "stage", "context", "us", "p95"],
        [(r["row"], r["dtype"], r["stage"], r["context"], r["us_median"], r.get("us_p95")) for r in timed],
    )


def page_probe(rows: list[dict[str, Any]]) -> list[str]:
    """What the device does between two kernels."""
    keys = ("us", "hop_us", "gb_s", "lead_ns", "data_after_release_ns", "most_blocks_per_sm", "resident", "stream_gb_s")
    return make_table(["probe", *keys], [(r["row"], *(r.get(key) for key in keys)) for r in rows])


def page_clips(rows: list[dict[str, Any]]) -> list[str]:
    head = ["10 s clip", "real-time factor", "p95", "n", "semantic s", "coarse s", "fine s", "codec s"]
    lines = make_table(
        head,
        [
            (
                *(r["row"], r["real_time_factor_median"], r["real_time_factor_p95"], r["real_time_factor_n"]),
                *(r["median_s"][stage] for stage in ("semantic", "coarse", "fine", "codec")),
            )
            for r in rows
            if "median_s" in r
        ],
    )
    gigabytes = ("loaded_reserved_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "nvidia_smi_used_bytes")
    return lines + make_table(
        ["memory in GB", "loaded", "peak allocated", "peak reserved", "nvidia-smi, all of the device"],
        [
            (r["row"], *(None if r.get(key) is None else r[key] / 1e9 for key in gigabytes))
            for r in rows
            if "peak_reserved_bytes" in r
        ],
    )


def page_batch(rows: list[dict[str, Any]]) -> list[str]:
    clips = [r for r in rows if "times_real_time" in r]
    return page_steps(rows) + make_table(
        ["clips at a time", "times real time", "runs", "semantic s", "coarse s", "fine s", "codec s"],
        [
            (
                r["row"],
                r["times_real_time"],
                r["runs"],
                *(r["seconds"][s] for s in ("semantic", "coarse", "fine", "codec")),
            )
            for r in clips
        ],
    )


def page_peers(rows: list[dict[str, Any]]) -> list[str]:
    return make_table(
        ["peer", "real-time factor", "n", "ms per semantic token", "dtype"],
        [
            (r["row"], r["real_time_factor_median"], r["real_time_factor_n"], r["ms_per_semantic_token"], r["dtype"])
            for r in rows
        ],
    )


def page_kernels(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        if "parts" not in row:
            calls = ", ".join(f"{name} {rate:g}" for name, rate in row["calls_per_token"].items())
            lines += [f"{row['row']}: {'yes' if row['ok'] else 'NO'}. Calls per token: {calls or 'none'}.", ""]
            continue
        lines += [f"{row['row']}, {show(row['us'])} us in all, {show(row['floor_us'])} us by what it must read:", ""]
        lines += table_of_parts(row["parts"][:10])
    return lines


def table_of_parts(parts: list[dict[str, Any]]) -> list[str]:
    """The lines of a step's profile, those with the most time to be won first."""
    return make_table(
        ["part", "times", "us", "share", "MB", "GB/s", "floor us"],
        [
            (
                *(p["part"][:60], p["count"], p["us"], percent(p["share"])),
                # Older runs did not write down all of it.
                *(None if p.get("bytes") is None else p["bytes"] / 1e6, p.get("gb_per_s"), p.get("floor_us")),
            )
            for p in parts
        ],
    )


def page_stages(rows: list[dict[str, Any]]) -> list[str]:
    return make_table(
        ["stage", "ms", "p95", "n", "TFLOP/s"],
        [(r["row"], r["ms_median"], r["ms_p95"], r["ms_n"], r.get("tflop_per_s")) for r in rows],
    )


PAGES: Pages = (
    ("Correctness", "gate", page_gate),
    ("Correctness of the CUDA kernels", "variants CUDA", page_gate),
    ("Correctness of the Triton kernels", "variants Triton", page_gate),
    ("Kernel variants", "ab", page_variants),
    ("Between two kernels", "probe", page_probe),
    ("Decode step, batch 1", "decode", page_steps),
    ("Decode step in every way, batch 1", "decode all", page_steps),
    ("End to end, batch 1", "end_to_end", page_clips),
    ("Batches", "batch", page_batch),
    ("Peers", "peers", page_peers),
    ("Prompts, fine pass, codec", "stages", page_stages),
    # Without dependent launches: each kernel's time is its own. What overlap brings, the probe and `ab` say.
    ("Kernels, without overlap", "profile", page_kernels),
)
