"""What every engine does, as tests: an engine's own test class says how its decoder is built and inherits the rest."""
