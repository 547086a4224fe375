"""Work captured as CUDA graphs: run once as it is, replayed from then on."""

import logging
from collections.abc import Callable, Hashable

import torch

logger = logging.getLogger(__name__)


class Graphs:
    """Graphs by key, sharing one memory pool: they are replayed one after the other, and none keeps anything in it.

    Off a GPU, or once a capture has failed, everything runs directly.
    """

    def __init__(self, device: torch.device, *, enabled: bool = True) -> None:
        self.enabled = enabled and device.type == "cuda"
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do `work`, which must always be the same for the same key: launches on the same tensors, no host in between.

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
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except (RuntimeError, torch.OutOfMemoryError) as error:
            # The work itself is already done, and directly it will go on being done right.
            self.enabled = False
            torch.cuda.synchronize()
            logger.warning("CUDA graph capture of %s failed, going on without graphs, slower: %s", key, error)
            return
        self._graphs[key] = graph

    def clear(self) -> None:
        """Forget all graphs, e.g. because the tensors they use are going away."""
        self._graphs.clear()
