"""Triton kernels of a GPT's decode step, prefill and sampling, one operation per folder, each beside its reference.

Every operation is a function that launches kernels on the given tensors. It knows nothing about networks and allocates
nothing, so that it can be captured in a CUDA graph. `<op>_reference` computes the same in plain torch.
Storage is float32, float16 or bfloat16 (weights also int8 with a scale per output channel); sums are float32.
"""
