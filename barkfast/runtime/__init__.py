"""Engines that turn jobs into tokens: they run GPTs and do not depend on Bark's stages."""
