"""Tests that every engine must pass: an engine's test class builds its decoder and inherits the tests."""
