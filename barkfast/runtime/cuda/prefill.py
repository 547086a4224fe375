"""Run a whole sequence through the layers at once: matrix products by torch, the rest by our kernels."""

from collections.abc import Callable

import torch
from torch import Tensor

from barkfast.runtime.cuda.network import Matrix, Network
from barkfast.runtime.cuda.state import State
from barkfast_kernels.bias_gelu import bias_gelu
from barkfast_kernels.embed_prompt import embed_prompt
from barkfast_kernels.flash_attention import prefill_attention
from barkfast_kernels.residual_norm import residual_norm

# attend(layer, qkv (T, 3 * n_embd), out (T, n_embd))
Attend = Callable[[int, Tensor, Tensor], None]


class Trunk:
    """The layers of a network over up to `length` positions, with their own buffers.

    The residual stream is float32; the inputs of matrix products have the storage dtype.
    """

    def __init__(self, network: Network, length: int) -> None:
        self.network = network
        width, device = network.config.n_embd, network.wpe.device

        def buffer(columns: int, dtype: torch.dtype = network.dtype) -> Tensor:
            return torch.empty(length, columns, device=device, dtype=dtype)

        self.x = buffer(width, torch.float32)
        self._h, self._y = buffer(width), buffer(width)
        # The attention's inputs and the MLP's hidden units are never needed at the same time.
        self._wide = buffer(4 * width)

    def run(self, length: int, attend: Attend) -> tuple[Tensor, Tensor | None]:
        """Run x[:length] through the layers; return what is not yet added to x: (length, n_embd), and a bias."""
        x, h, y = self.x[:length], self._h[:length], self._y[:length]
        width = x.shape[1]
        wide = self._wide.flatten()
        qkv, hidden = (wide[: n * length * width].view(length, n * width) for n in (3, 4))
        pending: Tensor | None = None
        bias: Tensor | None = None
        for index, layer in enumerate(self.network.layers):
            residual_norm(x, pending, bias, layer.norm_1.weight, layer.norm_1.bias, h)
            self._multiply(h, layer.qkv, qkv, with_bias=True)
            attend(index, qkv, h)
            self._multiply(h, layer.out, y)
            residual_norm(x, y[None], layer.out.bias, layer.norm_2.weight, layer.norm_2.bias, h)
            self._multiply(h, layer.fc, hidden)
            bias_gelu(hidden, layer.fc.bias, hidden)
            self._multiply(hidden, layer.proj, y)
            pending, bias = y[None], layer.proj.bias
        return y, bias

    def normalize(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """Add `y` and `bias` to x, and return the final norm's output, (length, n_embd)."""
        out, norm = self._h[: len(y)], self.network.norm
        residual_norm(self.x[: len(y)], y[None], bias, norm.weight, norm.bias, out)
        return out

    def _multiply(self, x: Tensor, matrix: Matrix, out: Tensor, *, with_bias: bool = False) -> None:
        weight = matrix.dense(self.network.scratch).t()
        if with_bias and matrix.bias is not None:
            torch.addmm(matrix.bias, x, weight, out=out)
        else:
            torch.mm(x, weight, out=out)


class Prefill:
    """Fills a slot's KV cache from a prompt.

    Attributes:
        tokens: (2 * block_size,) int32 on the device, the prompt's ids.
        prompt: (4,) int32 on the device: slot, positions, n_merged, 0; see embed_prompt.
    """

    def __init__(self, network: Network, state: State) -> None:
        self.network, self.state = network, state
        self.trunk = Trunk(network, network.config.block_size)
        device = state.x.device
        self.tokens = torch.zeros(2 * network.config.block_size, dtype=torch.int32, device=device)
        self.prompt = torch.zeros(4, dtype=torch.int32, device=device)

    @property
    def rows(self) -> Tensor:
        """(1,) int32: the slot that the prompt is for."""
        return self.prompt[:1]

    def run(self, length: int) -> None:
        """Fill the slot's cache, and leave the last position's hidden state in x; `length` positions are computed.

        Positions beyond the prompt are padding: earlier positions do not attend to them, and they are not cached.
        """
        state, network = self.state, self.network
        embed_prompt(self.tokens, network.tables[0], network.wpe, self.trunk.x[:length], self.prompt)

        def attend(layer: int, qkv: Tensor, out: Tensor) -> None:
            prefill_attention(
                qkv, out, state.keys[layer], state.values[layer], self.prompt, n_head=network.config.n_head
            )

        y, bias = self.trunk.run(length, attend)
        last = self.prompt[1:2].long() - 1
        hidden = self.trunk.x[:length].index_select(0, last) + y.index_select(0, last)
        if bias is not None:
            hidden += bias
        state.x.index_copy_(0, self.rows.long(), hidden)
