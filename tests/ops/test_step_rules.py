"""The rules for the machine code of a decode step's kernels: each violation is found; and the model of the time.

The kernels are compiled, disassembled and inspected; none runs.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tools.step_model import calibration, compare
from tools.step_model.chain import AHEAD, AT_THE_END, H100, Chain, Stage
from tools.step_model.cuda import compile_cuda, compiler, describe_cuda, tools_folder
from tools.step_model.cycles import L2, Launch, time_kernel
from tools.step_model.loads import Kernel, loads_of
from tools.step_model.rules import RULES, Allowed, check
from tools.step_model.sass import Control, read_cubin
from tools.step_model.trace import follow

pytest.importorskip("triton", reason="nvdisasm comes with triton, which is not installed (the extra `triton`)")

SOURCE = Path(__file__).with_name("rules.cu")
LAUNCH = Launch(blocks=128, threads=128)
BROKEN = {
    "obeys": set(),
    "never_waits": {"wait"},
    "starts_late": {"trigger"},
    "never_starts": {"trigger"},
    "depends": {"dependent", "trips"},
    "depends_on_others": {"dependent", "trips"},
    "loads_one_by_one": {"trips"},
    "loads_by_l1": {"L1"},
    "loads_by_l1_elsewhere": {"L1"},
    "skips": {"branch"},
    "calls": {"call"},
    "takes_registers": {"registers"},
    "spills": {"registers", "trips"},
}


@pytest.fixture(scope="module")
def kernels() -> dict[str, Kernel]:
    if not compiler():
        pytest.skip("neither NVRTC (the extra `test` on Linux) nor nvcc is installed: nothing was compiled")
    source = SOURCE.read_text(encoding="utf-8")
    return {
        name: describe_cuda(code, source) for name, code in read_cubin(compile_cuda(source), tools_folder()).items()
    }


def broken(kernel: Kernel, allowed: Allowed | None = None) -> set[str]:
    """The names of the rules that the kernel breaks."""
    return {found.rule for found in check(kernel, time_kernel(kernel, LAUNCH).trips, allowed)}


@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_rule_is_named_and_no_other(kernels: dict[str, Kernel], name: str) -> None:
    assert broken(kernels[name]) == BROKEN[name]


def test_every_rule_and_every_kernel_is_tested(kernels: dict[str, Kernel]) -> None:
    assert set(BROKEN) == set(kernels)
    assert set().union(*BROKEN.values()) == set(RULES)


def test_what_is_allowed_is_no_violation(kernels: dict[str, Kernel]) -> None:
    reason = "x stands where slots say"
    assert broken(kernels["depends"], Allowed(dependent={("x", "slots"): reason})) == {"trips"}
    assert broken(kernels["depends"], Allowed(dependent={("slots", "x"): reason}, trips=(2, reason))) == {"dependent"}
    assert not broken(kernels["depends"], Allowed(dependent={("x", "slots"): reason}, trips=(2, reason)))
    assert not broken(kernels["skips"], Allowed(branches={"x": reason}))
    assert not broken(kernels["calls"], Allowed(calls=reason))
    assert not broken(kernels["takes_registers"], Allowed(registers=(255, reason)))
    assert broken(kernels["spills"], Allowed(registers=(255, reason), trips=(9, reason))) == {"registers"}


def test_loads_have_their_names_and_depth(kernels: dict[str, Kernel]) -> None:
    found = {load.tensor: (load.depth, load.behind) for load in loads_of(kernels["depends"])}
    assert found == {"slots": (1, frozenset()), "x": (2, frozenset({"slots"}))}
    assert {load.tensor: load.depth for load in loads_of(kernels["obeys"])} == {"weight": 0, "slots": 1, "x": 1}


def test_a_load_that_is_not_on_the_path_is_seen_too(kernels: dict[str, Kernel]) -> None:
    assert [load.tensor for load in loads_of(kernels["loads_by_l1_elsewhere"])] == ["x"]


def test_a_violation_says_where(kernels: dict[str, Kernel]) -> None:
    (text,) = (str(found) for found in check(kernels["loads_by_l1"], 1))
    assert re.fullmatch(r"loads_by_l1: what kernels write is loaded past L1: q \(LDG\S* at 0x\w{4}, 1 in all\)", text)


def test_the_path_is_that_of_the_arguments(kernels: dict[str, Kernel]) -> None:
    kernel = kernels["obeys"]
    ((offset, value),) = kernel.arguments.items()
    assert value == 1
    stores = [i for i in kernel.path.after if i.base == "STG"]
    assert len(stores) == 1
    # No row at all: the loop is not entered.
    assert not any(i.is_load for i in follow(kernel.code, {offset: 0}).after)


def test_control_codes() -> None:
    # FFMA that waits for barriers 0 and 2, has write barrier 3 and stalls for 5 cycles; no read barrier.
    word = (5 | 3 << 5 | 7 << 8 | 0b000101 << 11) << 41
    assert Control.decode(word) == Control(stall=5, write_barrier=3, read_barrier=7, waits=frozenset({0, 2}))


def test_a_second_trip_costs_a_latency(kernels: dict[str, Kernel]) -> None:
    one, two = (time_kernel(kernels[name], LAUNCH) for name in ("loads_by_l1", "depends"))
    assert (one.trips, two.trips) == (1, 2)
    assert 0.9 * L2 < two.total - one.total < 1.3 * L2
    assert L2 < one.total < 2 * L2


def test_work_is_divided_where_the_weights_are_needed(kernels: dict[str, Kernel]) -> None:
    timing = time_kernel(kernels["obeys"], LAUNCH)
    assert timing.ahead and timing.before + timing.after == timing.total
    # The product is computed after x has arrived.
    assert timing.before > L2
    assert not time_kernel(kernels["depends"], LAUNCH).ahead


def test_the_model_says_of_the_h100_what_it_said() -> None:
    rows = {row.name: row for row in calibration.rows()}
    assert len(rows) == 12
    # In us, of the model in which loads begin when the predecessor ends; recorded when the model was first made.
    assert rows["large bfloat16 coarse 300 graphs"].at_the_end == pytest.approx(535.9, abs=0.1)
    assert rows["large bfloat16 semantic 1000 graphs"].at_the_end == pytest.approx(572.0, abs=0.1)
    assert rows["large int8 coarse 918 graphs"].at_the_end == pytest.approx(469.4, abs=0.1)
    assert rows["large bfloat16 semantic 1000 graphs without PDL"].at_the_end == pytest.approx(614.3, abs=0.1)
    assert rows["large bfloat16 semantic 1000 graphs"].ahead == pytest.approx(350.8, abs=0.1)
    for row in rows.values():
        assert 0 < row.error < (0.03 if "without PDL" in row.name else 0.08), row
        assert row.ahead < 0.83 * row.measured, row


def test_the_table_of_the_calibration_names_each_row() -> None:
    assert all(row.name in calibration.table() for row in calibration.rows())


def test_a_step_is_its_kernels_or_its_bytes() -> None:
    stage = Stage("linear", megabytes=6.0, before=0.4, after=0.6, room=1 / 3)
    ahead, at_the_end = (Chain(H100, boundary=0.8, loads=loads) for loads in (AHEAD, AT_THE_END))
    rate = H100.read * H100.share
    # Nothing hides the loads: first the latency, then all bytes, then the work after them.
    assert at_the_end.step([stage] * 10) == pytest.approx(10 * (0.8 + H100.latency + 6 / rate + 0.6))
    assert ahead.step([stage] * 10) == pytest.approx(max(10 * (0.8 + 0.4 + 0.6), 10 * 6 / rate))
    light = replace(stage, megabytes=0.1)
    assert ahead.step([light] * 10) == pytest.approx(10 * (0.8 + 0.4 + 0.6))
    # Blocks that fill a multiprocessor leave no room for the next kernel's, so nothing can be loaded ahead.
    alone = [replace(stage, room=1.0)] * 10
    assert ahead.step([stage] * 10) < ahead.step(alone)


def test_weights_in_l2_come_at_its_speed() -> None:
    stage = Stage("linear", megabytes=3.0, before=0.2, after=2.0, room=1 / 3)
    chain = Chain(H100, boundary=0.8, loads=AT_THE_END)
    brought = [replace(stage, l2_from=1)] * 10
    assert chain.step(brought) == pytest.approx(10 * (0.8 + H100.l2_latency + 3 / H100.l2 + 2.0))
    assert chain.step(brought) < chain.step([stage] * 10)


ROW = {"source": "triton", "variant": "T6 all", "dtype": "int8", "kernel": "sample", "cycles": 1000}
GOLDEN = {"triton 3.7.1": {"T6 all": {"int8": {"sample": 1000}}}}


@pytest.mark.parametrize(
    ("version", "cycles", "message"),
    [
        ("3.7.1", 1029, None),
        ("3.7.1", 1031, "1031 cycles, 1000 before"),
        ("3.6.0", 1099, None),
        ("3.6.0", 1101, "1101 cycles, 1000 before"),
        ("3.7.1", 500, None),
    ],
)
def test_a_slower_kernel_is_seen(version: str, cycles: int, message: str | None) -> None:
    found = list(compare.slower({"triton": f"triton {version}"}, [ROW | {"cycles": cycles}], GOLDEN))
    assert [text.rpartition(": ")[2] for text in found] == ([message] if message else [])


def test_what_was_never_written_down_is_seen() -> None:
    (text,) = compare.slower({"triton": "triton 3.7.1"}, [ROW | {"kernel": "new"}], GOLDEN)
    assert "not written down" in text
    (text,) = compare.slower({"triton": "nvcc 13.0"}, [ROW], GOLDEN)
    assert "nothing is written down" in text


def test_writing_keeps_what_other_compilers_made(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    compare.write({"triton": "triton 3.6.0"}, [ROW], path)
    compare.write({"triton": "triton 3.7.1"}, [ROW | {"cycles": 900}], path)
    compare.write({"triton": "triton 3.7.1"}, [ROW | {"cycles": 800}], path)
    assert compare.read(path) == {
        "triton 3.6.0": {"T6 all": {"int8": {"sample": 1000}}},
        "triton 3.7.1": {"T6 all": {"int8": {"sample": 800}}},
    }
