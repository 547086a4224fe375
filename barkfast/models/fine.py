"""The fine network: reads codebooks 0..k of a whole window at once and predicts codebook k."""

import torch
from torch import Tensor, nn

from barkfast.config import FineConfig
from barkfast.models.gpt import Block, LayerNorm


class FineTrunk(nn.Module):
    """Embeddings, blocks and final norm, under the names of Suno's checkpoints.

    Layer norms keep their bias whatever config.bias says: the reference uses nn.LayerNorm here.
    """

    def __init__(self, config: FineConfig) -> None:
        super().__init__()
        self.wtes = nn.ModuleList(
            nn.Embedding(config.input_vocab_size, config.n_embd) for _ in range(config.n_codes_total)
        )
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, norm_bias=True) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, bias=True)


class FineGPT(nn.Module):
    """A non-causal transformer over (frames, codebooks); parameter names are those of Suno's checkpoints."""

    def __init__(self, config: FineConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = FineTrunk(config)
        self.lm_heads = nn.ModuleList(
            nn.Linear(config.n_embd, config.output_vocab_size, bias=False)
            for _ in range(config.n_codes_given, config.n_codes_total)
        )
        self.tie()

    def tie(self) -> None:
        """Share each head with its codebook's input table; call it again after loading."""
        for i, head in enumerate(self.lm_heads):
            self.transformer.wtes[i + 1].weight = head.weight

    def embed(self, codes: Tensor, codebook: int) -> Tensor:
        """Sum the embeddings of codebooks 0..`codebook`, inclusive, of `codes` (batch, frames, codebooks).

        The codebook being predicted contributes its current content: the pad id or an earlier prediction.
        """
        tables = self.transformer.wtes
        # One reduction over a stacked axis, as in the reference: adding one by one rounds differently.
        return torch.stack([tables[k](codes[:, :, k]) for k in range(codebook + 1)], dim=-1).sum(dim=-1)

    def forward(self, codes: Tensor, codebook: int) -> Tensor:
        """Logits of `codebook` (at least n_codes_given) for every frame: (batch, frames, output_vocab_size)."""
        x = self.embed(codes, codebook) + self.transformer.wpe.weight[: codes.shape[1]]
        for block in self.transformer.h:
            x = block(x)
        return self.lm_heads[codebook - self.config.n_codes_given](self.transformer.ln_f(x))
