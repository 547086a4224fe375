"""A pytest-benchmark suite: every kernel alone, behind the correctness gate.

From the root of the repository, `python -m pytest benchmarks/suites --benchmark-json=FILE`; add `--size small|large`,
`--device cpu|cuda`, pytest's `-k`, or `--smoke` for one round of everything with the smallest model. A comparison with
an earlier file is pytest-benchmark's own: `--benchmark-compare`.
"""
