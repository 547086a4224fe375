"""Measuring: `barkfast bench` times a clip and its peers, `verify` compares engines, `profile` looks into one step.

environment.py, timing.py, floors.py and limits.py are what all three measure with: where the numbers are from, how
time is taken, what must be read and computed at the least, and how fast this machine can do that.
"""
