"""Other processes use the cores too: preempted threads are not waited for in every phase."""

import os
import subprocess
import sys

import pytest

from barkfast.cores import physical_cores
from barkfast.native import native_status
from benchmarks.sections.busy import busy_loops

# A process that generates a clip for each line it reads, and prints the seconds it took.
SPEAKER = """
import sys, time
from barkfast import Bark
bark = Bark("demo", engine="cpu", device="cpu")
bark.load()
for _ in sys.stdin:
    start = time.perf_counter()
    bark.generate("Hello there.", seed=3)
    print(time.perf_counter() - start, flush=True)
"""


@pytest.mark.skipif(not native_status()[0], reason=f"native module {native_status()[1]}")
def test_a_clip_beside_busy_loops_takes_its_share_of_the_cores_and_no_more() -> None:
    """With two busy loops per core, a fair share takes three times as long; waiting in every phase took 100 times."""
    cores = physical_cores()
    if cores == 1:
        pytest.skip("on one core there is one thread, which waits for nobody")
    threads = {"BARKFAST_THREADS": str(cores), "OMP_NUM_THREADS": str(cores)}
    with subprocess.Popen(
        [sys.executable, "-c", SPEAKER],
        env={**os.environ, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as speaker:
        assert speaker.stdin is not None and speaker.stdout is not None

        def clip() -> float:
            print(file=speaker.stdin, flush=True)
            return float(speaker.stdout.readline())

        idle = min(clip() for _ in range(5))
        with busy_loops(2 * cores):
            busy = min(clip() for _ in range(3))
    assert busy < 15 * idle


@pytest.mark.parametrize(
    ("setting", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_the_threads_of_torch_do_not_spin_for_long(setting: dict[str, str], spins: str) -> None:
    """libgomp is loaded with a low spin count unless the user sets one; child processes do not inherit the variable."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    code = "import barkfast, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | setting | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in shown.stderr:
        pytest.skip("torch's OpenMP is not GNU's here")
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown.stderr
    assert shown.stdout.strip() == str(setting.get("GOMP_SPINCOUNT"))
