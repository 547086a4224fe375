"""The plain networks made fast as gpt-fast does it: a cache of fixed shape, and a decode step by torch.compile.

One step feeds the token drawn last, draws the next on the device and remembers it there, so that a job is a prompt, as
many replays of a CUDA graph as it has steps, and one copy to the host. No kernel of this project has a part in it.

The step is compiled in three pieces: its begin, a layer, its end. Layers are alike, so this takes seconds instead of
minutes. A layer's piece ends behind the next one's norm, so that what can be fused across layers is; and a CUDA graph
holds all of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from barkfast.jobs import Job
from barkfast.models.gpt import GPT, Block, LayerNorm
from barkfast.runtime.decoder import check_job

# Calls before a capture: they compile, and let the allocator settle.
WARM_UPS = 3


def draw(logits: Tensor, temperature: float) -> Tensor:
    """One index per row of (batch, n) logits: the likeliest at temperature 0, else one drawn from their softmax."""
    if not temperature:
        return logits.argmax(-1)
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    # The smallest of exponential variables of these rates: multinomial would wait for the device.
    return (probs / torch.empty_like(probs).exponential_()).argmax(-1)


class LayerCache(nn.Module):
    """A layer's keys and values, (1, n_head, block_size, head_dim); not yet written ones are masked."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        super().__init__()
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(shape, device=like.device, dtype=like.dtype))


class StaticGPT(nn.Module):
    """A GPT that keeps one sequence in buffers whose shapes never change.

    Buffers:
        mask: (block_size, block_size) bool, which positions each position sees.
        token: (1, 1) int64, what is fed next.
        position, drawn: (1,) int64, where it stands, and how many tokens were drawn.
        tokens: (block_size,) int64, what was drawn.
    """

    mask: Tensor
    token: Tensor
    position: Tensor
    drawn: Tensor
    tokens: Tensor

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        config, like = gpt.config, gpt.lm_head.weight
        self.gpt = gpt
        shape = (1, config.n_head, config.block_size, config.head_dim)
        self.caches = nn.ModuleList(LayerCache(shape, like) for _ in range(config.n_layer))
        device, size = like.device, config.block_size
        self.register_buffer("mask", torch.ones(size, size, dtype=torch.bool, device=device).tril())
        for name, of_shape in {"token": (1, 1), "position": (1,), "drawn": (1,), "tokens": (size,)}.items():
            self.register_buffer(name, torch.zeros(of_shape, dtype=torch.int64, device=device))

    def prefill(self, prompt: Tensor, n_merged: int, head: Tensor, first: Tensor, temperature: float) -> None:
        """Read a (1, length) prompt, and draw the first token.

        Args:
            n_merged: as of Job.
            head: (n, n_embd), rows of the output matrix that may be drawn from.
            first: () int64, the token that the first of them stands for.
        """
        trunk = self.gpt.transformer
        x = self.gpt.embed(prompt, n_merged)
        length = x.shape[1]
        x = x + trunk.wpe.weight[:length]
        layers: Any = zip(trunk.h, self.caches, strict=True)
        for block, cache in layers:
            x = block(x, cache.keys, cache.values, 0)
        self.position.fill_(length)
        self.drawn.zero_()
        self._draw(trunk.ln_f(x[:, -1:]), head, first, temperature)

    def step(self, head: Tensor, first: Tensor, temperature: float) -> None:
        """Feed the token drawn last, and draw the next. Args: as `prefill`."""
        trunk: Any = self.gpt.transformer
        norms = [*(block.ln_1 for block in trunk.h), trunk.ln_f]
        x, normed, mask = self._embed(norms[0])
        layers: Any = zip(trunk.h, self.caches, norms[1:], strict=True)
        for block, cache, norm in layers:
            x, normed = self._layer(block, cache, norm, x, normed, mask)
        self._end(normed, head, first, temperature)

    def compile_pieces(self, **options: Any) -> None:
        """Have torch.compile make the pieces of a step.

        Args:
            options: of torch.compile.
        """
        for name in ("_embed", "_layer", "_end"):
            setattr(self, name, torch.compile(getattr(self, name), fullgraph=True, dynamic=False, **options))

    def _embed(self, norm: LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
        trunk: Any = self.gpt.transformer
        x = trunk.wte(self.token) + trunk.wpe(self.position)
        return x, norm(x), self.mask[self.position]

    def _layer(
        self, block: Block, cache: LayerCache, norm: LayerNorm, x: Tensor, normed: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One layer; `normed` is x by its first norm, `norm` that of the next."""
        q, k, v = block.attn.heads(normed)
        cache.keys.index_copy_(2, self.position, k)
        cache.values.index_copy_(2, self.position, v)
        x = x + block.attn.merge(F.scaled_dot_product_attention(q, cache.keys, cache.values, attn_mask=mask))
        x = x + block.mlp(block.ln_2(x))
        return x, norm(x)

    def _end(self, hidden: Tensor, head: Tensor, first: Tensor, temperature: float) -> None:
        self.position.add_(1)
        self._draw(hidden, head, first, temperature)

    def _draw(self, hidden: Tensor, head: Tensor, first: Tensor, temperature: float) -> None:
        token = draw(F.linear(hidden, head)[:, 0], temperature) + first
        self.token.copy_(token[:, None])
        self.tokens.index_copy_(0, self.drawn, token)
        self.drawn.add_(1)


class CompiledDecoder:
    """Runs jobs that end by their number of steps, one at a time.

    Args:
        gpt: on its device, in its dtype.
        backend: of torch.compile; None runs the step as it stands.
    """

    def __init__(self, gpt: GPT, backend: str | None = "inductor") -> None:
        self.network = StaticGPT(gpt).requires_grad_(False).eval()
        self.device = gpt.lm_head.weight.device
        if backend == "inductor" and self.device.type == "cuda":
            # Graphs are our own: one that feeds itself needs no call of Python's per token.
            self.network.compile_pieces(backend=backend, mode="max-autotune-no-cudagraphs")
        elif backend is not None:
            self.network.compile_pieces(backend=backend)
        self._replays: dict[tuple[int, int, float], Callable[[], None]] = {}

    @torch.no_grad()
    def run(self, job: Job) -> np.ndarray:
        """The job's tokens, (steps,) int32.

        Raises: InputError for a job that does not fit the network; ValueError for one with a stop token or a filter.
        """
        check_job(job, self.network.gpt.config)
        sampling = job.sampling
        if job.stop is not None or sampling.top_k is not None or sampling.top_p is not None:
            raise ValueError("this peer runs jobs without a stop token, top-k and top-p alone")
        temperature = float(sampling.temperature or 0)
        # Before the prompt is read: to capture them they are run.
        replays = [self._replay(first, end, temperature) for first, end in job.slices]
        prompt = torch.from_numpy(job.prompt.astype(np.int64)).to(self.device)[None]
        head, first = self._rows(*job.slices[0])
        self.network.prefill(prompt, job.n_merged, head, first, temperature)
        for i in range(1, job.steps):
            replays[i % len(replays)]()
        return self.network.tokens[: job.steps].cpu().numpy().astype(np.int32)

    def _rows(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        """The output matrix's rows of a slice, and the token of the first."""
        return self.network.gpt.lm_head.weight[first:end], torch.tensor(first, device=self.device)

    def _replay(self, first: int, end: int, temperature: float) -> Callable[[], None]:
        """One step that draws from a slice, as a graph where there are graphs."""
        key = (first, end, temperature)
        if key not in self._replays:
            head, start = self._rows(first, end)
            self._replays[key] = self._capture(lambda: self._once(head, start, temperature))
        return self._replays[key]

    def _once(self, head: Tensor, first: Tensor, temperature: float) -> None:
        # As gpt-fast: for one query the compiler's own kernels are better than the fused ones.
        with sdpa_kernel(SDPBackend.MATH):
            self.network.step(head, first, temperature)

    def _capture(self, once: Callable[[], None]) -> Callable[[], None]:
        if self.device.type != "cuda":
            return once
        self.network.position.zero_()
        self.network.drawn.zero_()
        stream, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                once()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            once()
        return graph.replay
