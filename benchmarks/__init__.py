"""Benchmarks: `python -m benchmarks.gpu` and `python -m benchmarks.cpu` check, time, judge and write a results file.

gpu.py runs the steps of budget.py on a GPU, cpu/ those of cpu/steps.py on a CPU, each in a process of its own
(process.py), and merges what they wrote (runner.py). section.py is such a process, which plan.py tells what to do;
sections/ and cpu/sections/ hold what they measure, record.py how they write it down row by row. inputs.py, rows.py
and peers.py are what both measure with; what takes time, counts bytes and describes the machine is in barkfast.bench.
targets.py judges, results.py writes, table.py prints.
"""
