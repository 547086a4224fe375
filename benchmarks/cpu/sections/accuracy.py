"""How far the large model's logits are off; the smaller ones' are checked before anything is timed."""

from benchmarks.cpu import networks
from benchmarks.cpu.logits import check_logits
from benchmarks.cpu.sizes import model_size
from benchmarks.cpu.steps import DTYPES
from benchmarks.plan import Plan
from benchmarks.record import Recorder


def run(plan: Plan, record: Recorder) -> None:
    """A row per dtype."""
    networks.use_threads(plan)
    size = model_size(plan, "large")
    for dtype in DTYPES:
        record.measure(f"{size} logits {dtype}", lambda dtype=dtype: check_logits(plan, dtype, (size,)))
