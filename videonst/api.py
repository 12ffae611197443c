"""What most programs need: load a model, repaint a picture, convert a file."""

from collections.abc import Callable, Collection
from pathlib import Path

from videonst.engines import Engine, EngineDescription
from videonst.engines.onnx import OnnxEngine
from videonst.frame import Frame, Pixels
from videonst.pipeline import PipelineProgress, run
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.styles import StyleMix
from videonst.temporal import DEFAULT_STEADY, Stabiliser
from videonst.temporal.flow import DisFlow
from videonst.trim import Time, Trim

DEFAULT_MODEL = "fast"

FILE_FLOW = "medium"
"""How motion is found in files, where nobody waits for the next frame."""


def load(model: str | Path = DEFAULT_MODEL, *, device: str = "auto") -> "Stylizer":
    """Loads a model.

    Args:
        model: name of a shipped model (`fast`, `tiny`, `full`) or path of an .onnx file.
        device: "auto", "cuda", "tensorrt", "coreml" or "cpu". Only "auto" chooses.

    Raises:
        InputError: unknown model, or the device that was asked for does not work here.
    """
    return Stylizer(OnnxEngine(model, device))


class Stylizer:
    """A loaded model.

    Attributes:
        engine: what repaints frames.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def description(self) -> EngineDescription:
        """Tier, styles, size rules, device and precision."""
        return self.engine.description

    @property
    def styles(self) -> list[str]:
        """Names that a mixture may hold."""
        return [style.name for style in self.description.styles]

    def stylize(
        self, image: Pixels, style: str | StyleMix, *, strength: float = 1.0, keep_colour: bool = False
    ) -> Pixels:
        """Repaints one picture.

        Args:
            image: RGB, uint8, (height, width, 3), sides of at least 16.
            style: a mixture such as "starry_night:0.7, great_wave:0.3".
            strength: 0 (untouched) to 2; 1 is as trained. Only with a mixture given as text.
            keep_colour: keep the picture's colours. Only with a mixture given as text.

        Returns:
            RGB, uint8, of the same shape.

        Raises:
            InputError: an unknown style, a value out of range, or an array of another kind.
        """
        return self.engine.stylize(Frame(image), _mix(style, strength, keep_colour)).pixels

    def steady(self, amount: float = DEFAULT_STEADY, *, flow: str = FILE_FLOW) -> Stabiliser:
        """An engine for the frames of one clip or camera, in order, that keeps them steady.

        Args:
            amount: 0 (each frame on its own) to 1 (hold still); may be set later, as `steady`.
            flow: how motion is found: "ultrafast", "fast" (for live pictures) or "medium".

        Raises:
            InputError: a value out of range.
        """
        return Stabiliser(self.engine, steady=amount, flow=DisFlow(flow))


def convert(
    source: str | Path,
    target: str | Path,
    style: str | StyleMix,
    *,
    strength: float = 1.0,
    keep_colour: bool = False,
    steady: float = DEFAULT_STEADY,
    flow: str = FILE_FLOW,
    model: str | Path | Stylizer = DEFAULT_MODEL,
    device: str = "auto",
    start: Time | None = None,
    end: Time | None = None,
    duration: Time | None = None,
    drop: Collection[str] = (),
    crf: float = 18,
    preset: str = "veryfast",
    overwrite: bool = False,
    progress: Callable[[PipelineProgress], None] | None = None,
) -> PipelineProgress:
    """Repaints a video or picture file into another; timing, sound, subtitles, chapters and metadata stay. The target
    appears complete or not at all.

    Args:
        source: video or picture file.
        target: .mp4, .mov or .mkv for a video, .png, .jpg or .webp for a picture.
        style: a mixture such as "starry_night:0.7, great_wave:0.3".
        strength, keep_colour: as in `Stylizer.stylize`.
        steady: 0 (each frame on its own) to 1 (hold still).
        flow: how motion is found: "ultrafast", "fast" or "medium".
        model, device: as in `load`; `model` may be loaded already.
        start, end, duration: the part of a video to convert, as seconds or text, [HH:]MM:SS with decimals, counted
            from where the clip starts. The output begins, at time 0, with the first frame at or after `start`.
        drop: what not to copy: "audio", "subtitles", "data", "attachments" (cover art included).
        crf, preset: of x264: 18 is visually lossless.
        overwrite: replace an existing target.
        progress: called after every frame, in the calling thread.

    Returns:
        Frames done and their rate.

    Raises:
        InputError: anything that cannot be done as asked, before work starts.
        VideoNSTError: a failure on the way; the target is untouched.
    """
    mix = _mix(style, strength, keep_colour)
    stylizer = model if isinstance(model, Stylizer) else load(model, device=device)
    trim = Trim.parse(start, end, duration)
    engine = stylizer.steady(steady, flow=flow)
    mix.weights(stylizer.styles)  # an unknown style is refused before any file is touched
    with (
        open_source(source, trim) as frames,
        open_sink(target, frames.info, drop=drop, crf=crf, preset=preset, overwrite=overwrite) as sink,
    ):
        return run(frames, lambda frame: engine.stylize(frame, mix), sink, progress=progress)


def _mix(style: str | StyleMix, strength: float, keep_colour: bool) -> StyleMix:
    return style if isinstance(style, StyleMix) else StyleMix.parse(style, strength=strength, keep_colour=keep_colour)
