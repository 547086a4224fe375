"""Benchmark on a CPU: `python -m benchmarks.cpu` checks, times, compares with the targets and writes a results file.

steps.py says what is run in which order, __main__.py and run.py run it, each step in a process of its own with its
own number of threads; sections/ holds what is measured, networks.py builds it, targets.py judges, table.py prints.
"""
