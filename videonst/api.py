"""What most programs need: load a model, repaint a picture, convert a file."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2

from videonst import __version__
from videonst.engines import ClipEngine, Engine, EngineDescription, LooksAhead, PaintsSideBySide, Stores
from videonst.engines.none import NoneEngine
from videonst.engines.onnx import OnnxEngine
from videonst.engines.strokes import StrokeScaled
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.pipeline import PipelineProgress, run
from videonst.processor import usable_cores
from videonst.resize import Resize, resized
from videonst.sinks import Resumable, Sink, open_sink
from videonst.sinks.stdout import DEFAULT_STREAM_FORMAT
from videonst.sources import Source, SourceInfo, open_source
from videonst.sources.remaining import Remaining
from videonst.styles import StyleMix
from videonst.temporal import DEFAULT_STEADY, Stabiliser
from videonst.temporal.flow import FlowProvider, open_flow
from videonst.trim import Time, Trim

DEFAULT_MODEL = "fast"

ENGINES = ("onnx", "none")

FILE_FLOW = "medium"
"""How motion is found in files, where nobody waits for the next frame."""

CORES_PER_SEEKER, MOST_SEEKERS = 4, 4
"""Of the motion in files: a pair of frames at a time on up to seven cores, four from sixteen on. One thread finds the
motion of 75 to 150 frames a second, which a GPU outpaces."""


def load(model: str | Path = DEFAULT_MODEL, *, device: str = "auto", engine: str = "onnx") -> "Stylizer":
    """Loads a model.

    Args:
        model: name of a shipped model (`fast`, `tiny`, `full`) or path of an .onnx file.
        device: "auto", "cuda", "tensorrt", "coreml" or "cpu". Only "auto" chooses.
        engine: "onnx", or "none", which needs no model and gives frames back untouched.

    Raises:
        InputError: unknown model or engine, or the device that was asked for does not work here.
    """
    if engine == "optimise":
        raise InputError(
            "the optimise engine needs its paintings: videonst.optimise.OptimiseEngine(style), in a Stylizer"
        )
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "none":
        return Stylizer(NoneEngine())
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

    def steady(self, amount: float = DEFAULT_STEADY, *, flow: str | FlowProvider = FILE_FLOW) -> Stabiliser:
        """An engine for the frames of one clip or camera, in order, that keeps them steady.

        Args:
            amount: 0 (each frame on its own) to 1 (hold still); may be set later, as `steady`.
            flow: how motion is found: "ultrafast", "fast" (for live pictures) or "medium", the path of a flow network
                (.onnx), or a provider of your own.

        Raises:
            InputError: a value out of range.
        """
        return Stabiliser(self.engine, steady=amount, flow=open_flow(flow))


def convert(
    source: str | Path,
    target: str | Path,
    style: str | StyleMix | None = None,
    *,
    strength: float = 1.0,
    keep_colour: bool = False,
    steady: float = DEFAULT_STEADY,
    flow: str | FlowProvider = FILE_FLOW,
    model: str | Path | Stylizer = DEFAULT_MODEL,
    device: str = "auto",
    engine: str = "onnx",
    hdr: str = "tonemap",
    resize: str | None = None,
    stroke_scale: float = 1.0,
    start: Time | None = None,
    end: Time | None = None,
    duration: Time | None = None,
    drop: Collection[str] = (),
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    encoder_options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    rate: float | str | Fraction | None = None,
    strict: bool = False,
    timeout: float | None = None,
    hwaccel: str | None = None,
    stream_format: str = DEFAULT_STREAM_FORMAT,
    progress: Callable[[PipelineProgress], None] | None = None,
) -> PipelineProgress:
    """Repaints a video or picture file into another; timing, sound, subtitles, chapters and metadata stay. The target
    appears complete or not at all.

    Args:
        source: video or picture file, folder of pictures or pattern of numbered ones, network address or "-"; see
            `open_source`.
        target: .mp4, .mov, .mkv or .webm for a video, .png, .jpg or .webp for a picture, a pattern or folder for
            numbered pictures, or "-"; see `open_sink`.
        style: a mixture such as "starry_night:0.7, great_wave:0.3"; none with engine "none".
        strength, keep_colour: as in `Stylizer.stylize`.
        steady: 0 (each frame on its own) to 1 (hold still).
        flow: how motion is found; see `Stylizer.steady`.
        model, device, engine: as in `load`; `model` may be loaded already, on that device.
        hdr: "tonemap" maps the colours of PQ and HLG clips to BT.709, "error" refuses such clips.
        resize: size of the output, "1280x720", "720p" (of the shorter side) or a factor such as "0.5"; see `Resize`.
        stroke_scale: size of the strokes: 2 paints them twice as large, at half the resolution, and four times as fast.
        start, end, duration: the part of a video to convert, as seconds or text, [HH:]MM:SS with decimals, counted
            from where the clip starts. The output begins, at time 0, with the first frame at or after `start`.
        drop: what not to copy: "audio", "subtitles", "data", "attachments" (cover art included), "alpha" (laid over
            white).
        codec: of `videonst.sinks.codecs.CODECS`, such as "hevc"; None takes H.264, in .webm VP9.
        crf: quality as the codec counts it, lower is better; of H.264 18, the default, is visually lossless.
        preset: speed as the codec names it.
        encoder_options: further options of FFmpeg's encoder, `pix_fmt` among them.
        overwrite: replace an existing target.
        resume: go on with what an interrupted run has finished; input and settings must be the same.
        rate: frames per second of numbered pictures (25 where None), a number or text such as "30000/1001".
        strict: damage of the input is an error instead of a warning.
        timeout: seconds to wait for a network address (10 where None).
        hwaccel: device that decodes video files, such as "cuda"; see `open_source`.
        stream_format: what to write to standard output, of `STREAMED_FORMATS`.
        progress: called after every frame, in the calling thread.

    Returns:
        Frames done, their rate, and how many of a damaged input were lost.

    Raises:
        InputError: anything that cannot be done as asked, before work starts.
        VideoNSTError: a failure on the way; the target is untouched.
    """
    asked = dict(locals())
    stylizer = _loaded(model, device, engine)
    mix = _mix_for(stylizer, style, strength, keep_colour)
    trim = Trim.parse(start, end, duration)
    size = None if resize is None else Resize.parse(resize)
    if isinstance(stylizer.engine, ClipEngine) and stroke_scale != 1:
        raise InputError("the optimise engine scales its paintings: give the stroke scale to OptimiseEngine")
    if stylizer.styles and stroke_scale != 1:
        stylizer = Stylizer(StrokeScaled(stylizer.engine, stroke_scale))
    motion = open_flow(flow)
    with (
        open_source(
            source, trim, rate=_rate(rate), hdr=hdr, strict=strict, timeout=timeout, hwaccel=hwaccel
        ) as original,
        contextlib.nullcontext(_checked(resized(original, size), stylizer.engine)) as frames,
        contextlib.nullcontext(_engine_for(frames.info, stylizer, steady, motion)) as engine_used,
        open_sink(
            target,
            frames.info,
            drop=drop,
            codec=codec,
            crf=crf,
            preset=preset,
            options=encoder_options,
            overwrite=overwrite,
            stream_format=stream_format,
            settings=_settings(asked | {"flow": motion.name}, stylizer.description),
            resume=resume,
        ) as sink,
        opencv_beside(stylizer.description.device),
    ):
        done = _run(frames, engine_used, mix, sink, progress)
    return replace(done, frames_lost=frames.info.damage.lost)


class _OpenCV:
    """OpenCV's threads, while networks of this process run on the processor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks = self._threads = 0

    @contextlib.contextmanager
    def beside(self, device: str) -> Iterator[None]:
        """In one thread where the network runs on the processor: that has a thread for each core already, and sharing
        out pictures among as many costs a quarter more processor time. Holds for the whole process, until the last of
        several networks is done."""
        if device != "cpu":
            yield
            return
        with self._lock:
            if not self._networks:
                self._threads = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._networks += 1
        try:
            yield
        finally:
            with self._lock:
                self._networks -= 1
                if not self._networks:
                    cv2.setNumThreads(self._threads)


opencv_beside = _OpenCV().beside


def _loaded(model: str | Path | Stylizer, device: str, engine: str) -> Stylizer:
    """What `convert` was given to paint with, on the device that it was asked for."""
    if not isinstance(model, Stylizer):
        return load(model, device=device, engine=engine)
    used = model.description
    if model.styles and device not in ("auto", used.device):
        raise InputError(f"the model was loaded on {used.device}, not on {device}; load it with device={device!r}")
    if model.styles and engine == "none":
        raise InputError("engine 'none' paints nothing, but a model was given; leave one of them out")
    return model


def _run(
    frames: Source,
    engine: Engine,
    mix: StyleMix,
    sink: Sink,
    progress: Callable[[PipelineProgress], None] | None,
) -> PipelineProgress:
    take, finish = _passing(engine, mix)
    if not isinstance(sink, Resumable):
        return run(frames, take, sink, finish=finish, progress=progress)
    done = sink.restore(engine)
    if isinstance(engine, Stores):
        engine.store = sink.store()

    def repaint(frame: Frame) -> list[Frame]:
        early = finish() if sink.begins_part(frame) else []
        sink.remember(frame, engine)
        return [*early, *take(frame)]

    return run(Remaining(frames, done), repaint, sink, finish=finish, progress=progress, frames_before=done)


def _passing(engine: Engine, mix: StyleMix) -> tuple[Callable[[Frame], list[Frame]], Callable[[], list[Frame]]]:
    """How frames go through an engine: what takes one and gives those that are finished, and what gives the rest."""
    if isinstance(engine, LooksAhead):
        return lambda frame: engine.take(frame, mix), engine.finish
    return lambda frame: [engine.stylize(frame, mix)], list


def _engine_for(frames: SourceInfo, stylizer: Stylizer, steady: float, motion: FlowProvider) -> Engine:
    """The engine for the frames of one input."""
    engine = stylizer.engine
    if isinstance(engine, ClipEngine):
        # A single picture is no film: an engine that paints it on its own also saves it where Ctrl-C ends the work.
        return engine if frames.is_still else engine.clip(motion)
    if not stylizer.styles:
        return engine
    if frames.is_still:
        return Stabiliser(stylizer.engine, steady=steady, flow=motion)
    return looking_ahead(stylizer.engine, frames.width, frames.height, steady=steady, flow=motion)


def looking_ahead(
    engine: Engine, width: int, height: int, *, steady: float = DEFAULT_STEADY, flow: FlowProvider
) -> Stabiliser:
    """A stabiliser for the frames of a file, which are all there: painted, and their motion sought, as many at once as
    suits frames of this size on this machine."""
    painters = 1
    if isinstance(engine, PaintsSideBySide):
        engine, painters = engine.side_by_side(width, height)
    seekers = min(max(usable_cores() // CORES_PER_SEEKER, 1), MOST_SEEKERS)
    return Stabiliser(engine, steady=steady, flow=flow, painters=painters, seekers=seekers)


def _checked(frames: Source, engine: Engine) -> Source:
    """Refuses, before anything is written, frames that an engine cannot paint."""
    if isinstance(engine, ClipEngine):
        engine.check(frames.info.width, frames.info.height)
    return frames


def _settings(asked: Mapping[str, Any], engine: EngineDescription) -> dict[str, Any]:
    """What decides how the output looks, and so must not change where a conversion is resumed: all arguments of
    `convert` but these, the model and device that were chosen, and the versions of what computes."""
    settings = {key: value for key, value in asked.items() if key not in _NOT_SETTINGS}
    model = f"{engine.name} {engine.precision} {engine.fingerprint}"
    version = f"{__version__}, PyAV {av.__version__}"
    return {**settings, **engine.settings, "model": model, "device": engine.device, "version": version}


_NOT_SETTINGS = {"source", "target", "model", "overwrite", "resume", "strict", "timeout", "progress"}


def _rate(rate: float | str | Fraction | None) -> Fraction | None:
    if rate is None:
        return None
    try:
        return Fraction(str(rate)).limit_denominator(_FINEST_RATE)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"cannot read {rate!r} as frames a second; expected a number or 30000/1001") from error


_FINEST_RATE = 100_000
"""Largest denominator of a rate; NTSC's is 1001."""


def _mix_for(stylizer: Stylizer, style: str | StyleMix | None, strength: float, keep_colour: bool) -> StyleMix:
    """The mixture, known to the engine before any file is touched."""
    if stylizer.styles and style is None:
        raise InputError("no style was given; name one, such as starry_night, or see `videonst styles`")
    if not stylizer.styles and style is not None:
        raise InputError(f"engine {stylizer.description.name!r} paints nothing; leave the style out")
    if style is None:
        return StyleMix(())
    mix = _mix(style, strength, keep_colour)
    mix.weights(stylizer.styles)
    return mix


def _mix(style: str | StyleMix, strength: float, keep_colour: bool) -> StyleMix:
    return style if isinstance(style, StyleMix) else StyleMix.parse(style, strength=strength, keep_colour=keep_colour)
