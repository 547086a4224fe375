"""Every kernel variant of the decode step: first whether it is right, then its time beside the others', in turn.

A variant that hangs or crashes ends the process, and is left out by the one that goes on; rows that are known are not
measured again.
"""

import gc
import time

import torch

from barkfast.runtime.cuda.tuned import Entry, slug, source_digest
from barkfast_kernels.variant import VARIANTS
from benchmarks.block import Block
from benchmarks.plan import Plan
from benchmarks.record import NotRun, Recorder, read_fragment
from benchmarks.results import SMOKE_DEVICE
from benchmarks.sections.decode import require_graphs
from benchmarks.steps import PROMPTS, mean_context, step_row, time_round
from benchmarks.variants import LEAST, MOST, Row, Watch, interleave
from benchmarks.verdict import BASE, choose

# Those that are most likely to win, should the time not be enough for all.
FIRST = (BASE, "T6 all", "C9 C8, weights to L2", "C4 C3, branchless")
DTYPES = ("bfloat16", "int8")
# Seconds for building and comparing one variant, for the base, with which all else is compiled, and for one round.
COMPARE_S, BASE_S, ROUND_S = 15, 45, 5
# Share of a network's time that goes to comparing. What is not compared by then is not run.
COMPARE_SHARE = 0.7
# Kept for the choice.
RESERVE_S = 5
# How the time in which the CUDA variants are built together is named.
TOGETHER = "the CUDA variants, built together"


def run(plan: Plan, record: Recorder) -> None:
    section = Section(plan, record)
    blocks = [(dtype, stage) for dtype in dtypes(plan) for stage in stages(plan)]
    for index, (dtype, stage) in enumerate(blocks):
        section.run_block(dtype, stage, time.monotonic() + (plan.time_left - RESERVE_S) / (len(blocks) - index))
        if index + 1 == len(blocks) or blocks[index + 1][0] != dtype:
            section.choose(dtype)


def dtypes(plan: Plan) -> tuple[str, ...]:
    return ("float32",) if plan.smoke else DTYPES


def stages(plan: Plan) -> tuple[str, ...]:
    # The interpreter takes a second for a token of the other.
    return ("coarse",) if plan.smoke else ("semantic", "coarse")


def labels(plan: Plan) -> list[str]:
    """The variants, in the order of their worth."""
    if plan.smoke:
        return [BASE, "T6 all"]
    return [*FIRST, *(label for label in VARIANTS if label not in FIRST)]


class Section:
    """One process's part of a run."""

    def __init__(self, plan: Plan, record: Recorder) -> None:
        self.plan, self.record = plan, record
        self.watch = Watch(plan.work / "ab.at")
        # (dtype, variant) that are known to be wrong, or not to run.
        self.left_out: set[tuple[str, str]] = set()
        self.compared: set[str] = set()
        self._recall()

    def _recall(self) -> None:
        """What processes before this one have found."""
        last = self.watch.take_last()
        if last is not None:
            self._fail(_stopped(last), RuntimeError("the process ended at it: it hangs, or crashes"))
        fragment = read_fragment(self.record.path)
        self.compared = {row["row"] for row in fragment["rows"] if row.get("ok")}
        bad = {row["row"] for row in fragment["rows"] if row.get("ok") is False}
        bad |= {failure["row"] for failure in fragment["failures"]}
        self.together = _stopped(TOGETHER) not in bad
        for dtype in dtypes(self.plan):
            for label in VARIANTS:
                if bad & {_stopped(label), *self._names(dtype, label)}:
                    self.left_out.add((dtype, label))

    def _names(self, dtype: str, label: str) -> list[str]:
        checks = [_check(dtype, stage, label) for stage in stages(self.plan)]
        return checks + [name for stage in stages(self.plan) for name in self._timed_names(dtype, stage, label)]

    def _timed_names(self, dtype: str, stage: str, label: str) -> list[str]:
        contexts = [round(mean_context(self.plan, prompt)) for prompt in prompts(self.plan, stage)]
        return [_timed(dtype, stage, context, label) for context in contexts]

    def _fail(self, name: str, error: Exception) -> None:
        """Write down why there is no row."""

        def fail() -> Row:
            raise error

        self.record.measure(name, fail)

    def run_block(self, dtype: str, stage: str, deadline: float) -> None:
        """One network in one dtype: its weights are loaded once."""
        if not self.plan.smoke and not self.plan.allows(dtype):
            self.record.measure(f"{dtype} {stage}", dict, dtype=dtype)
            return
        wanted = [label for label in labels(self.plan) if (dtype, label) not in self.left_out]
        known = {row["row"] for row in read_fragment(self.record.path)["rows"]}
        if BASE not in wanted or known.issuperset(
            name for label in wanted for name in self._timed_names(dtype, stage, label)
        ):
            return
        lengths = prompts(self.plan, stage)
        block = Block(self.plan, dtype, stage, lengths)
        end_of_compares = time.monotonic() + COMPARE_SHARE * (deadline - time.monotonic())
        self._compare(block, BASE, late=False)
        if BASE in block.decoders:
            cuda = [label for label in wanted if VARIANTS[label].kernels == "cuda"]
            if self.together and cuda:
                with self.watch.over(TOGETHER, BASE_S):
                    block.prebuild(cuda)
            for label in wanted[1:]:
                self._compare(block, label, late=time.monotonic() > end_of_compares)
            for index, prompt in enumerate(lengths):
                share = (deadline - time.monotonic()) / (len(lengths) - index)
                self._time(block, prompt, time.monotonic() + share)
        del block
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _compare(self, block: Block, label: str, *, late: bool) -> None:
        """Build a variant, and leave it out unless it computes what the base does."""
        name = _check(block.dtype, block.stage, label)

        def work() -> Row:
            if late:
                raise NotRun("no time is left to compile and compare it")
            with self.watch.over(label, self._limit(BASE_S if label == BASE else COMPARE_S)):
                row = block.compare(label)
            return {"label": label, "dtype": block.dtype, "stage": block.stage} | row

        if name in self.compared:
            # By a process before this one.
            with self.watch.over(label, COMPARE_S):
                block.build(label)
            return
        row = self.record.measure(name, work, dtype=block.dtype if not self.plan.smoke else None)
        if row is None or not row["ok"]:
            self.left_out.add((block.dtype, label))
            block.decoders.pop(label, None)

    def _limit(self, seconds: float) -> float:
        return 600 if self.plan.smoke else seconds

    def _time(self, block: Block, prompt: int, deadline: float) -> None:
        """Rows for one context, of all that are right."""
        plan, context = self.plan, mean_context(self.plan, prompt)

        def time_one(label: str, index: int) -> list[float]:
            with self.watch.over(label, self._limit(ROUND_S)):
                return time_round(plan, block.decoders[label], prompt, seed=64 * index)

        def on_failure(label: str, error: Exception) -> None:
            self.left_out.add((block.dtype, label))
            block.decoders.pop(label, None)
            self._fail(_timed(block.dtype, block.stage, round(context), label), error)

        found = interleave(
            list(block.decoders),
            time_one,
            left=lambda: time.monotonic() < deadline,
            on_failure=on_failure,
            least=1 if plan.smoke else LEAST,
            most=1 if plan.smoke else MOST,
        )
        for label, rounds in found.items():

            def work(label: str = label, rounds: list[list[float]] = rounds) -> Row:
                if not rounds:
                    raise RuntimeError("no round ran to its end")
                decoder, times = block.decoders[label], [ms for one in rounds for ms in one]
                require_graphs(plan, decoder)
                row = step_row(plan, decoder, plan.size("large"), block.dtype, prompt, times)
                variant = VARIANTS[label].to_dict()
                return {"label": label, "variant": variant, "ok": True, "rounds": len(rounds)} | row

            self.record.measure(_timed(block.dtype, block.stage, round(context), label), work)

    def choose(self, dtype: str) -> None:
        """The fastest of a dtype, as a row."""
        fragment = read_fragment(self.record.path)
        rows = [row for row in fragment["rows"] if (dtype, row.get("label")) not in self.left_out]

        def work() -> Row:
            pick = choose(rows, dtype, BASE)
            if pick is None:
                raise NotRun("the base variant was not timed")
            name = SMOKE_DEVICE["cuda"] if self.plan.smoke else torch.cuda.get_device_name(self.plan.device)
            entry = Entry(
                device=slug(name),
                dtype=dtype,
                batch=1,
                source=source_digest(),
                measured=time.strftime("%Y-%m-%d", time.gmtime()),
                label=pick.label,
                variant=VARIANTS[pick.label],
                us=pick.us,
                base_us=pick.base_us,
            )
            return {"label": pick.label, "dtype": dtype, "ratio": round(pick.ratio, 4), "entry": entry.to_dict()}

        self.record.measure(f"best {dtype}", work)


def prompts(plan: Plan, stage: str) -> tuple[int, ...]:
    return (40,) if plan.smoke else PROMPTS[stage]


def _check(dtype: str, stage: str, label: str) -> str:
    return f"{dtype} {stage}, {label}, is right"


def _timed(dtype: str, stage: str, context: int, label: str) -> str:
    return f"{dtype} {stage} {context}, {label}"


def _stopped(label: str) -> str:
    return f"{label} hangs or crashes"
