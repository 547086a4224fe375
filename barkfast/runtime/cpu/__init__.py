"""The CPU engine: native code on weights that are packed once, cached on disk and mapped from then on.

packing.py turns a checkpoint into what the kernels read, store.py keeps that on disk, threads.py holds the pool that
all networks share, turns.py the locks; decoder.py, refiner.py and codec.py are the three kinds of network.
"""
