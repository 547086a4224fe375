"""What programs written for `bark` expect of the networks in its `models`, beyond what the stages use."""

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from barkfast.config import CodecConfig
from barkfast.errors import EngineError, InputError
from barkfast.model import forward
from barkfast.models.encodec_encoder import EncodecEncoder
from barkfast.models.fine import FineGPT

_BUILDING = threading.Lock()

T = TypeVar("T")


_NOT_TORCH = (
    "networks of the cpu and cuda engines are no torch modules, so they cannot be called one by one; choose the torch "
    "engine: BARKFAST_ENGINE=torch"
)


class NetworkCompat:
    """Stands in for Suno's module: has `config` and `eval()`, and on the torch engine all that a torch module has.

    On the other engines, using a missing attribute of modules raises an error that explains why.
    """

    def eval(self: T) -> T:
        """Do nothing: networks here only run inference."""
        return self

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the network alone, with the arguments and results of Suno's classes (barkfast.model, model_fine).

        Raises:
            EngineError: on engines other than torch.
        """
        network = self._module()
        if isinstance(network, FineGPT):
            return _call_fine(network, *args, **options)
        return forward(network, *args, **options)

    def _module(self) -> Any:
        if "model" not in vars(self):
            raise EngineError(_NOT_TORCH)
        return vars(self)["model"]

    if not TYPE_CHECKING:  # or type checkers would accept every misspelt name

        def __getattr__(self, name: str) -> object:
            of_modules = hasattr(nn.Module, name) and not name.startswith("__")
            if of_modules and "model" in vars(self):
                return getattr(vars(self)["model"], name)
            hint = f"; {_NOT_TORCH}" if of_modules else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")


def _call_fine(network: FineGPT, pred_idx: int, idx: Tensor) -> Tensor:
    return network(idx, pred_idx)


class CodecCompat(NetworkCompat):
    """Stands in for encodec's EncodecModel at 6 kbit/s.

    `read_encoder` reads the encoder's tensors; the code that builds the codec sets it. The first call of `encode` loads
    the encoder.
    """

    config: CodecConfig
    read_encoder: Callable[[], Mapping[str, Tensor]] | None = None
    _encoder: EncodecEncoder | None = None

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        """Always 1: mono."""
        return 1

    @property
    def quantizer(self) -> SimpleNamespace:
        """`n_q` codebooks of `bins` entries: those that Bark uses, of the 32 that EnCodec has.

        On the torch engine it has `decode`: (codebooks, batch, frames) codes to (batch, dimension, frames).
        """

        def decode(codes: Tensor) -> Tensor:
            return self._module().quantizer(codes.transpose(0, 1))

        return SimpleNamespace(n_q=self.config.n_codebooks, bins=self.config.codebook_size, decode=decode)

    @property
    def decoder(self) -> Any:
        """The module from (batch, dimension, frames) to (batch, 1, samples), on the torch engine only."""
        return self._module().decoder

    @torch.no_grad()
    def encode(self, wav: Tensor) -> list[tuple[Tensor, None]]:
        """Codes of a recording, as encodec's `encode` gives them.

        Args:
            wav: (batch, 1, samples) floating point, at `sample_rate`, on any device: the encoder moves there.

        Returns: one pair of (batch, n_q, frames) int64 codes, on wav's device, and None for the scale.

        Raises:
            InputError: wav has another type or shape, or values that are not finite.
            CheckpointError: the model's files hold no encoder.
        """
        if not isinstance(wav, Tensor) or wav.ndim != 3 or wav.shape[1] != 1 or not wav.shape[2]:
            got = tuple(wav.shape) if isinstance(wav, Tensor) else type(wav).__name__
            raise InputError(
                f"wav is {got}; expected a tensor of (batch, 1 channel, samples), e.g. wav.mean(0)[None, None]"
            )
        if not wav.is_floating_point() or not torch.isfinite(wav).all():
            raise InputError(f"wav holds {wav.dtype} that are not all finite floats; expected samples from -1 to 1")
        with _BUILDING:
            if self._encoder is None:
                self._encoder = self._build_encoder()
            encoder = self._encoder.to(wav.device)
        return [(encoder(wav.float()), None)]

    def _build_encoder(self) -> EncodecEncoder:
        if self.read_encoder is None:
            raise InputError("this codec was made without its encoder; take the one of load_codec_model()")
        with torch.device("meta"):
            encoder = EncodecEncoder(self.config)
        encoder.load_state_dict(dict(self.read_encoder()), strict=True, assign=True)
        return encoder.requires_grad_(False).eval()
