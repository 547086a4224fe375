"""CUDA graphs: work runs directly the first time, is captured, and is replayed from then on."""

import logging
from collections.abc import Callable, Hashable

import torch

logger = logging.getLogger(__name__)

# Capture streams. torch's default is one for the whole process, which would capture on the wrong one of two GPUs.
_streams: dict[torch.device, torch.cuda.Stream] = {}
# Graphs whose capture failed, kept alive because torch's allocator may still point to them.
_broken: list[torch.cuda.CUDAGraph] = []


class Graphs:
    """Graphs by key that share one memory pool: they are replayed one after the other, and none retains data in it.

    Without a GPU, or after a failed capture, everything runs directly.
    """

    def __init__(self, device: torch.device, *, enabled: bool = True) -> None:
        self.enabled = enabled and device.type == "cuda"
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None
        if self.enabled and device not in _streams:
            _streams[device] = torch.cuda.Stream(device)
        self._stream = _streams.get(device)

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Run `work`, which must be the same for the same key: launches on the same tensors, no host synchronization.

        The first time it runs directly, which compiles its kernels, and is captured for the next time.
        """
        graph = self._graphs.get(key)
        if graph is not None:
            graph.replay()
            return
        work()
        if self.enabled:
            self._capture(key, work)

    def _capture(self, key: Hashable, work: Callable[[], None]) -> None:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except (RuntimeError, torch.OutOfMemoryError) as error:
            # The work itself is already done, and running it directly stays correct.
            self.enabled = False
            _broken.append(graph)
            # A failed capture leaves its own stream current.
            torch.cuda.set_stream(current)
            torch.cuda.synchronize()
            logger.warning("CUDA graph capture of %s failed, going on without graphs, slower: %s", key, error)
            return
        self._graphs[key] = graph

    def clear(self) -> None:
        """Drop all graphs, e.g. because the tensors they use will be freed."""
        self._graphs.clear()
        # A pool cannot be captured into again once its graphs are gone.
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None
