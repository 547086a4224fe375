"""The four networks of a Bark model: opened when first needed, kept, moved, dropped."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from barkfast.config import FineConfig, truthy
from barkfast.errors import EngineError, InputError
from barkfast.runtime import select
from barkfast.runtime.decoder import check_slots
from barkfast.runtime.torch_ import TorchDecoder
from barkfast.text import load_tokenizer
from barkfast.weights import STAGES, Checkpoint, open_model

PARTS = (*STAGES, "codec")
# The parts that draw tokens one by one, for several sequences at a time.
DECODERS = ("text", "coarse")


class Parts:
    """Loaded networks by name, under the keys of `bark.generation.models`.

    `models["text"]` is {"model": decoder, "tokenizer": tokenizer}; the others are the network itself. As in the
    reference the key does not hold the size: asking for the small network when the large one is loaded changes
    nothing without `force`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None,
        *,
        device: str,
        dtype: str,
        engine: str,
        small: bool,
        codec: str | os.PathLike[str] | None,
        tokenizer: str | os.PathLike[str] | None,
        n_slots: int = 1,
    ) -> None:
        self.device = select.resolve_device(device)
        check_slots(n_slots)
        self.engine, self.dtype = engine, dtype
        # None for what the environment says; `bark`'s settings, which a program may change, decide both.
        self.small: bool | None = small or None
        self.cache: str | os.PathLike[str] | None = None
        self.n_slots = n_slots
        self._place(self.device, self.device)
        self._model, self._codec, self._tokenizer = model, codec, tokenizer
        self.offload = truthy(os.environ.get("SUNO_OFFLOAD_CPU"))
        self.models: dict[str, Any] = {}
        self.devices: dict[str, str] = {}
        self._checkpoints: dict[tuple[bool | None, Any], Checkpoint] = {}
        self._claim = threading.Lock()

    def _place(self, device: str, home: str) -> select.Placement:
        engine = select.resolve_engine(self.engine, device)
        try:
            dtype = select.resolve_dtype(self.dtype, device, engine)
        except InputError:
            if device == self.device:
                raise
            # It was asked for on another device, whose engine has it.
            dtype = select.default_dtype(device, engine)
        return select.Placement(engine, device, home, dtype, self.n_slots)

    def checkpoint(self, small: bool | None = None) -> Checkpoint:
        """The checkpoint of the given size, or of the size this object was made for."""
        small = self.small if small is None else small
        key = (small, self.cache)
        if key not in self._checkpoints:
            self._checkpoints[key] = open_model(self._model, small=small, codec=self._codec, cache=self.cache)
        return self._checkpoints[key]

    def load(self, part: str, *, device: str | None = None, small: bool | None = None, force: bool = False) -> Any:
        """Load one part if it is not there yet, on `device`, and return its entry in `models`."""
        if part not in PARTS:
            raise InputError(f"unknown part {part!r}; expected one of {', '.join(PARTS)}")
        if part in self.models and device is None and not force:
            return self.models[part]
        target = select.resolve_device(device) if device else self.device
        if part == "codec" and target == "mps":
            target = "cpu"  # its LSTM does not run there
        home = "cpu" if self.offload else target
        if force:
            # Found anew too: files and environment may have changed since.
            self._checkpoints.clear()
        moves = part in self.models and target != self.devices[part]
        # The cpu and cuda engines' networks are made for one device.
        rebuild = moves and {self._place(d, d).engine for d in (target, self.devices[part])} != {"torch"}
        if force or rebuild or part not in self.models:
            if part in self.models:
                self.drop(part)
            self.models[part] = self._build(part, self.checkpoint(small), target, home)
        elif moves:
            self.network(part).to(home)
        self.devices[part] = target
        return self.models[part]

    def _build(self, part: str, checkpoint: Checkpoint, target: str, home: str) -> Any:
        place = self._place(target, home)
        if part == "codec":
            codec = checkpoint.codec()
            network = select.build_codec(codec.config, codec.tensors, place)
            network.read_encoder = codec.read_encoder
            return network
        weights = checkpoint.stage(part)
        if isinstance(weights.config, FineConfig):
            return select.build_refiner(weights.config, weights.tensors, place, weights.content)
        stage = "semantic" if part == "text" else part
        decoder = select.build_decoder(stage, weights.config, weights.tensors, place, weights.content)
        if part == "text":
            return {"model": decoder, "tokenizer": load_tokenizer(checkpoint, self._tokenizer)}
        return decoder

    def network(self, part: str) -> Any:
        """The decoder, refiner or codec of `part`, which must be loaded."""
        return self.models[part]["model"] if part == "text" else self.models[part]

    def grow(self, n_slots: int) -> None:
        """Let the decoders run at least `n_slots` sequences at a time, on the weights that they have.

        Errors: InputError for an impossible number; EngineError while one has jobs, and without memory.
        """
        check_slots(n_slots)
        if n_slots <= self.n_slots:
            return
        for part in DECODERS:
            if part in self.models:
                self.network(part).resize(n_slots)
        self.n_slots = n_slots

    @property
    def counts_draws(self) -> bool:
        """Whether the decoders, which are loaded, count random numbers by stage, so that stages may overlap.

        The torch engine's stages draw from one generator after the other, as the reference's do.
        """
        return not any(isinstance(self.network(part), TorchDecoder) for part in DECODERS)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Have the networks for oneself, from one step to the next, for as long as the block lasts.

        Errors: EngineError while somebody else has them.
        """
        if not self._claim.acquire(blocking=False):
            raise EngineError(
                "this model is at work already, for an engine, a batch or a stream; close that first, ask that engine, "
                "or load the model once more"
            )
        try:
            yield
        finally:
            self._claim.release()

    @contextmanager
    def using(self, part: str) -> Iterator[Any]:
        """The network of `part`, loaded, and on its device for as long as the block lasts."""
        if part not in self.models:
            self.load(part)
        network = self.network(part)
        if not self.offload:
            yield network
            return
        network.to(self.devices[part])
        try:
            yield network
        finally:
            network.to("cpu")

    def drop(self, part: str | None = None) -> None:
        """Forget one part, or all, and return their memory."""
        for name in list(self.models) if part is None else [part]:
            self.models.pop(name, None)
            self.devices.pop(name, None)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
