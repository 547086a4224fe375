"""What only a GPU can show. The kernels' and the engine's own tests (tests/kernels, tests/cuda) run there too."""
