"""Load weights: any checkpoint by name or path, memory-mapped, without running code from pickles."""

from barkfast.weights.checkpoint import STAGES, Checkpoint, CodecWeights, StageWeights
from barkfast.weights.hub import fetch_from_hub
from barkfast.weights.resolve import open_model

__all__ = ["STAGES", "Checkpoint", "CodecWeights", "StageWeights", "fetch_from_hub", "open_model"]
