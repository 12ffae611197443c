"""Steady pictures: optical flow, scene cuts, and the stabiliser that holds what was painted where nothing changed."""

from videonst.temporal.stabiliser import DEFAULT_STEADY, Stabiliser

__all__ = ["DEFAULT_STEADY", "Stabiliser"]
