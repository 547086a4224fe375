"""Several sentences together: how long a step takes that advances all of them."""

from collections.abc import Sequence
from typing import Any

from barkfast.bench.environment import device_memory, memory_available
from barkfast.bench.memory import PROCESS_BYTES, network_bytes
from barkfast.bench.steps import step_job, step_times
from barkfast.bench.timing import summarize
from barkfast.bench.workload import Workload
from barkfast.errors import InputError
from barkfast.runtime.select import Placement, build_decoder

BATCHES, MOST = (1, 2, 4, 8), 64
# Positions before the first step, about those in the middle of a clip; steps of each job.
PROMPT, STEPS = 600, 34


def check_batches(batches: Sequence[int]) -> None:
    """Raise InputError for a number of jobs that no engine takes at a time."""
    for batch in batches:
        if not 1 <= batch <= MOST:
            raise InputError(f"a batch of {batch} jobs; expected 1 to {MOST} together")


def time_batches(workload: Workload, batches: Sequence[int] = BATCHES) -> list[dict[str, Any]]:
    """Steps of the coarse network: a row per number of jobs that memory has room for.

    Returns: rows of {"batch", "ms_per_step": summary, "tokens_per_s"}.
    """
    workload = workload.resolve()
    checkpoint = workload.open()
    weights = checkpoint.stage("coarse")
    config = weights.config
    free = device_memory(workload.device)
    free = memory_available() if free is None else free
    number = 4 if workload.dtype == "float32" else 2
    each = 2 * config.n_layer * config.block_size * config.n_embd * number
    rest = network_bytes(config, "float32") + network_bytes(config, workload.dtype) + PROCESS_BYTES
    fitting = [batch for batch in sorted(set(batches)) if rest + batch * each < free]
    if not fitting:
        return []
    placement = Placement(workload.engine, workload.device, workload.device, workload.dtype, max(fitting))
    decoder = build_decoder("coarse", config, weights.tensors, placement, weights.content)
    prompt = min(PROMPT, config.block_size - STEPS)
    rows = []
    for batch in fitting:
        jobs = [step_job("coarse", checkpoint.layout, prompt, STEPS, workload.seed + i) for i in range(batch)]
        times = summarize(step_times(decoder, jobs))
        rows.append({"batch": batch, "ms_per_step": times, "tokens_per_s": batch / times["median"] * 1e3})
    return rows
