"""Where frames come from."""

from videonst.sources.source import Source, SourceInfo, open_source

__all__ = ["Source", "SourceInfo", "open_source"]
