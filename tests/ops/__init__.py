"""Every kernel against its reference: in Triton's interpreter, or compiled where there is a GPU."""
