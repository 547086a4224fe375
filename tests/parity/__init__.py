"""Suno's Bark compared with barkfast, on the same random checkpoints."""
