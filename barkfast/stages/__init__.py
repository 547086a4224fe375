"""Bark's three stages as pure arithmetic: prompt layouts, windows, allowed slices, stop rules. Numpy only.

The arithmetic is that of `bark.generation`, including its quirks; a comment in the code marks each quirk.
"""
