"""Painting while the camera runs: newest frame only, quality that follows the machine, controls that many can drive."""
