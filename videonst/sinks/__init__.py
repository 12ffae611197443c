"""Where frames go."""

from videonst.sinks.sink import Resumable, Sink, open_sink

__all__ = ["Resumable", "Sink", "open_sink"]
