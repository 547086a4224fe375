"""Bark's three stages as pure arithmetic: prompt layouts, windows, allowed slices, stop rules. Numpy only.

The arithmetic is that of `bark.generation`, quirks included; each quirk says so where it stands.
"""
