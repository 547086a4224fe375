"""The GPU engine: Triton kernels on a static cache, the whole decode step on the device, replayed as a CUDA graph.

network.py holds the weights, state.py what the device remembers of each slot, step.py one token for every slot,
prefill.py reads prompts, and decoder.py runs jobs on them; refiner.py and codec.py are the stages after.
"""

from barkfast.cache import lend_compilers_a_folder

# Triton reads the variable when it compiles.
lend_compilers_a_folder()
