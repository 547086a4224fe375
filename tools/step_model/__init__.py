"""A model of a decode step on a GPU, from the kernels' machine code: rules, cycles per kernel, time of a step.

    python -m tools.step_model [--variant NAME ...] [--check] [--json FILE] [--write] [--calibrate] [--triton FOLDER]

Needs Triton (with its nvdisasm and cuobjdump), and NVRTC or nvcc for the CUDA kernels; no GPU. All times are modelled.
"""
