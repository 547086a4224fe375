"""A network in one dtype on the device, and decoders of it by kernel variant that share its weights."""

from concurrent.futures import ThreadPoolExecutor

from barkfast.bench.measure import step_job
from barkfast.bench.teacher_forced import GREEDY, ForcedPass, teacher_force
from barkfast.jobs import Job
from barkfast.runtime.cuda.decoder import CudaDecoder
from barkfast.runtime.cuda.device import Options
from barkfast.runtime.cuda.network import Network, load_network
from barkfast_kernels.variant import VARIANTS
from benchmarks import networks
from benchmarks.plan import Plan
from benchmarks.variants import BASE, Row, compare

TOKENS = 48
BUILDERS = 8


class Block:
    """One network in one dtype.

    Args:
        prompts: lengths of the prompts that variants are compared with.
        decoders: those built so far, by variant.
        paths: what the base variant says along its own greedy tokens, by job.
    """

    def __init__(self, plan: Plan, dtype: str, stage: str, prompts: tuple[int, ...]) -> None:
        self.plan, self.dtype, self.stage = plan, dtype, stage
        checkpoint = networks.checkpoint(plan, plan.size("large"))
        self.weights = checkpoint.stage(networks.COMPONENTS[stage])
        storage = networks.storage(plan, dtype)
        self.network: Network = load_network(
            self.weights.config, self.weights.tensors, device=plan.device, dtype=storage, int8=dtype == "int8"
        )
        tokens = 3 if plan.smoke else TOKENS
        drawn = [step_job(stage, checkpoint.layout, p, tokens, seed=p) for p in prompts]
        self.jobs = [Job(j.prompt, j.steps, j.slices, GREEDY, j.stop) for j in drawn]
        self.paths: list[ForcedPass] = []
        self.decoders: dict[str, CudaDecoder] = {}

    def build(self, label: str) -> CudaDecoder:
        """A variant's decoder of one sequence, on the shared weights.

        Raises: NotRun where its kernels cannot be used.
        """
        if label not in self.decoders:
            options = Options(pdl=Options.for_device(self.plan.device).pdl, variant=VARIANTS[label])
            self.decoders[label] = networks.cuda_decoder(
                self.plan, self.weights.config, {}, self.dtype, self.stage, options=options, network=self.network
            )
        return self.decoders[label]

    def prebuild(self, wanted: list[str]) -> None:
        """Build several at a time: NVIDIA's compiler takes seconds for each, and one thread."""

        def attempt(label: str) -> None:
            try:
                self.build(label)
            except Exception as error:
                # Named where it is built again.
                print(f"{label}: {type(error).__name__}: {error}", flush=True)

        with ThreadPoolExecutor(BUILDERS) as pool:
            list(pool.map(attempt, wanted))

    def compare(self, label: str) -> Row:
        """Whether it is right, over all prompts; of the base, whether it agrees with itself."""
        decoder = self.build(label)
        if not self.paths:
            base = self.build(BASE)
            self.paths = [teacher_force(base, job) for job in self.jobs]
        found = [compare(decoder, job, path) for job, path in zip(self.jobs, self.paths, strict=True)]
        return {
            "ok": all(row["ok"] for row in found),
            "equal": sum(row["equal"] for row in found),
            "tokens": sum(row["tokens"] for row in found),
            "rms": max(row["rms"] for row in found),
            "reason": next((row["reason"] for row in found if not row["ok"]), ""),
        }
