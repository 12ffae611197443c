"""The quality mode: pictures and film by optimisation (needs torch)."""

from videonst.optimise.engine import OptimiseEngine
from videonst.optimise.painter import Progress
from videonst.optimise.presets import PRESETS, Preset

__all__ = ["PRESETS", "OptimiseEngine", "Preset", "Progress"]
