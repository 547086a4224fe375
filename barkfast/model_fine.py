"""The names of `bark.model_fine`: Suno's FineGPT and its configuration; see barkfast.model."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from barkfast import config as ours
from barkfast.model import LAYERS, GPTConfig, count_parameters
from barkfast.models import fine

__all__ = ["FineGPT", "FineGPTConfig"]


def __getattr__(name: str) -> Any:
    """Raise ImportError, with the reason, for the layer classes of Suno's network, which barkfast does not have."""
    if name in ("FineBlock", "NonCausalSelfAttention", "MLP"):
        raise ImportError(f"barkfast.model_fine has no {name!r}, which bark.model_fine has: {LAYERS}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class FineGPTConfig(GPTConfig):
    """Sizes of the fine network, with Suno's names."""

    n_codes_total: int = 8
    n_codes_given: int = 1


class FineGPT(fine.FineGPT):
    """The fine network, with the parameters, calls and results of Suno's class."""

    def __init__(self, config: FineGPTConfig) -> None:
        sizes = {name: value for name, value in vars(config).items() if name != "dropout"}
        super().__init__(ours.FineConfig(**sizes))
        self.config: Any = config
        self.n_codes_total = config.n_codes_total

    def get_num_params(self, non_embedding: bool = True) -> int:
        """Number of parameters; without the code and position tables if `non_embedding`."""
        return count_parameters(self, [*self.transformer.wtes, self.transformer.wpe] if non_embedding else [])

    def forward(self, pred_idx: int, idx: Tensor) -> Tensor:  # type: ignore[override]
        """Logits of codebook `pred_idx` for `idx` (batch, frames, codebooks): (batch, frames, output_vocab_size)."""
        if not 0 < pred_idx < self.n_codes_total or idx.shape[2] != self.n_codes_total:
            raise ValueError(
                f"codebook {pred_idx} of {idx.shape[2]}; expected one from 1 to {self.n_codes_total - 1} of "
                f"{self.n_codes_total}"
            )
        return super().forward(idx, pred_idx)
