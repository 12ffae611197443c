"""Interlaced pictures made progressive, one for one, by FFmpeg's bwdif filter."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import cast

import av
from av.filter import Graph
from av.video.frame import VideoFrame


def deinterlaced(
    pictures: Iterator[VideoFrame], time_base: Fraction, notice: Callable[[], None]
) -> Iterator[VideoFrame]:
    """The pictures in the same number and at the same times; those that the decoder marks as interlaced show their
    first field, the other one's lines interpolated from it and from the pictures around.

    Args:
        pictures: as decoded, in presentation order.
        time_base: of their times and durations, seconds per unit.
        notice: called once, at the first interlaced picture.
    """
    graph: Graph | None = None
    form: tuple[object, ...] = ()
    for picture in pictures:
        if graph is None and not picture.interlaced_frame:
            yield picture
            continue
        if graph is None:
            notice()
        if form != (form := (picture.width, picture.height, picture.format.name)):
            yield from _rest(graph, time_base)
            graph = _graph(picture, time_base)
        cast(Graph, graph).push(picture)
        yield from _pull(cast(Graph, graph), time_base)
    yield from _rest(graph, time_base)


def _graph(picture: VideoFrame, time_base: Fraction) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=time_base)
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _rest(graph: Graph | None, time_base: Fraction) -> Iterator[VideoFrame]:
    """The filter looks one picture ahead."""
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, time_base)


def _pull(graph: Graph, time_base: Fraction) -> Iterator[VideoFrame]:
    while True:
        try:
            picture = cast(VideoFrame, graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        units = Fraction(picture.time_base or time_base) / time_base  # the filter counts in halves
        if picture.pts is not None:
            picture.pts = round(picture.pts * units)
        picture.duration = round(picture.duration * units)
        picture.time_base = time_base
        yield picture
