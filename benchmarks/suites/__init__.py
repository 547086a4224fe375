"""pytest-benchmark suites: kernels, stages, scaling and peers, each behind the correctness gate.

From the root of the repository, `python -m pytest benchmarks/suites --benchmark-json=FILE`; add `--size small|large`,
`--device cpu|cuda`, pytest's `-k`, or `--smoke` for one round of everything with the smallest model. A comparison with
an earlier file is pytest-benchmark's own: `--benchmark-compare`.
"""
