"""A fork while another thread is in a native call: the child's first call works, and nothing in the child hangs."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from barkfast.config import CodecConfig, FineConfig, GPTConfig, Sampling
from barkfast.errors import InputError
from barkfast.jobs import FineJob, Job
from barkfast.runtime.cpu import threads
from barkfast.runtime.cpu.codec import CpuCodec
from barkfast.runtime.cpu.packing import pack_network
from barkfast.runtime.cpu.refiner import CpuRefiner
from barkfast.weights.random import make_codec
from contract.networks import fine_tensors, make_job
from cpu_engine.networks import cpu_decoder, make_pool, needs_native

pytestmark = [needs_native, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")]

# Slow enough that a busy thread is in native code nearly all the time.
SLOW = GPTConfig(1, 4, 256, 123, 120, 1024, bias=False)
FINE = FineConfig(2, 4, 64, 40, 40, 130, bias=True, n_codes_total=4, n_codes_given=1)
CODEC = CodecConfig(n_codebooks=4, codebook_size=64, dimension=24, n_filters=6, ratios=(4, 3, 2))
HANGS_AFTER_S = 60


def in_child(work: Callable[[], None]) -> None:
    """Call `work` in a forked child; fails if it raises there, or does not return."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # The alarm ends the process even if it hangs.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HANGS_AFTER_S)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), f"the child was ended by signal {os.WTERMSIG(status)} (14: it hung)"
    assert os.WEXITSTATUS(status) == 0


@contextmanager
def at_work(work: Callable[[], Any]) -> Iterator[None]:
    """Repeat `work` in another thread for the length of the block."""
    ends = threading.Event()

    def repeat() -> None:
        while not ends.is_set():
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        time.sleep(0.05)
        yield
        assert thread.is_alive()
    finally:
        ends.set()
        thread.join()


def slow_job() -> Job:
    return make_job(1, length=20, steps=12, slices=((0, 100),))


def make_decoder() -> Callable[[], np.ndarray]:
    decoder = cpu_decoder(config=SLOW, isa="scalar")
    return lambda: decoder.run([slow_job()])[0]


def make_refiner() -> Callable[[], np.ndarray]:
    refiner = CpuRefiner(FINE, pack_network(FINE, fine_tensors(FINE), "float32", what="it"), pool=make_pool())
    window = np.random.default_rng(0).integers(0, 38, (FINE.block_size, 4))
    return lambda: refiner.refine(FineJob(window, 0, 1, 38, Sampling(temperature=0)))


def make_decoding() -> Callable[[], np.ndarray]:
    codec = CpuCodec(CODEC, make_codec(CODEC, None), pool=make_pool())
    codes = np.random.default_rng(0).integers(0, 64, (4, 300))
    return lambda: codec.decode(codes)


MAKERS = {"decoder": make_decoder, "refiner": make_refiner, "codec": make_decoding}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_object_at_work_works_in_the_child(kind: str) -> None:
    run = MAKERS[kind]()
    expected = run()

    def check() -> None:
        np.testing.assert_array_equal(run(), expected)
        # The first calls of two threads start the pool's workers only once.
        with ThreadPoolExecutor(2) as callers:
            for got in callers.map(lambda _: run(), range(2)):
                np.testing.assert_array_equal(got, expected)
        # A child of the child works too.
        in_child(lambda: np.testing.assert_array_equal(run(), expected))

    with at_work(run):
        in_child(check)
    np.testing.assert_array_equal(run(), expected)


def test_what_shares_the_pool_of_what_is_at_work() -> None:
    """While one object of each kind runs or waits for the shared pool, other objects of each kind work in the child."""
    busy, idle = [make() for make in MAKERS.values()], [make() for make in MAKERS.values()]
    expected = [run() for run in idle]

    def check() -> None:
        for run, result in zip(idle, expected, strict=True):
            np.testing.assert_array_equal(run(), result)

    with at_work(busy[0]), at_work(busy[1]), at_work(busy[2]):
        in_child(check)


def test_jobs_of_another_thread_fail_in_the_child() -> None:
    decoder = cpu_decoder(config=SLOW, isa="scalar", n_slots=2)
    expected = decoder.run([slow_job()])[0]
    slots = sorted(decoder.admit(make_job(i, length=20, steps=900, slices=((0, 100),))) for i in (1, 2))

    def check() -> None:
        steps = decoder.step()
        assert [step.slot for step in steps] == slots
        assert all(step.done and "when this process was forked" in str(step.error) for step in steps)
        decoder.release(slots[0])
        again = decoder.admit(slow_job())
        tokens = []
        for step in (step for _ in range(12) for step in decoder.step() if step.slot == again):
            tokens.append(step.token)
        np.testing.assert_array_equal(tokens, expected)
        for slot in slots:
            decoder.release(slot)
        np.testing.assert_array_equal(decoder.run([slow_job()])[0], expected)

    def step_on() -> None:
        with decoder._acquire():
            for _ in range(40):
                decoder.step()

    with at_work(step_on):
        in_child(check)


def test_a_thread_that_forks_within_its_own_call_goes_on() -> None:
    decoder = cpu_decoder(config=SLOW, isa="scalar")
    expected = decoder.run([slow_job()])[0]
    inside: list[int] = []

    def fork_once(index: int, drawn: int) -> None:
        if not inside:
            inside.append(os.fork())
            if inside[0] == 0:
                signal.alarm(HANGS_AFTER_S)

    try:
        got = decoder.run([slow_job()], fork_once)[0]
    finally:
        if inside == [0]:
            os._exit(0 if np.array_equal(got, expected) else 1)
    assert os.waitpid(inside[0], 0)[1] == 0
    np.testing.assert_array_equal(got, expected)


def test_a_stream_at_work_is_refused_in_the_child() -> None:
    codec = CpuCodec(CODEC, make_codec(CODEC, None), pool=make_pool())
    # So many frames that the stream is nearly always busy, also while the process forks.
    codes, stream = np.random.default_rng(0).integers(0, 64, (4, 60_000)), codec.stream()

    def check() -> None:
        with pytest.raises(InputError, match="interrupted; begin a new one"):
            stream.push(codes)
        assert len(codec.stream().push(codes[:, :300])) > 0

    with at_work(lambda: stream.push(codes)):
        in_child(check)


def test_the_shared_pool_can_be_made_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_pool", None)
    made = threading.Event()

    def hold() -> None:
        with threads._lock:
            made.wait()

    with at_work(hold):
        try:
            in_child(lambda: None if threads.shared_pool() else os._exit(1))
        finally:
            made.set()
