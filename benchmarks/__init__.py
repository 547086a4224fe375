"""Benchmarks: `python -m benchmarks.gpu` and `python -m benchmarks.cpu` check, time, judge and write a results file.

gpu.py runs one of the two calls of budget.py on a GPU (run.py), cpu/ the steps of cpu/steps.py on a CPU, each step in a
process of its own (process.py, section_run.py), and merges what they wrote (runner.py), saved every few seconds
(saving.py). section.py is such a process, which plan.py tells what to do; sections/ and cpu/sections/ hold what they
measure, record.py how they write it down row by row. probe.py runs the CUDA program in cuda/, verdict.py says what was
decided. inputs.py, rows.py and peers.py are what both measure with; what takes time, counts bytes and describes the
machine is in barkfast.bench.
targets.py judges, results.py writes, table.py prints.
"""
