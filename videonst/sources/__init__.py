"""Where frames come from."""

from videonst.sources.damage import Damage, DamagedInputError
from videonst.sources.source import Source, SourceInfo, Stoppable, is_address, open_source

__all__ = ["Damage", "DamagedInputError", "Source", "SourceInfo", "Stoppable", "is_address", "open_source"]
