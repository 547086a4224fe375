"""The targets, and whether a run met them. What was not measured has no verdict but "not run"."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
Found = tuple[float | None, str]
# What the limits of steps are set for, and how fast it was measured to read on 2026-11-24.
H100, H100_READ_GB_PER_S, H100_DATASHEET_GB_PER_S = "H100", 3124.0, 3350.0
# The rows of decode whose kernels a user gets: those that this run found best, or the default ones.
DEFAULT_WAYS = ("best", "graphs")


@dataclass(frozen=True)
class Target:
    """A limit on one number.

    Args:
        name: what it is of.
        limit: the number to be met.
        at_least: whether more is better.
        unit: of both.
        find: results -> (the number, or None; why there is none).
        section: that measures it.
        by_bandwidth: whether the limit is an H100's, and another device's follows from its own reading rate.
    """

    name: str
    limit: float
    unit: str
    find: Callable[[Results], Found]
    at_least: bool = False
    section: str = ""
    by_bandwidth: bool = False

    def limit_on(self, results: Results) -> float:
        """The limit on the device of these results."""
        return self.limit * bandwidth_scale(results) if self.by_bandwidth else self.limit


def bandwidth_scale(results: Results) -> float:
    """Time that reading takes on the results' device, over that on the H100 that the limits are set for.

    By what both measured, else by their datasheets, else 1.
    """
    ceilings = results.get("ceilings", {})
    if H100 in results.get("device", "") or not ceilings:
        return 1.0
    if ceilings["read_gb_per_s"]:
        return H100_READ_GB_PER_S / ceilings["read_gb_per_s"]
    return H100_DATASHEET_GB_PER_S / (ceilings["datasheet_gb_per_s"] or H100_DATASHEET_GB_PER_S)


# The row of a GPU's section `peers` that is ours.
OURS = "barkfast bfloat16"
# A layer's matrices, which are most of what a step reads.
MATRICES = ("qkv", "out", "fc", "proj")


def rows_of(results: Results, section: str, **wanted: Any) -> list[dict[str, Any]]:
    """A section's rows with these values."""
    rows = results["sections"].get(section, {}).get("rows", [])
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def why_not(results: Results, section: str, piece: str = "") -> str:
    """Why a section lacks a row whose name holds `piece`."""
    content = results["sections"].get(section)
    if content is None:
        return f"the section {section} was not run"
    failure = next((f for f in content["failures"] if piece in f["row"]), None)
    if failure is not None:
        return f"{failure['row']}: {failure['reason']}"
    return content.get("reason") or f"the section {section} did not get there"


def worst(
    section: str, key: str, count: int = 1, piece: str = "", *, best: bool = False, **wanted: Any
) -> Callable[[Results], Found]:
    """The largest `key` of the rows that have one and these values; None unless there are `count` of them.

    Args:
        piece: of the name of the row that is missing where there are fewer.
        best: the smallest instead.
    """

    def find(results: Results) -> Found:
        values = [row[key] for row in rows_of(results, section, **wanted) if key in row]
        named = piece or " ".join(str(wanted[name]) for name in ("size", "dtype") if name in wanted)
        if len(values) < count:
            return None, why_not(results, section, named)
        return (min if best else max)(values), ""

    return find


def with_all_threads(
    find: Callable[..., Callable[[Results], Found]], *args: Any, **wanted: Any
) -> Callable[[Results], Found]:
    """A search among the rows with a thread per core."""
    return lambda results: find(*args, threads=max(results["threads"]), **wanted)(results)


def divide(above: Callable[[Results], Found], below: Callable[[Results], Found]) -> Callable[[Results], Found]:
    def find(results: Results) -> Found:
        (a, missing), (b, reason) = above(results), below(results)
        return (None, reason or missing) if a is None or b is None else (a / b, "")

    return find


def failed_checks(results: Results) -> Found:
    """Checks of float32 against the torch engine that went wrong, of the kernels' variants too."""
    rows = [row for name in ("gate", "variants") for row in rows_of(results, name) if is_exact(row)]
    sections = [results["sections"][name] for name in ("gate", "variants") if name in results["sections"]]
    failures = [f for section in sections for f in section["failures"] if f["status"] == "failed" and is_exact(f)]
    if not rows and not failures:
        return None, why_not(results, "gate")
    wrong = [row["row"] for row in rows if not row["ok"]] + [failure["row"] for failure in failures]
    return float(len(wrong)), ", ".join(wrong)


def is_exact(row: Mapping[str, Any]) -> bool:
    """Whether a check, or one that failed, is of float32, which may not choose another token."""
    return not any(name in f"{row.get('dtype', '')} {row['row']}" for name in ("logits", "float16", "int8", "int4"))


# --- on a GPU


def step(dtype: str) -> Callable[[Results], Found]:
    """The slowest step of batch 1, both networks, short and long context, by the way that is default on the device."""

    def find(results: Results) -> Found:
        value: Found = (None, "")
        for way in DEFAULT_WAYS:
            value = worst("decode", "us_median", 4, size="large", dtype=dtype, way=way)(results)
            if value[0] is not None:
                return value
        return value

    return find


def peer(name: str) -> Callable[[Results], Found]:
    return worst("peers", "real_time_factor_median", piece=name, row=name)


def memory(results: Results) -> Found:
    """What torch has reserved at most while speaking, every stage resident."""
    found, reason = worst("clips", "peak_reserved_bytes", piece="memory", row="large bfloat16, memory")(results)
    return (None, reason) if found is None else (found / 1e9, "")


def failed_tests(results: Results) -> Found:
    tests = results["tests"]
    left = [name for name, how in tests["files"].items() if how != "ended"]
    if not tests["failures"] and (left or not tests["passed"]):
        return None, f"not run to their end: {', '.join(left)}" if left else tests.get("reason") or "no test ran"
    return float(len(tests["failures"])), tests["failures"][0]["test"] if tests["failures"] else ""


def sanitizer_errors(results: Results) -> Found:
    found = results["sanitizer"]
    return (None if found["errors"] is None else float(found["errors"])), found["reason"]


def waits(results: Results) -> Found:
    name = "no synchronisation in the loop"
    row = next(iter(rows_of(results, "profile", row=name)), None)
    if row is None:
        return None, why_not(results, "profile", name)
    return float(sum(row["waits_per_token"].values())), ", ".join(row["waits_per_token"])


def _step(dtype: str, limit: float, kind: str = "") -> Target:
    name = f"large {dtype} step, batch 1, slowest{kind}"
    return Target(name, limit, "us", step(dtype), section="decode", by_bandwidth=True)


def _clip(dtype: str, limit: float, kind: str = "") -> Target:
    name = f"large {dtype} real-time factor, 10 s, with a voice{kind}"
    find = worst("clips", "real_time_factor_median", size="large", dtype=dtype, voice=True)
    return Target(name, limit, "", find, section="clips")


def _peer(name: str, limit: float) -> Target:
    find = divide(peer(name), peer(OURS))
    return Target(f"large bfloat16, times the speed of {name}", limit, "x", find, True, "peers")


def _logits(dtype: str, limit: float, than: str = "float32") -> Target:
    return Target(
        f"{dtype} logits, rms ratio to {than}", limit, "", worst("gate", "rms_ratio", dtype=dtype), section="gate"
    )


EXACT = Target("float32 against the torch engine, checks that failed", 0, "", failed_checks, section="gate")
BATCH_64 = worst("batch", "times_real_time", piece="clips, batch 64", best=True, size="large", batch=64)
GPU_TARGETS = (
    _step("bfloat16", 245),
    _step("int8", 200),
    _step("int8", 150, ", goal"),
    _clip("bfloat16", 0.06),
    _clip("int8", 0.06),
    _clip("int8", 0.04, ", goal"),
    _peer("bark", 15),
    _peer("transformers", 10),
    _peer("compiled", 2.5),
    Target("large bfloat16, batch 64, times real time", 150, "x", BATCH_64, True, "batch"),
    Target("large bfloat16, memory reserved at most, all stages resident", 3.0, "GB", memory, section="clips"),
    EXACT,
    _logits("bfloat16", 0.01),
    _logits("float16", 0.01),
    Target("GPU tests that failed", 0, "", failed_tests, section="tests"),
    Target("errors found by compute-sanitizer", 0, "", sanitizer_errors, section="sanitizer"),
    Target("waits for the device per token", 0, "", waits, section="profile"),
)


# --- on a CPU: set for two cores with AVX-512, and judged wherever a run is


def vector_share(dtype: str) -> Callable[[Results], Found]:
    """All matrices of a layer together, which is what a step reads, against only reading them in turn with that; the
    worse of both sizes."""

    def find(results: Results) -> Found:
        shares = []
        for size in ("small", "large"):
            share = share_of_layer(results, size, dtype, max(results["threads"]))
            if share is None:
                return None, why_not(results, "linear", size)
            shares.append(share)
        return round(min(shares), 4), ""

    return find


def share_of_layer(results: Results, size: str, dtype: str, threads: int) -> float | None:
    """Time of reading a layer's matrices over that of multiplying with them; None where not all were timed."""
    wanted = {"kind": "vector", "engine": "native", "dtype": dtype, "size": size, "threads": threads}
    rows = [row for row in rows_of(results, "linear", **wanted) if row["matrix"] in MATRICES]
    if len(rows) < len(MATRICES):
        return None
    return sum(row["read_ms"] for row in rows) / sum(row["ms_median"] for row in rows)


def cpu_clip(size: str) -> Callable[[Results], Found]:
    """int8 with a voice, as many threads as there are cores."""
    key = "real_time_factor_median"
    return with_all_threads(worst, "clips", key, piece=f"{size} int8", size=size, dtype="int8", voice=True)


def cpu_peer(size: str, name: str) -> Callable[[Results], Found]:
    """How many times as fast as a peer, for the same clip with the same voice."""
    return divide(worst("peers", "real_time_factor_median", piece=size, size=size, peer=name), cpu_clip(size))


def codec(engine: str) -> Callable[[Results], Found]:
    return worst("stages", "ms_median", piece=f"codec {engine}", stage="codec", engine=engine)


def cpu_logits(dtype: str) -> Callable[[Results], Found]:
    """The worst of all sizes; None unless the large model, which has a step of its own, was among them."""

    def find(results: Results) -> Found:
        _, reason = worst("gate", "rms_ratio", piece=f"large {dtype}", dtype=dtype, size="large")(results)
        return (None, reason) if reason else worst("gate", "rms_ratio", dtype=dtype)(results)

    return find


def over_torch(results: Results) -> Found:
    """The time of the stage that is slowest against the torch engine in the dtype that is faster there."""
    best: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows_of(results, "stages"):
        times = best.setdefault((row.get("size"), row["stage"]), {})
        # The slowest of our dtypes, and the fastest of torch's.
        choose = max if row["engine"] == "cpu" else min
        times[row["engine"]] = choose(times.get(row["engine"], row["ms_median"]), row["ms_median"])
    ratios = [times["cpu"] / times["torch"] for times in best.values() if times.keys() == {"cpu", "torch"}]
    return (round(max(ratios), 3), "") if ratios else (None, why_not(results, "stages", "torch"))


def busy(results: Results) -> Found:
    """The worst of clip, prompt and steps on the cpu engine, with a thread per core."""
    rows = rows_of(results, "busy", engine="cpu", threads=max(results["threads"]))
    found = [row["ratio"] for row in rows if not row["what"].startswith("codec")]
    return (max(found), "") if found else (None, why_not(results, "busy", "cpu"))


def busy_against_one_thread(results: Results) -> Found:
    """The same, beside busy loops, with a thread per core against one."""
    all_rows, ones = (rows_of(results, "busy", engine="cpu", threads=n) for n in (max(results["threads"]), 1))
    alone = {row["what"]: row["busy_ms_median"] for row in ones}
    found = [row["busy_ms_median"] / alone[row["what"]] for row in all_rows if row["what"] in alone]
    return (round(max(found), 3), "") if found else (None, why_not(results, "busy", "cpu"))


WARM = worst("load", "load_s_median", piece="warm", size="small", dtype="int8", kind="warm")
CPU_TARGETS = (
    Target("vector products of a layer, bfloat16, share of read bandwidth", 0.8, "", vector_share("bfloat16"), True),
    Target("vector products of a layer, int8, share of read bandwidth", 0.8, "", vector_share("int8"), True),
    Target("small int8 real-time factor, 10 s, with a voice", 2.2, "", cpu_clip("small")),
    Target("small int8, times the speed of bark, with a voice", 6, "x", cpu_peer("small", "bark"), True),
    Target("large int8, times the speed of bark, with a voice", 6, "x", cpu_peer("large", "bark"), True),
    Target(
        "small int8, times the speed of transformers, with a voice", 5, "x", cpu_peer("small", "transformers"), True
    ),
    Target("slowest stage, any dtype, over the torch engine in its faster dtype", 1, "x", over_torch),
    Target("codec, times the speed of torch", 2, "x", divide(codec("torch"), codec("cpu")), True),
    Target("beside a busy loop on each core, times the idle time", 2.5, "x", busy),
    Target("beside a busy loop on each core, a thread per core against one thread", 1.2, "x", busy_against_one_thread),
    Target("small int8, seconds from the end of imports to ready, packed weights on disk", 2, "s", WARM),
    EXACT,
    Target("float32 logits, rms ratio to torch", 1e-5, "", cpu_logits("float32")),
    Target("bfloat16 logits, rms ratio to float32", 1e-2, "", cpu_logits("bfloat16")),
    Target("int8 logits, rms ratio to float32", 2e-2, "", cpu_logits("int8")),
    Target("int4 logits, rms ratio to float32", 6e-2, "", cpu_logits("int4")),
)


def find_targets(run: str, steps: Container[str]) -> list[Target]:
    """Of a run, those that one of its steps measures."""
    return list(CPU_TARGETS) if run == "cpu" else [target for target in GPU_TARGETS if target.section in steps]


def judge(results: Results, targets: Sequence[Target]) -> list[dict[str, Any]]:
    """A line per target: met, missed or not run."""
    lines = []
    for target in targets:
        try:
            value, reason = target.find(results)
            limit = target.limit_on(results)
        except Exception as error:
            # What was measured is worth more than the verdict on it.
            value, reason, limit = None, f"the verdict failed: {type(error).__name__}: {error}", target.limit
        if value is None:
            verdict = "not run"
        else:
            verdict = "met" if (value >= limit if target.at_least else value <= limit) else "missed"
        lines.append(
            {
                "name": target.name,
                "value": value,
                "target": limit,
                "at_least": target.at_least,
                "unit": target.unit,
                "verdict": verdict,
                "reason": reason,
            }
        )
    return lines
