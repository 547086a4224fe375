"""The number of threads that the cpu engine uses, and the one pool that a process has."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from barkfast import import_torch
from barkfast.errors import InputError
from barkfast.native import load_native, native_status
from barkfast.runtime.cpu import threads

ROOT = Path(__file__).resolve().parents[2]
native = load_native()
if native is None:
    pytest.skip(native_status()[1], allow_module_level=True)


@pytest.fixture(autouse=True)
def no_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a fresh process, on a machine with 4 cores of two threads each."""
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "physical_cores", lambda: 4)
    monkeypatch.setattr(threads, "logical_cpus", lambda: 8)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_one_thread_per_physical_core():
    torch.set_num_threads(8)
    assert threads.count_threads() == 4


def test_torchs_setting_holds_here_too():
    torch.set_num_threads(3)
    assert threads.count_threads() == 3


@pytest.mark.parametrize("number", ["1", "5", "8"])
def test_the_variable_wins(number: str, monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("BARKFAST_THREADS", number)
    assert threads.count_threads() == int(number)


@pytest.mark.parametrize("value", ["0", "9", "-1", "2.5", "two", " 3", "٣"])
def test_impossible_numbers_are_refused(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BARKFAST_THREADS", value)
    with pytest.raises(InputError, match=f"BARKFAST_THREADS is '{value}'; expected a whole number from 1 to 8"):
        threads.count_threads()
    with pytest.raises(InputError):
        threads.shared_pool()


def test_a_process_has_one_pool(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BARKFAST_THREADS", "2")
    pool = threads.shared_pool()
    assert pool.size == 2
    monkeypatch.setenv("BARKFAST_THREADS", "3")
    assert threads.shared_pool() is pool
    assert threads.count_threads() == 2


@pytest.mark.parametrize(("quota", "n", "warned"), [(1.5, 2, False), (1.5, 3, True), (0.5, 1, False), (None, 8, False)])
def test_more_threads_than_the_cgroup_grants_is_said_once(
    quota: float | None, n: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("BARKFAST_THREADS", str(n))
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(threads, "physical_cores", lambda: 2)
    for _ in range(2):
        threads.shared_pool()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warned
    assert all("set BARKFAST_THREADS to 2" in line and "the time of 1.5 cores" in line for line in said)


def test_threads_that_ask_first_at_once_get_one_pool(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BARKFAST_THREADS", "2")
    start = threading.Barrier(8)

    def ask(_: int) -> object:
        start.wait()
        return threads.shared_pool()

    with ThreadPoolExecutor(8) as callers:
        assert len(set(callers.map(ask, range(8)))) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process give CPUs away")
def test_cpus_that_were_given_away_do_not_count():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from barkfast.runtime.cpu import threads"
    )
    code += "; print(threads.logical_cpus())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1"


@pytest.mark.parametrize(("quota", "given", "n"), [(1.5, None, "2"), (1.5, "3", "3"), (None, None, None)])
def test_torch_is_loaded_with_as_many_threads_as_a_quota_grants_cores(
    quota: float | None, given: str | None, n: str | None, monkeypatch: pytest.MonkeyPatch
):
    """libgomp reads the variable while torch is loaded; afterwards the variable has its old value."""
    monkeypatch.setattr(import_torch, "cpu_quota", lambda: quota)
    monkeypatch.setattr(import_torch, "physical_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    with import_torch._settings():
        assert os.environ.get("OMP_NUM_THREADS") == n
    assert os.environ.get("OMP_NUM_THREADS") == given
