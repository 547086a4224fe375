"""The whole GPU engine: on a GPU, or in Triton's interpreter with direct calls in place of CUDA graphs."""
