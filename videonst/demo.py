"""The demonstration: the sample clip, its style mixture gliding while it plays."""

from collections.abc import Callable, Sequence
from pathlib import Path

from videonst.api import load, opencv_beside
from videonst.frame import Frame
from videonst.pipeline import PipelineProgress, run
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.styles import StyleMix
from videonst.temporal import DEFAULT_STEADY

SAMPLES = Path(__file__).parent / "samples"
CLIP, PORTRAIT = SAMPLES / "sample.mp4", SAMPLES / "portrait.jpg"

TOUR = ("starry_night", "great_wave", "udnie", "the_scream", "seine", "composition_vii")
"""Styles that the demonstration glides through."""


def paint_demo(
    target: Path,
    style: str | None = None,
    *,
    strength: float = 1.0,
    steady: float = DEFAULT_STEADY,
    model: str = "fast",
    device: str = "auto",
    progress: Callable[[PipelineProgress], None] | None = None,
) -> PipelineProgress:
    """Repaints the sample clip into `target`, which is replaced if it exists.

    Args:
        target: video file.
        style: one mixture for the whole clip; None glides through `TOUR`.
        strength, steady, model, device, progress: as in `videonst.convert`.
    """
    engine = load(model, device=device).steady(steady)
    with (
        open_source(CLIP) as source,
        open_sink(target, source.info, overwrite=True) as sink,
        opencv_beside(engine.description.device),
    ):
        seconds = source.info.duration or 1.0

        def repaint(frame: Frame) -> Frame:
            mix = StyleMix.parse(style) if style else glide(TOUR, float(frame.time) / seconds)
            return engine.stylize(frame, mix.with_strength(strength))

        return run(source, repaint, sink, progress=progress)


def glide(styles: Sequence[str], position: float) -> StyleMix:
    """The mixture at a position from 0 (first style) to 1 (last), neighbours cross-faded."""
    place = min(max(position, 0.0), 1.0) * (len(styles) - 1)
    index = min(int(place), len(styles) - 2)
    share = place - index
    pairs = ((styles[index], 1 - share), (styles[index + 1], share))
    return StyleMix(tuple((name, s) for name, s in pairs if s > 0))
