"""The targets on a CPU; they are set for two cores with AVX-512, and judged wherever a run is."""

from collections.abc import Callable
from typing import Any

from benchmarks.targets import Results, Target, failed_checks, rows_of, why_not

Found = tuple[float | None, str]
MATRICES = ("qkv", "out", "fc", "proj")


def pick(results: Results, section: str, **wanted: Any) -> list[dict[str, Any]]:
    """Rows with these values."""
    return [row for row in rows_of(results, section) if all(row.get(k) == v for k, v in wanted.items())]


def one(results: Results, section: str, key: str, piece: str, **wanted: Any) -> Found:
    """A value of the one row with these values."""
    rows = pick(results, section, **wanted)
    return (rows[0][key], "") if rows else (None, why_not(results, section, piece))


def most_threads(results: Results) -> int:
    return max(results["threads"])


def vector_share(dtype: str) -> Callable[[Results], Found]:
    """All matrices of a layer together, which is what a step reads, against only reading them in turn with that; the
    worse of both sizes."""

    def find(results: Results) -> Found:
        threads = most_threads(results)
        shares = []
        for size in ("small", "large"):
            wanted = {"kind": "vector", "engine": "native", "dtype": dtype, "size": size, "threads": threads}
            rows = [row for row in pick(results, "linear", **wanted) if row["matrix"] in MATRICES]
            if len(rows) < len(MATRICES):
                return None, why_not(results, "linear", size)
            shares.append(sum(row["read_ms"] for row in rows) / sum(row["ms_median"] for row in rows))
        return round(min(shares), 4), ""

    return find


def clip(size: str) -> Callable[[Results], Found]:
    """int8 with a voice, as many threads as there are cores."""
    wanted = {"size": size, "dtype": "int8", "voice": True}
    return lambda r: one(r, "clips", "real_time_factor_median", f"{size} int8", threads=most_threads(r), **wanted)


def speed_up(size: str, peer: str) -> Callable[[Results], Found]:
    """How many times as fast as a peer, for the same clip with the same voice."""

    def find(results: Results) -> Found:
        ours, reason = clip(size)(results)
        theirs, missing = one(results, "peers", "real_time_factor_median", size, size=size, peer=peer)
        if ours is None or theirs is None:
            return None, reason or missing
        return theirs / ours, ""

    return find


def logits(dtype: str) -> Callable[[Results], Found]:
    """The worst of all sizes, which two sections share."""

    def find(results: Results) -> Found:
        found = []
        for section in ("gate", "accuracy"):
            rows = [row for row in pick(results, section, dtype=dtype) if "rms_ratios" in row]
            if not rows:
                return None, why_not(results, section, dtype)
            found.append(rows[0]["rms_ratio"])
        return max(found), ""

    return find


def codec(results: Results) -> Found:
    """How many times as fast as torch."""
    ours, reason = one(results, "stages", "ms_median", "codec cpu", stage="codec", engine="cpu")
    theirs, missing = one(results, "stages", "ms_median", "codec torch", stage="codec", engine="torch")
    return (None, reason or missing) if ours is None or theirs is None else (theirs / ours, "")


def over_torch(results: Results) -> Found:
    """The time of the stage that is slowest against the torch engine in the dtype that is faster there."""
    rows = [row for row in rows_of(results, "stages") if "ms_median" in row]
    best: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        times = best.setdefault((row.get("size"), row["stage"]), {})
        # The slowest of our dtypes, and the fastest of torch's.
        choose = max if row["engine"] == "cpu" else min
        times[row["engine"]] = choose(times.get(row["engine"], row["ms_median"]), row["ms_median"])
    ratios = [times["cpu"] / times["torch"] for times in best.values() if times.keys() == {"cpu", "torch"}]
    return (round(max(ratios), 3), "") if ratios else (None, why_not(results, "stages", "torch"))


def start(results: Results) -> Found:
    return one(results, "load", "load_s_median", "warm", size="small", dtype="int8", kind="warm")


def busy(results: Results) -> Found:
    """The worst of clip, prompt and steps on the cpu engine, with a thread per core."""
    rows = pick(results, "busy", engine="cpu", threads=most_threads(results))
    found = [row["ratio"] for row in rows if not row["what"].startswith("codec")]
    return (max(found), "") if found else (None, why_not(results, "busy", "cpu"))


def busy_against_one_thread(results: Results) -> Found:
    """The same, beside busy loops, with a thread per core against one."""
    all_rows, ones = (pick(results, "busy", engine="cpu", threads=n) for n in (most_threads(results), 1))
    alone = {row["what"]: row["busy_ms_median"] for row in ones}
    found = [row["busy_ms_median"] / alone[row["what"]] for row in all_rows if row["what"] in alone]
    return (round(max(found), 3), "") if found else (None, why_not(results, "busy", "cpu"))


TARGETS = (
    Target("vector products of a layer, bfloat16, share of read bandwidth", 0.8, "", vector_share("bfloat16"), True),
    Target("vector products of a layer, int8, share of read bandwidth", 0.8, "", vector_share("int8"), True),
    Target("small int8 real-time factor, 10 s, with a voice", 2.2, "", clip("small")),
    Target("small int8, times the speed of bark, with a voice", 6, "x", speed_up("small", "bark"), True),
    Target("large int8, times the speed of bark, with a voice", 6, "x", speed_up("large", "bark"), True),
    Target(
        "small int8, times the speed of transformers, with a voice", 5, "x", speed_up("small", "transformers"), True
    ),
    Target("slowest stage, any dtype, over the torch engine in its faster dtype", 1, "x", over_torch),
    Target("codec, times the speed of torch", 2, "x", codec, True),
    Target("beside a busy loop on each core, times the idle time", 2.5, "x", busy),
    Target("beside a busy loop on each core, a thread per core against one thread", 1.2, "x", busy_against_one_thread),
    Target("small int8, seconds from the end of imports to ready, packed weights on disk", 2, "s", start),
    Target("float32 against the torch engine, checks that failed", 0, "", failed_checks),
    Target("float32 logits, rms ratio to torch", 1e-5, "", logits("float32")),
    Target("bfloat16 logits, rms ratio to float32", 1e-2, "", logits("bfloat16")),
    Target("int8 logits, rms ratio to float32", 2e-2, "", logits("int8")),
    Target("int4 logits, rms ratio to float32", 6e-2, "", logits("int4")),
)
