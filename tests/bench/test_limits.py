"""The machine's limits: each is the best of its measurements, and plausible."""

import dataclasses
import json

import pytest

from barkfast.bench import machine, measure
from barkfast.bench.measure import measure_limits, measure_products, measure_reading
from barkfast.errors import InputError
from barkfast.native import load_native
from bench.networks import needs_native

QUICK = 0.1


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_limit_is_the_best_of_its_ways(dtype: str):
    found = measure_limits("cpu", dtype, seconds=QUICK)
    json.dumps(dataclasses.asdict(found))
    values = {unit: [way["value"] for way in found.ways if way["unit"] == unit] for unit in ("GB/s", "TFLOP/s")}
    assert found.read_gb_per_s == max(values["GB/s"]) > 0.1
    assert found.tflop_per_s == max(values["TFLOP/s"]) > 0
    assert len({way["name"] for way in found.ways}) == len(found.ways)


@needs_native
def test_the_engine_is_among_those_that_try():
    assert all("the engine's threads" in way["name"] for way in measure_reading("cpu", seconds=QUICK))
    names = [way["name"] for way in measure_products("cpu", "int4", seconds=QUICK)]
    assert "product by the engine's kernel, int4" in names
    # A product in a wider dtype may reach the limit of int4 too.
    assert "product by torch.mm, float32" in names and "product by torch.mm, float16" not in names


def test_without_the_native_module_torch_measures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "load_native", lambda: None)
    found = measure_limits("cpu", "float32", seconds=QUICK)
    assert [way["name"] for way in found.ways] == ["read by torch.sum, float32", "product by torch.mm, float32"]


def test_no_more_memory_is_taken_than_there_is(monkeypatch: pytest.MonkeyPatch):
    sizes = []

    class Native:
        def time_reads(self, size: int, large_pages: bool, threads: int, repeats: int) -> list[float]:
            sizes.append(size)
            return [0.5] * repeats

    monkeypatch.setattr(measure, "load_native", lambda: Native())
    monkeypatch.setattr(machine, "memory_available", lambda: 2**24)
    (small, large) = measure_reading("cpu")
    assert set(sizes) == {2**22}
    assert small["value"] == large["value"] == round(2**22 / 0.5 / 1e9, 2)


@pytest.mark.parametrize(("device", "dtype", "named"), [("cpu", "int3", "int3"), ("tpu", "int8", "tpu")])
def test_what_is_not_there_is_named(device: str, dtype: str, named: str):
    with pytest.raises(InputError, match=named):
        measure_limits(device, dtype, seconds=QUICK)


@pytest.mark.gpu
def test_a_gpu_reads_faster_than_it_copies_from_the_host():
    found = measure_limits("cuda", "bfloat16", seconds=1)
    assert found.read_gb_per_s > 50 and found.tflop_per_s > 1


def test_the_native_module_is_used_where_there_is_one():
    assert (load_native() is None) == (measure_reading("cpu", seconds=QUICK)[0]["name"] == "read by torch.sum, float32")
