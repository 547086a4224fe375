"""Engines that turn jobs into tokens; they know GPTs, not Bark's stages."""
