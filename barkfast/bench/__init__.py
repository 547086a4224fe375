"""Measuring: `barkfast bench` times a clip and its peers, `verify` compares engines, `profile` looks into one step.

machine.py, measure.py and roofline.py are what all three use: which machine numbers are from, how time is taken and
what the machine's limits are, and what must be read and computed at the least.
"""
