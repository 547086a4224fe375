"""Benchmarks: `python -m benchmarks cpu | gpu | gpu-full` checks, times, judges and writes a results file.

budget.py lists the steps and their limits, runner.py runs them, each in a process of its own (process.py,
section_run.py), and saves what they wrote every few seconds (results.py, saving.py). section.py is such a process:
plan.py tells it what to do, sections/ holds what it measures on either device, record.py writes it down row by row.
networks.py builds what is measured; what takes time, counts bytes, checks results and describes the machine is in
barkfast.bench.
targets.py judges, pages.py and tables.py print, verdict.py says what a run on a GPU decided, markdown.py writes the
documents' tables.
"""
