"""What a GPU will do with the kernels of a decode step, from their machine code: rules, cycles, a modelled step.

    python -m tools.step_model [--variant NAME ...] [--check] [--json FILE] [--write] [--calibrate] [--triton FOLDER]

Needs Triton (with its nvdisasm and cuobjdump), and NVRTC or nvcc for the CUDA kernels; no GPU. All times are modelled.
"""
