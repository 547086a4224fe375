"""The four networks of a Bark model: loaded when first needed, moved, resized, dropped."""

import gc
import logging
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
from barkfast.text import load_tokenizer
from barkfast.weights import STAGES, Checkpoint, open_model

logger = logging.getLogger(__name__)

COMPONENTS = (*STAGES, "codec")
# The components that generate token by token, for several sequences in a batch.
DECODERS = ("text", "coarse")
# In a child that was forked while networks were in use: the networks of the parent process.
_left_by_fork: list[dict[str, Any]] = []
# Whether this is the child of a fork that has not used torch yet.
_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


def prepare_forked_process() -> None:
    """In a forked child: keep torch from waiting for the parent's threads, which do not exist in the child."""
    global _forked
    if not _forked:
        return
    _forked = False
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        logger.warning(
            "this process was forked, and torch's threads are not in it: torch uses one thread here; "
            'start processes with multiprocessing.get_context("spawn") to use more'
        )


class Components:
    """Loaded networks by name, under the keys of `bark.generation.models`.

    `models["text"]` is {"model": decoder, "tokenizer": tokenizer}; the others are the network itself. As in the
    reference the key does not include the size: requesting the small network when the large one is loaded changes
    nothing without `force`.

    Any thread may call any method. A network in use stays valid: dropping, moving or reloading it changes `models`, and
    only later users get the new network.
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
        # None: the environment decides. A program may change both by assigning to `bark`'s settings.
        self.small: bool | None = small or None
        self.cache: str | os.PathLike[str] | None = None
        # The requested number of slots, and the number that the decoders have now.
        self._n_slots_asked = self.n_slots = n_slots
        self._placement(self.device, self.device)
        self._model, self._codec, self._tokenizer = model, codec, tokenizer
        self.offload = truthy(os.environ.get("SUNO_OFFLOAD_CPU"))
        self.models: dict[str, Any] = {}
        self.devices: dict[str, str] = {}
        self._checkpoints: dict[tuple[bool | None, Any], Checkpoint] = {}
        # Guards `models` and all state that belongs to it.
        self.lock = threading.RLock()
        self._forked = False
        self._claimed_by: str | None = None

    def _placement(self, device: str, storage_device: str) -> select.Placement:
        engine = select.resolve_engine(self.engine, device)
        try:
            dtype = select.resolve_dtype(self.dtype, device, engine)
        except InputError:
            if device == self.device:
                raise
            # The dtype was requested for another device, whose engine supports it.
            dtype = select.default_dtype(device, engine)
        fallback = select.why_torch(self.engine, device)
        if fallback is not None:
            select.warn_of_fallback(fallback)
        return select.Placement(
            engine, device, storage_device, dtype, self.n_slots, not select.is_chosen(self.engine), fallback=fallback
        )

    def checkpoint(self, small: bool | None = None) -> Checkpoint:
        """The checkpoint of the given size, or of the size this object was made for."""
        prepare_forked_process()
        small = self.small if small is None else small
        with self.lock:
            key = (small, self.cache)
            if key not in self._checkpoints:
                self._checkpoints[key] = open_model(self._model, small=small, codec=self._codec, cache=self.cache)
            return self._checkpoints[key]

    def load(self, component: str, *, device: str | None = None, small: bool | None = None, force: bool = False) -> Any:
        """Load one component onto `device` if it is not there yet, and return its entry in `models`."""
        if component not in COMPONENTS:
            raise InputError(f"unknown component {component!r}; expected one of {', '.join(COMPONENTS)}")
        prepare_forked_process()
        with self.lock:
            return self._load(component, device, small, force)

    def _load(self, component: str, device: str | None, small: bool | None, force: bool) -> Any:
        if component in self.models and device is None and not force:
            return self.models[component]
        target = select.resolve_device(device) if device else self.device
        if self._forked and target.startswith("cuda"):
            raise EngineError(
                "this process was forked from one that had a model on a GPU, which CUDA does not allow; start workers "
                'with multiprocessing.get_context("spawn"), or load the model in each of them'
            )
        if component == "codec" and target == "mps":
            target = "cpu"  # its LSTM does not run there
        storage_device = "cpu" if self.offload else target
        if force:
            # Search for the checkpoint again too: files and environment may have changed.
            self._checkpoints.clear()
        moves = component in self.models and target != self.devices[component]
        # Networks of the cpu and cuda engines are built for one device, and a claimed network must not be moved.
        engines = {self._placement(d, d).engine for d in (target, self.devices[component])} if moves else set()
        rebuild = moves and (engines != {"torch"} or self._claimed_by is not None)
        if force or rebuild or component not in self.models:
            if component in self.models:
                self.drop(component)
            self.models[component] = self._build(component, self.checkpoint(small), target, storage_device)
        elif moves:
            self.network(component).to(storage_device)
        self.devices[component] = target
        return self.models[component]

    def _build(self, component: str, checkpoint: Checkpoint, target: str, storage_device: str) -> Any:
        placement = self._placement(target, storage_device)
        if component == "codec":
            codec = checkpoint.codec()
            network = select.build_codec(codec.config, codec.tensors, placement)
            network.read_encoder = codec.read_encoder
            return network
        weights = checkpoint.stage(component)
        if isinstance(weights.config, FineConfig):
            return select.build_refiner(weights.config, weights.tensors, placement, weights.content)
        stage = "semantic" if component == "text" else component
        decoder = select.build_decoder(stage, weights.config, weights.tensors, placement, weights.content)
        if component == "text":
            return {"model": decoder, "tokenizer": load_tokenizer(checkpoint, self._tokenizer)}
        return decoder

    def bind(self, component: str) -> tuple[Any, str]:
        """Load a component if necessary; return its network and the device on which it runs."""
        with self.lock:
            self.load(component)
            return self.network(component), self.devices.get(component, self.device)

    def network(self, component: str) -> Any:
        """The decoder, refiner or codec of `component`, which must be loaded."""
        return self.models[component]["model"] if component == "text" else self.models[component]

    def grow(self, n_slots: int) -> None:
        """Give the decoders at least `n_slots` slots, without loading their weights again.

        Raises: InputError for an impossible number; EngineError while a decoder has jobs, or if memory is too small.
        """
        check_slots(n_slots)
        with self.lock:
            if n_slots > self.n_slots:
                self._resize(n_slots)

    def shrink(self) -> None:
        """Free slots beyond the requested number if a decoder with so many draws other tokens; free unused caches."""
        with self.lock:
            decoders = [self.network(component) for component in DECODERS if component in self.models]
            most = min((decoder.same_tokens_slots for decoder in decoders), default=self.n_slots)
            n_slots = max(self._n_slots_asked, min(self.n_slots, most))
            if any(decoder.engine == "torch" for decoder in decoders):
                # The torch engine allocates slots on demand, and would only keep the caches that were used.
                n_slots = self._n_slots_asked
            if n_slots < self.n_slots:
                self._resize(n_slots)

    def _resize(self, n_slots: int) -> None:
        for component in DECODERS:
            if component in self.models:
                self.network(component).resize(n_slots)
        self.n_slots = n_slots

    def claim(self, owner: str) -> None:
        """Get exclusive access to the networks until `release`; raise EngineError while another owner has it.

        Args:
            owner: the owner's name for messages, e.g. "an Engine".
        """
        with self.lock:
            if self._claimed_by is not None:
                raise EngineError(
                    f"this model is at work already, for {self._claimed_by}; close that first, ask that engine, "
                    "or load the model once more"
                )
            self._claimed_by = owner

    def release(self) -> None:
        """End a claim."""
        with self.lock:
            self._claimed_by = None

    def after_fork(self, in_use: bool) -> None:
        """In a forked child: keep the networks, or, if they were in use, load them again when needed.

        Args:
            in_use: whether a thread of the parent, which does not exist here, may have been using them.
        """
        in_use |= self._claimed_by is not None or not self.lock.acquire(blocking=False)
        self.lock, self._claimed_by = threading.RLock(), None
        self._forked = True
        if in_use:
            # Not freed: that may wait for threads that do not exist here.
            _left_by_fork.append(self.models)
            self.models, self.devices, self._checkpoints = {}, {}, {}

    @contextmanager
    def using(self, component: str) -> Iterator[Any]:
        """Yield the network of `component`, loaded, and on its device until the block ends."""
        network, device = self.bind(component)
        if not self.offload:
            yield network
            return
        network.to(device)
        try:
            yield network
        finally:
            network.to("cpu")

    def drop(self, component: str | None = None) -> None:
        """Drop one component, or all, and free their memory."""
        with self.lock:
            for name in list(self.models) if component is None else [component]:
                self.models.pop(name, None)
                self.devices.pop(name, None)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
