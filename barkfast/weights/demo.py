"""The demo voice: a small trained Bark in Hugging Face's format, which is part of the package."""

from pathlib import Path

NAME = "demo"
FOLDER = Path(__file__).resolve().parents[1] / NAME
