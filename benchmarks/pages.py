"""The page of a run: which columns each section's rows have, the targets, the machine."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.tables import Column, Page, Row, Table, columns, join, make_table, show

Results = Mapping[str, Any]
STAGES = ("semantic", "coarse", "fine", "codec")
# None of a GPU.
THREADS = Column("threads", lambda row: row.get("threads") or None)
ENGINE = Column("engine", "engine", lambda name: "native" if name == "cpu" else name)
ACHIEVED = columns("GB/s=achieved_gb_per_s", "of datasheet=share_of_datasheet:%", "of read bandwidth=share_of_read:%")


def seconds_of(key: str) -> tuple[Column, ...]:
    return columns(*(f"{stage} s={key}.{stage}" for stage in STAGES))


def list_figures(row: Row) -> str:
    """The figures of a check, whichever it has."""
    figures = {k: v for k, v in row.items() if k not in ("row", "ok", "step", "size", "dtype", "values", "rms_ratios")}
    figures |= row.get("values", {}) | row.get("rms_ratios", {})
    return ", ".join(f"{name} {show(value)}" for name, value in figures.items() if value not in ("", None))


def show_profile(rows: Sequence[Row]) -> list[str]:
    """A table per step, its parts with the most time to be saved first; of what the host waits for a line."""
    lines = []
    for row in rows:
        if "parts" not in row:
            calls = ", ".join(f"{name} {rate:g}" for name, rate in row["calls_per_token"].items())
            lines += [f"{row['row']}: {'yes' if row['ok'] else 'NO'}. Calls per token: {calls or 'none'}.", ""]
            continue
        # Older runs did not write down all of it.
        floor = f", {show(row['floor_us'])} us by what it must read" if "floor_us" in row else ""
        lines += [f"{row['row']}: {show(row['us'])} us a step{floor}; its parts timed alone:", ""]
        lines += PARTS.lines(row["parts"])
    return lines


PARTS = Table(
    columns("part", "times=count", "us", "share=share:%", "MB=bytes:M", "GB/s=gb_per_s", "floor us=floor_us"),
    needs="part",
)
STEPS = Table(
    columns(
        Column("step", lambda r: f"{r['size']} {r['stage']}" if r.get("threads") else r["row"]),
        *("dtype", ENGINE, THREADS, "context=context:0", "ms=ms_median", "us=us_median"),
        Column("p95", lambda r: r.get("ms_p95", r.get("us_p95"))),
        Column("n", lambda r: r.get("ms_n", r.get("us_n"))),
        *("MB read=bytes.total:M", *ACHIEVED),
    ),
    where=lambda r: "ms_median" in r or "us_median" in r,
)
CHECKS = Table(columns("check=row", "ok", Column("of it", list_figures)), needs="ok")
CLIPS = Table(
    columns(
        *("10 s clip=size", "dtype", Column("voice", "voice", {True: "yes", False: "no"}.get), THREADS),
        *("kernels=variant", "real-time factor=real_time_factor_median", "p95=real_time_factor_p95"),
        *("n=real_time_factor_n", *seconds_of("median_s")),
    ),
    needs="median_s",
)
MEMORY = Table(
    columns(
        *("resident memory in GB=size", "dtype", THREADS, "before loading=before_bytes:G"),
        *("peak loading=loaded_bytes:G", "peak=peak_bytes:G", "own=anonymous_bytes:G", "mapped files=file_bytes:G"),
    ),
    needs="peak_bytes",
)
GPU_MEMORY = Table(
    columns(
        *("memory in GB=row", "loaded=loaded_reserved_bytes:G", "peak allocated=peak_allocated_bytes:G"),
        *("peak reserved=peak_reserved_bytes:G", "all of the device=nvidia_smi_used_bytes:G"),
    ),
    needs="peak_reserved_bytes",
)
VARIANTS = Table(
    columns("step by variant=row", "dtype", "stage", "context=context:0", "us=us_median", "p95=us_p95"),
    needs="us_median",
    order=lambda r: (r["dtype"], r["stage"], r["context"], r["us_median"]),
)
PROBE = Table(
    columns(
        *("probe=row", "us", "gb_s", "lead_ns", "data_after_release_ns", "most_blocks_per_sm"),
        "stream_gb_s",
    )
)
READ = Table(columns("way=row", "GB/s=gb_per_s", "TFLOP/s=tflop_per_s", "ms=ms_median", "p95=ms_p95", "n=ms_n"))
PEERS = Table(
    columns(
        *("peer=row", "dtype", THREADS, "clip s=audio_s", "real-time factor=real_time_factor_median"),
        *("n=real_time_factor_n", "ms per semantic token=ms_per_semantic_token", *seconds_of("last_seconds")),
    )
)
PIECES = Table(
    columns(
        Column("stage", lambda r: " ".join(str(r[key]) for key in ("size", "stage", "positions") if r.get(key))),
        *("dtype", ENGINE, THREADS, "ms=ms_median", "p95=ms_p95", "n=ms_n", "GFLOP/s=gflop_per_s"),
    )
)
BUSY = Table(
    columns(
        *("beside busy loops=what", ENGINE, THREADS, "loops", "idle ms=idle_ms_median", "busy ms=busy_ms_median"),
        *("p95=busy_ms_p95", "n=busy_ms_n", "times idle=ratio"),
    )
)
BATCH = Table(
    columns(
        *("steps together=row", "ms per step=ms_median", "p95=ms_p95", "ms per token=ms_per_token"),
        *("times one alone=times_one_alone", *ACHIEVED),
    ),
    needs="ms_median",
)
CLIPS_TOGETHER = Table(
    columns("clips together=row", "times real time=times_real_time", "runs", "s=seconds"), needs="times_real_time"
)
SENTENCES = Table(
    columns(
        *("several sentences=row", "s=seconds", "s of audio=audio_s", "real-time factor=real_time_factor"),
        *("times one by one=times_one_by_one", "first audio s=first_audio_s", "95 %=first_audio_s_p95"),
        "longest lag s=late_s",
    ),
    needs="sentences",
)
SENTENCE = Table(
    columns("one sentence=row", "first audio s=first_audio_s", "lag s=late_s", "all of it s=seconds")
    + columns("s of audio=audio_s", "chunks"),
    needs="chunks",
)
STREAMS = Table(
    columns(
        *("stream=row", "first samples s=first_audio_s", "fine s=fine_s", "fine windows=windows"),
        *("computed per frame=computed_per_frame", "equal fine codes=equal_share:%"),
        *("log-mel distance dB=log_mel_db", "phones heard wrong=phone_errors:%"),
    )
)
BOOK = Table(
    columns(
        *("a long text=row", "words", "pieces", "s of audio=audio_s", "s=seconds", "MB held at a tenth=early_mb"),
        *("at the end=end_mb", "peak grew by MB=peak_grown_mb"),
    )
)
HISTORY = Table(columns("coarse stage of 10 s=row", "max_coarse_history", "s=seconds", "windows", "tokens"))
LOAD = Table(
    columns(
        *("start=row", "import s=import_s_median", "load s=load_s_median", "p95=load_s_p95"),
        *("first token s=first_token_s_median", "n=load_s_n", "MB packed=packed_bytes:M"),
    )
)
VECTORS = Table(
    columns(
        Column("one row of inputs", lambda r: f"{r['size']} {r['matrix']}"),
        Column("rows x columns", lambda r: f"{r['rows']} x {r['cols']}"),
        *("dtype", ENGINE, THREADS, "us=ms_median:k", "p95=ms_p95:k", *ACHIEVED),
    ),
)
PAGES = (
    Page("Correctness", "gate", (CHECKS,)),
    Page("Correctness of the kernels' variants", "variants", (CHECKS,)),
    Page("Kernel variants", "ab", (VARIANTS,)),
    Page("Between two kernels", "probe", (PROBE,)),
    Page("Reading memory, multiplying matrices", "read", (READ,)),
    Page("End to end", "clips", (CLIPS, MEMORY, GPU_MEMORY)),
    Page("Peers", "peers", (PEERS,)),
    Page("Decode step", "decode", (STEPS,)),
    # On a GPU without dependent launches: each kernel's time is its own. What overlap brings, the probe and `ab` say.
    Page("Where a step's time goes", "profile", render=show_profile),
    Page("Prompts, fine pass, codec", "stages", (PIECES,)),
    Page("Beside other processes", "busy", (BUSY,)),
    Page("Several sentences together", "batch", (BATCH, CLIPS_TOGETHER)),
    Page("Requests side by side, streams", "serving", (SENTENCES, SENTENCE)),
    Page("Streaming within a sentence", "streaming", (STREAMS,)),
    Page("A long text", "book", (BOOK,)),
    Page("Less history", "history", (HISTORY,)),
    Page("Loading", "load", (LOAD,)),
    Page("One matrix at a time", "linear", (VECTORS,)),
)


def render(results: Results) -> str:
    date = (results["environment"] or {}).get("date", "no date")
    smoke = "A smoke test with the smallest model: it shows that everything runs. The numbers mean nothing."
    lines = [f"# {results['device']}, {date}", "", *([smoke, ""] if results["smoke"] else [])]
    lines += [*(f"- {line}" for line in results.get("verdict", ())), "", *describe(results), ""]
    lines += render_targets(results)
    for page in PAGES:
        section = results["sections"].get(page.section)
        if section is None:
            continue
        lines += [f"## {page.title}", "", *page.lines(section["rows"])]
        lines += [f"- {f['row']}: {f['status']}: {show(f['reason'])}" for f in section["failures"]]
        if not section["complete"]:
            lines.append(f"- Not complete: {section['reason'] or 'ended before its end'}")
        lines.append("")
    return join(lines)


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
    lines += [f"- Not run: {t['name']}: {show(t['reason'])}" for t in results["targets"] if t["verdict"] == "not run"]
    return [*lines, ""]


def describe(results: Results) -> list[str]:
    """Device, versions, source, check, tests."""
    environment, ceilings, gate = results["environment"] or {}, results["ceilings"], results["gate"]
    device, source = environment.get("device", {}), environment.get("source", {})
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items() if version)
    dirty = " with changes" if source.get("dirty") else ""
    state = f"open for {', '.join(gate['dtypes'])}" if gate["open"] else "RED"
    return [
        *(describe_cpu if results["threads"] else describe_gpu)(device, ceilings),
        f"- Python {show(environment.get('python'))}, {versions}",
        f"- Commit {source.get('commit') or 'unknown'}{dirty}, sources {source.get('digest')}",
        *([] if results["threads"] else [describe_tests(results)]),
        f"- Correctness gate: {state} {gate['reason']}".rstrip(),
        *(f"- Note: {note}" for note in results.get("notes", ())),
    ]


def describe_cpu(device: Mapping[str, Any], ceilings: Mapping[str, Any]) -> list[str]:
    """The processor, and how fast it reads."""
    caches = ", ".join(f"{name} {size}" for name, size in (device.get("caches") or {}).items())
    rates = ceilings["read_gb_per_s_by_threads"].items()
    read = ", ".join(f"{show(rate)} GB/s with {threads} threads" for threads, rate in rates)
    return [
        f"- {show(device.get('model'))}, {show(device.get('cores'))} cores, level {show(device.get('isa'))}, {caches}; "
        f"governor {show(device.get('governor'))}, load {show(device.get('load_before'))} before the run",
        f"- Reads {read or 'at a rate that was not measured'}",
    ]


def describe_gpu(device: Mapping[str, Any], ceilings: Mapping[str, Any]) -> list[str]:
    """The driver, and how fast the device is."""
    smi = device.get("nvidia_smi") or {}
    return [
        f"- Driver {show(smi.get('driver'))}, CUDA {show(device.get('cuda'))}, power limit "
        f"{show(smi.get('power_limit'))}, SM clock at most {show(smi.get('clock_sm_max'))}",
        f"- Reads {show(ceilings['read_gb_per_s'])} GB/s measured, {show(ceilings['datasheet_gb_per_s'])} by the "
        f"datasheet; copies {show(ceilings['copy_gb_per_s'])} GB/s; {show(ceilings['bf16_tflop_per_s'])} bf16 TFLOP/s",
    ]


def describe_tests(results: Results) -> str:
    tests, sanitizer = results["tests"], results["sanitizer"]
    counts = f"{tests['passed']} passed, {len(tests['failures'])} failed, {tests['skipped']} skipped"
    return f"- GPU tests: {counts}; compute-sanitizer: {sanitizer['status']} {show(sanitizer['reason'])}".rstrip()
