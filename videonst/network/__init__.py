"""The conditional-instance-norm style network and its tiers (needs torch)."""

from videonst.network.model import TIERS, Layout, StyleNetwork
from videonst.network.widen import widen

__all__ = ["TIERS", "Layout", "StyleNetwork", "widen"]
