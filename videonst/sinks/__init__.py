"""Where frames go."""

from videonst.sinks.sink import Sink, open_sink

__all__ = ["Sink", "open_sink"]
