"""Benchmarks on a GPU: `python -m benchmarks.gpu` checks, times, compares with the targets and writes a results file.

gpu.py runs the steps of budget.py, each in a process of its own (process.py), and merges what they wrote.
section.py is such a process; sections/ holds what they measure, record.py how they write it down row by row.
floors.py counts bytes and operations, targets.py judges, results.py writes, table.py prints.
"""
