"""What only a GPU can show. The kernels' and the engine's own tests (tests/ops, tests/cuda_engine) run there too."""
