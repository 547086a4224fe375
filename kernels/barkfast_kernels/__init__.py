"""Triton kernels of a GPT's decode step, prefill and sampling, one operation per folder, each beside its reference.

They know tensors, not networks. Every operation is a function that launches kernels on tensors it is given and
allocates nothing, so that it can be captured in a CUDA graph; `<op>_reference` says in plain torch what it computes.
Storage is float32, float16 or bfloat16 (weights also int8 with a scale per output channel); sums are float32.
"""
