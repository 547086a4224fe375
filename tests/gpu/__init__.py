"""Tests that need a GPU. The tests of the kernels and the engine (tests/ops, tests/cuda_engine) run there too."""
