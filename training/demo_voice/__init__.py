"""Trains the demo voice: text list, speech, units, codec, three networks, export; see docs/demo-voice.md."""
