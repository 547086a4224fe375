"""The GPU engine: Triton or CUDA kernels on a static KV cache, the whole decode step replayed as a CUDA graph.

network.py holds the weights, state.py the slots' state on the device, step.py the decode step, prefill.py the prefill;
decoder.py runs jobs with them. refiner.py and codec.py run the fine network and the codec.
"""

from barkfast.cache import ensure_triton_cache

# Triton reads the variable when it compiles.
ensure_triton_cache()
