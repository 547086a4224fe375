"""Results of a CPU for people: Markdown whose columns also line up in a terminal."""

from typing import Any

from barkfast.bench.workload import STAGES
from benchmarks.table import (
    Pages,
    Results,
    join,
    make_table,
    percent,
    render_head,
    render_sections,
    render_targets,
    show,
    table_of_parts,
)

Rows = list[dict[str, Any]]
ENGINES = {"cpu": "native", "native": "native", "torch": "torch"}


def render(results: Results) -> str:
    """The whole page."""
    smoke = "A smoke test with the smallest model: it shows that everything runs. The numbers mean nothing."
    lines = [*render_head(results, smoke), *describe(results), "", *render_targets(results)]
    return join([*lines, *render_sections(results, PAGES)])


def describe(results: Results) -> list[str]:
    """Processor, versions, source, gate."""
    environment, gate = results["environment"] or {}, results["gate"]
    device, source = environment.get("device", {}), environment.get("source", {})
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items() if version)
    caches = ", ".join(f"{name} {size}" for name, size in (device.get("caches") or {}).items())
    read = ", ".join(
        f"{show(rate)} GB/s with {threads} threads" for threads, rate in results["ceilings"]["read_gb_per_s"].items()
    )
    dirty = {True: " with changes", False: "", None: ""}[source.get("dirty")]
    state = f"open for {', '.join(gate['dtypes'])}" if gate["open"] else "RED"
    return [
        f"- {show(device.get('model'))}, {show(device.get('cores'))} cores, level {show(device.get('isa'))}, {caches}; "
        f"governor {show(device.get('governor'))}, load {show(device.get('load_before'))} before the run",
        f"- Reads {read or 'at a rate that was not measured'}",
        f"- Python {show(environment.get('python'))}, {versions}",
        f"- Commit {source.get('commit') or 'unknown'}{dirty}, sources {source.get('digest')}",
        f"- Correctness gate: {state} {gate['reason']}".rstrip(),
    ]


def engine(row: dict[str, Any]) -> str:
    return ENGINES[row["engine"]]


def page_checks(rows: Rows) -> list[str]:
    """What was checked, and how far each network's logits are off."""
    lines = make_table(
        ["check", "ok", "equal tokens", "of", "equal share", "rms ratio"],
        [(r["row"], r["ok"], *(r.get(key) for key in ("equal", "tokens", "equal_share", "rms_ratio"))) for r in rows],
    )
    logits = [r for r in rows if "rms_ratios" in r]
    networks = list(logits[0]["rms_ratios"]) if logits else []
    return lines + make_table(
        ["rms ratio of logits", *(r["dtype"] for r in logits)],
        [(name, *(r["rms_ratios"][name] for r in logits)) for name in networks],
    )


def page_read(rows: Rows) -> list[str]:
    return make_table(
        ["way", "GB/s", "ms", "p95", "n"],
        [(r["row"], r["gb_per_s"], r["ms_median"], r["ms_p95"], r["ms_n"]) for r in rows],
    )


def page_linear(rows: Rows) -> list[str]:
    vectors = [r for r in rows if r["kind"] == "vector"]
    lines = make_table(
        ["one row of inputs", "rows x columns", "dtype", "engine", "threads", "us", "p95", "GB/s", "of read bandwidth"],
        [
            (
                *(f"{r['size']} {r['matrix']}", f"{r['rows']} x {r['cols']}", r["dtype"], engine(r), r["threads"]),
                *(r["ms_median"] * 1e3, r["ms_p95"] * 1e3, r.get("achieved_gb_per_s"), percent(r.get("share_of_read"))),
            )
            for r in vectors
        ],
    )
    return lines + make_table(
        ["many rows of inputs", "dtype", "engine", "threads", "ms", "p95", "GFLOP/s"],
        [
            (
                *(f"{r['inputs']} x {r['cols']} x {r['rows']}", r["dtype"], engine(r), r["threads"]),
                *(r["ms_median"], r["ms_p95"], r["gflop_per_s"]),
            )
            for r in rows
            if r["kind"] == "product"
        ],
    )


def page_decode(rows: Rows) -> list[str]:
    return make_table(
        ["step of", "dtype", "engine", "threads", "context", "ms", "p95", "n", "MB read", "GB/s", "of read bandwidth"],
        [
            (
                *(f"{r['size']} {r['stage']}", r["dtype"], engine(r), r["threads"], round(r["context"])),
                *(r["ms_median"], r["ms_p95"], r["ms_n"], round(r["bytes"]["total"] / 1e6, 1)),
                *(r.get("achieved_gb_per_s"), percent(r.get("share_of_read"))),
            )
            for r in rows
        ],
    )


def page_stages(rows: Rows) -> list[str]:
    return make_table(
        ["stage", "dtype", "engine", "threads", "ms", "p95", "n", "GFLOP/s"],
        [
            (
                *(" ".join(filter(None, (r.get("size"), r["stage"], str(r.get("positions", ""))))), r.get("dtype")),
                *(engine(r), r["threads"], r["ms_median"], r["ms_p95"], r["ms_n"], r.get("gflop_per_s")),
            )
            for r in rows
        ],
    )


def page_clips(rows: Rows) -> list[str]:
    clips = [r for r in rows if "median_s" in r]
    lines = make_table(
        ["10 s clip", "dtype", "voice", "threads", "real-time factor", "p95", "n", *(f"{s} s" for s in STAGES)],
        [
            (
                *(r["size"], r["dtype"], "yes" if r["voice"] else "no", r["threads"]),
                *(r["real_time_factor_median"], r["real_time_factor_p95"], r["real_time_factor_n"]),
                *(r["median_s"][stage] for stage in STAGES),
            )
            for r in clips
        ],
    )
    sizes = ("before_bytes", "loaded_bytes", "peak_bytes", "anonymous_bytes", "file_bytes")
    return lines + make_table(
        ["resident memory in GB", "dtype", "threads", "before loading", "peak loading", "peak", "own", "mapped files"],
        [
            (r["size"], r["dtype"], r["threads"], *(None if r.get(key) is None else r[key] / 1e9 for key in sizes))
            for r in rows
            if "peak_bytes" in r
        ],
    )


def page_peers(rows: Rows) -> list[str]:
    return make_table(
        [
            "peer",
            "dtype",
            "threads",
            "clip s",
            "real-time factor",
            "n",
            "ms per semantic token",
            *(f"{s} s" for s in STAGES),
        ],
        [
            (
                *(r["row"], r["dtype"], r["threads"], r["audio_s"]),
                *(r["real_time_factor_median"], r["real_time_factor_n"]),
                *(r["ms_per_semantic_token"], *(r["last_seconds"].get(stage) for stage in STAGES)),
            )
            for r in rows
        ],
    )


def page_batch(rows: Rows) -> list[str]:
    return make_table(
        ["steps together", "ms per step", "p95", "ms per token", "times one alone", "GB/s", "of read bandwidth"],
        [
            (
                *(r["row"], r["ms_median"], r["ms_p95"], r["ms_per_token"], r["times_one_alone"]),
                *(r.get("achieved_gb_per_s"), percent(r.get("share_of_read"))),
            )
            for r in rows
        ],
    )


def page_streaming(rows: Rows) -> list[str]:
    return make_table(
        [
            *("stream", "first samples s", "fine s", "fine windows", "computed per frame"),
            *("equal fine codes", "log-mel distance dB", "phones heard wrong"),
        ],
        [
            (
                *(r["row"], r.get("first_audio_s"), r.get("fine_s"), r.get("windows"), r.get("computed_per_frame")),
                *(percent(r.get("equal_share")), r.get("log_mel_db"), percent(r.get("phone_errors"))),
            )
            for r in rows
        ],
    )


def page_serving(rows: Rows) -> list[str]:
    together = [r for r in rows if "sentences" in r]
    lines = make_table(
        [
            *("several sentences", "s", "s of audio", "real-time factor", "times one by one", "first audio s", "95 %"),
            "longest lag s",
        ],
        [
            (
                *(r["row"], r["seconds"], r["audio_s"], r["real_time_factor"], r["times_one_by_one"]),
                *(r.get("first_audio_s"), r.get("first_audio_s_p95"), r.get("late_s")),
            )
            for r in together
        ],
    )
    return lines + make_table(
        ["one sentence", "first audio s", "lag s", "all of it s", "s of audio", "chunks"],
        [
            (r["row"], r["first_audio_s"], r.get("late_s"), r["seconds"], r["audio_s"], r["chunks"])
            for r in rows
            if "sentences" not in r
        ],
    )


def page_book(rows: Rows) -> list[str]:
    return make_table(
        ["a long text", "words", "pieces", "s of audio", "s", "MB held at a tenth", "at the end", "peak grew by MB"],
        [
            (
                *(r["row"], r["words"], r["pieces"], r["audio_s"], r["seconds"]),
                *(r["early_mb"], r["end_mb"], r["peak_grown_mb"]),
            )
            for r in rows
        ],
    )


def page_busy(rows: Rows) -> list[str]:
    return make_table(
        ["beside busy loops", "engine", "threads", "loops", "idle ms", "busy ms", "p95", "n", "times idle"],
        [
            (
                *(r["what"], engine(r), r["threads"], r["loops"], r["idle_ms_median"]),
                *(r["busy_ms_median"], r["busy_ms_p95"], r["busy_ms_n"], r["ratio"]),
            )
            for r in rows
        ],
    )


def page_history(rows: Rows) -> list[str]:
    return make_table(
        ["coarse stage of 10 s", "max_coarse_history", "s", "windows", "tokens"],
        [(r["row"], r["max_coarse_history"], r["seconds"], r["windows"], r["tokens"]) for r in rows],
    )


def page_load(rows: Rows) -> list[str]:
    return make_table(
        ["start", "import s", "load s", "p95", "first token s", "n", "MB packed"],
        [
            (
                *(r["row"], r["import_s_median"], r["load_s_median"], r["load_s_p95"], r["first_token_s_median"]),
                *(r["load_s_n"], round(r["packed_bytes"] / 1e6, 1)),
            )
            for r in rows
        ],
    )


def page_profile(rows: Rows) -> list[str]:
    lines: list[str] = []
    for row in rows:
        # Of runs of some time ago it is not known.
        floor = f", {show(row['floor_us'])} us by what it must read" if "floor_us" in row else ""
        lines += [f"{row['row']}: {show(row['us'])} us a step{floor}; its parts timed alone:", ""]
        lines += table_of_parts(row["parts"])
    return lines


def page_ablation(rows: Rows) -> list[str]:
    return make_table(
        ["rounding", "bits per weight", "weights, rms ratio", "logits, rms ratio"],
        [(r["row"], r["bits_per_weight"], r["weights_rms_ratio"], r["logits_rms_ratio"]) for r in rows],
    )


PAGES: Pages = (
    ("Correctness", "gate", page_checks),
    ("Logits of the large model", "accuracy", page_checks),
    ("Reading memory", "read", page_read),
    ("End to end", "clips", page_clips),
    ("Peers", "peers", page_peers),
    ("Decode step", "decode", page_decode),
    ("Where a step's time goes", "profile", page_profile),
    ("Prompts, fine pass, codec", "stages", page_stages),
    ("Beside other processes", "busy", page_busy),
    ("Several sentences together", "batch", page_batch),
    ("Requests side by side, streams", "serving", page_serving),
    ("Streaming within a sentence", "streaming", page_streaming),
    ("A long text", "book", page_book),
    ("Less history", "history", page_history),
    ("Loading", "load", page_load),
    ("One matrix at a time", "linear", page_linear),
    ("Rounding weights", "ablation", page_ablation),
)
