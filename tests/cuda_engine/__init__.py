"""The GPU engine as a whole: in Triton's interpreter, graphs replaced by direct calls, or as it is on a GPU."""
