"""Instruction-set level for products of many rows: measured once, stored with the CPU's name, or set by a variable."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from barkfast.runtime.cpu import levels
from barkfast.runtime.cpu.levels import choose_level, describe_choices, read_choices

ALL = ["scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"]


class Machine:
    """A fake native module on a CPU with `isas`; a product takes `ms` milliseconds on each of them."""

    def __init__(self, isas: list[str], **ms: float) -> None:
        self.isas, self.ms = isas, ms
        self.measured: list[str] = []

    def supported_isas(self) -> list[str]:
        return self.isas

    def time_linear(self, *what: Any, isa: str) -> dict[str, list[float]]:
        self.measured.append(isa)
        return {"seconds": [self.ms[isa] / 1e3, 1.0]}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`machine.start` sets up a fake machine, as in a fresh process; `machine.cpu` is the CPU's name."""
    state = SimpleNamespace(cpu="Example CPU (family 6, model 207)", folder=tmp_path)

    def start(isas: list[str], **ms: float) -> Machine:
        state.machine = Machine(isas, **ms)
        levels._known.clear()
        return state.machine

    state.start = start
    monkeypatch.setenv("BARKFAST_CACHE", str(tmp_path))
    monkeypatch.delenv("BARKFAST_CPU_ISA", raising=False)
    monkeypatch.setattr(levels, "require_native", lambda: state.machine)
    monkeypatch.setattr(levels, "choose_isa", lambda: os.environ.get("BARKFAST_CPU_ISA") or state.machine.isas[-1])
    monkeypatch.setattr(levels, "count_threads", lambda: 2)
    monkeypatch.setattr(levels, "name_cpu", lambda: state.cpu)
    yield state
    levels._known.clear()


@pytest.mark.parametrize(
    ("ms", "chosen"),
    [
        ({"avx512_vnni": 5.0, "avx512_bf16": 9.0, "amx": 2.0}, "amx"),
        ({"avx512_vnni": 5.0, "avx512_bf16": 2.0, "amx": 9.0}, "avx512_bf16"),
        ({"avx512_vnni": 2.0, "avx512_bf16": 4.0, "amx": 9.0}, "avx512_vnni"),
        # Nearly a tie: the result does not depend on chance.
        ({"avx512_vnni": 5.0, "avx512_bf16": 2.0, "amx": 2.2}, "amx"),
    ],
)
def test_the_fastest_is_chosen_once(machine: Any, ms: dict[str, float], chosen: str) -> None:
    fresh = machine.start(ALL, **ms)
    assert choose_level("bfloat16") == chosen
    assert set(fresh.measured) == set(ms)
    n_measured = len(fresh.measured)
    assert choose_level("bfloat16") == chosen and len(fresh.measured) == n_measured
    # Another process reads the stored choice.
    later = machine.start(ALL, **ms)
    assert choose_level("bfloat16") == chosen and later.measured == []
    assert read_choices()["bfloat16"]["ms"] == ms
    assert f"bfloat16 by {chosen} (" in describe_choices()


def test_each_dtype_has_its_own(machine: Any) -> None:
    machine.start(ALL, avx512_vnni=1.0, avx512_bf16=5.0, amx=2.0)
    assert [choose_level(dtype) for dtype in ("int8", "bfloat16", "float32")] == ["avx512_vnni", "avx512_vnni", "amx"]
    assert sorted(read_choices()) == ["bfloat16", "int8"]


@pytest.mark.parametrize("isas", [["scalar"], ["scalar", "avx2"], ["scalar", "avx2", "avx512", "avx512_vnni"]])
def test_where_there_is_one_way_nothing_is_measured(machine: Any, isas: list[str]) -> None:
    fresh = machine.start(isas)
    assert choose_level("bfloat16") == choose_level("int8") == isas[-1]
    assert fresh.measured == [] and not any(machine.folder.rglob("*.json"))
    assert describe_choices().startswith("nothing was measured")


def test_a_level_that_is_forced_is_taken(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = machine.start(ALL, avx512_vnni=1.0, avx512_bf16=1.0, amx=1.0)
    monkeypatch.setenv("BARKFAST_CPU_ISA", "avx2")
    assert choose_level("bfloat16") == "avx2" and fresh.measured == []


def kept(machine: Any) -> Path:
    machine.start(ALL, avx512_vnni=5.0, avx512_bf16=9.0, amx=2.0)
    assert choose_level("bfloat16") == "amx"
    (path,) = machine.folder.rglob("levels.json")
    return path


def test_the_choice_of_another_cpu_is_not_taken_over(machine: Any) -> None:
    path = kept(machine)
    machine.cpu = "Other CPU (family 26, model 2)"
    assert read_choices() == {}
    there = machine.start(ALL[:-1], avx512_vnni=5.0, avx512_bf16=2.0)
    assert choose_level("bfloat16") == "avx512_bf16" and there.measured
    assert json.loads(path.read_text())["cpu"] == machine.cpu


def test_the_same_cpu_with_other_levels_or_threads_is_measured_again(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(machine)
    # A system that does not enable AMX tiles.
    there = machine.start(ALL[:-1], avx512_vnni=5.0, avx512_bf16=2.0)
    assert choose_level("bfloat16") == "avx512_bf16" and there.measured
    monkeypatch.setattr(levels, "count_threads", lambda: 1)
    there = machine.start(ALL[:-1], avx512_vnni=1.0, avx512_bf16=2.0)
    assert choose_level("bfloat16") == "avx512_vnni" and there.measured


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"cpu": 3}',
        '{"cpu": "Example CPU (family 6, model 207)", "levels": 3}',
        '{"cpu": "Example CPU (family 6, model 207)", "levels": {"bfloat16": 3}}',
        '{"cpu": "Example CPU (family 6, model 207)", "levels": {"bfloat16": {"level": "amx", "ms": 3}}}',
        '{"cpu": "Example CPU (family 6, model 207)", "levels": {"bfloat16": {"level": "avx9", "threads": 2, '
        '"ms": {"avx512_vnni": 1, "avx512_bf16": 1, "amx": 1}}}}',
    ],
)
def test_a_file_that_says_nothing_is_written_anew(machine: Any, content: str) -> None:
    path = kept(machine)
    path.write_text(content)
    describe_choices()
    there = machine.start(ALL, avx512_vnni=5.0, avx512_bf16=2.0, amx=9.0)
    assert choose_level("bfloat16") == "avx512_bf16" and there.measured
    assert read_choices()["bfloat16"]["level"] == "avx512_bf16"


def test_without_a_cache_it_is_measured_once_a_process(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.folder / "file").write_text("")
    for cache in ("off", str(machine.folder / "file" / "below")):
        monkeypatch.setenv("BARKFAST_CACHE", cache)
        there = machine.start(ALL, avx512_vnni=5.0, avx512_bf16=9.0, amx=2.0)
        assert choose_level("bfloat16") == "amx"
        n_measured = len(there.measured)
        assert choose_level("bfloat16") == "amx" and len(there.measured) == n_measured


def test_threads_that_load_at_once_choose_alike(machine: Any) -> None:
    there = machine.start(ALL, avx512_vnni=5.0, avx512_bf16=9.0, amx=2.0)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(choose_level, ["bfloat16"] * 32))
    assert found == ["amx"] * 32
    assert len(there.measured) == 3 * levels.ROUNDS
