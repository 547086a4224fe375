"""What each stage of a clip must read and compute, whatever runs it: by arithmetic on its prompts and windows."""

from dataclasses import dataclass

import numpy as np

from barkfast.bark import Bark
from barkfast.bench.memory import network_bytes
from barkfast.bench.roofline import codec_flop, decoder_step_bytes, fine_flop, pass_flop
from barkfast.bench.workload import Workload, voice_of
from barkfast.config import FineConfig, GPTConfig, Sampling
from barkfast.runtime.decoder import Decoder
from barkfast.stages.coarse import CoarseWindows
from barkfast.stages.fine import FineWindows
from barkfast.stages.semantic import count_steps, semantic_job

# Which shape of a stage is read; nothing here depends on how tokens are drawn.
SAMPLING = Sampling(0.7)


@dataclass(frozen=True)
class Work:
    """Of one stage of a clip.

    Args:
        bytes: that must be read: weights once per step or pass, keys and values once per step.
        flop: floating-point operations that a machine is bound by: of prompts, windows, and frames.
        operations: all of them, those of decode steps too.
    """

    bytes: float
    flop: float
    operations: float


@dataclass
class _Decoding:
    """Adds up what prompts and steps of one decoder cost."""

    decoder: Decoder
    config: GPTConfig
    candidates: int
    bytes: float = 0.0
    flop: float = 0.0
    step_flop: float = 0.0

    def read_prompt(self, positions: int) -> None:
        self.flop += pass_flop(self.config, positions)

    def run_steps(self, context: int, passes: int, draws: int) -> None:
        """So many single tokens through the layers, the first one beside `context` others; so many drawn."""
        mean = context + (passes + 1) / 2
        one = decoder_step_bytes(self.decoder, context=mean, candidates=self.candidates)
        self.bytes += passes * (one.layers + one.kv) + draws * one.head
        layers = self.config.n_layer * (2 * 12 * self.config.n_embd**2 + 4 * mean * self.config.n_embd)
        self.step_flop += passes * layers + draws * 2 * self.candidates * self.config.n_embd

    def total(self) -> Work:
        return Work(self.bytes, self.flop, self.flop + self.step_flop)


def count_work(bark: Bark, workload: Workload) -> dict[str, Work]:
    """Stage -> its work for a clip; the networks must be loaded, since each engine packs them differently."""
    layout, checkpoint = bark.layout, bark.checkpoint
    voice = voice_of(checkpoint, workload)
    n_semantic = count_steps(workload.seconds, layout.semantic)
    job = semantic_job(np.arange(1), layout, SAMPLING, max_duration_s=workload.seconds, allow_early_stop=False)
    semantic = _Decoding(bark.components.network("text"), checkpoint.stage("text").config, layout.semantic.vocab_size)
    positions = len(job.prompt) - job.n_merged
    semantic.read_prompt(positions)
    # The first token is drawn from the prompt itself.
    semantic.run_steps(positions, n_semantic - 1, n_semantic)
    windows = CoarseWindows(
        np.random.default_rng(0).integers(0, layout.semantic.vocab_size, n_semantic),
        layout,
        SAMPLING,
        history=None if voice is None else (voice["semantic_prompt"], voice["coarse_prompt"]),
    )
    coarse = _count_coarse(bark, windows)
    codes = windows.codes()
    history = None if voice is None else voice["fine_prompt"]
    fine = _count_fine(bark, FineWindows(codes, layout, SAMPLING, history=history), str(workload.resolve().dtype))
    codec = checkpoint.codec()
    flop = codec_flop(codec.config, codes.shape[1])
    codec_work = Work(sum(tensor.nbytes for tensor in codec.tensors.values()), flop, flop)
    return {"semantic": semantic.total(), "coarse": coarse, "fine": fine, "codec": codec_work}


def _count_coarse(bark: Bark, windows: CoarseWindows) -> Work:
    """Goes through all windows, with tokens of no meaning."""
    decoder = bark.components.network("coarse")
    coarse = _Decoding(decoder, bark.checkpoint.stage("coarse").config, bark.layout.codebook_size)
    # In float32 the torch engine reads every window's prompt from its beginning.
    keeps = getattr(decoder, "reuse_prefix", True)
    while (job := windows.next_job()) is not None:
        extends = keeps and job.continues_from is not None
        context = len(job.prompt) - extends
        if not extends:
            coarse.read_prompt(context)
        # Where a cache is extended the token drawn last is read first; else the prompt gives the first token.
        coarse.run_steps(context, job.steps - 1 + extends, job.steps)
        windows.append(np.array([job.slices[i % len(job.slices)][0] for i in range(job.steps)]))
    return coarse.total()


def _count_fine(bark: Bark, windows: FineWindows, dtype: str) -> Work:
    """A pass per window and codebook that is not given."""
    config = bark.checkpoint.stage("fine").config
    if not isinstance(config, FineConfig):
        raise TypeError(f"the fine network's configuration is a {type(config).__name__}")
    flop = windows.n_windows * fine_flop(config, bark.layout.fine.window, windows.n_given)
    passes = windows.n_windows * (config.n_codes_total - windows.n_given)
    return Work(passes * network_bytes(config, dtype), flop, flop)
