"""The CPU engine: native code on weights that are packed once, cached on disk and memory-mapped from then on.

packing.py packs a checkpoint for the kernels, store.py caches that on disk, threads.py holds the thread pool that all
networks share, turns.py the locks; decoder.py, refiner.py and codec.py are the three kinds of network.
"""
