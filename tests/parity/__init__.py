"""Suno's own Bark beside barkfast, on the same random checkpoints."""
