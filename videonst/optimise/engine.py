"""The slow engine: every picture is optimised for its own losses (Gatys et al. 2016; film: Ruder et al. 2016)."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from videonst.engines import EngineDescription
from videonst.engines.colour import keep_colour
from videonst.engines.metadata import SizeRules, StyleInfo
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.optimise import starts
from videonst.optimise.film import FLOW_SIDE, Film
from videonst.optimise.memory import LEAST_SIDE
from videonst.optimise.objective import pick_layers
from videonst.optimise.painter import Painter, Progress, Stopped
from videonst.optimise.paintings import Paintings, check_mask, find_paintings, read_masks, read_painting
from videonst.optimise.presets import Preset, find_preset
from videonst.perceptual import Features, Vgg19, open_features
from videonst.styles import StyleMix
from videonst.temporal.flow import DisFlow, FlowProvider
from videonst.training.trainer import pick_device

log = logging.getLogger(__name__)


class OptimiseEngine:
    """Repaints pictures by optimising their pixels. Deterministic on the CPU.

    Args:
        style: a mixture of paintings: paths of pictures, or names in `paintings`.
        preset: a name in `PRESETS`, or one of your own.
        paintings: folder of paintings for names.
        features: a perceptual network, with `name` and `layers`; None takes what `open_features` does. It is changed.
        start: of `starts.STARTS`; None takes the preset's.
        model: network to start from.
        device: "auto", "cuda" or "cpu".
        seed: of a start from noise.
        masks: a picture of regions of the content, and one for each painting; see `read_masks`.
        stroke_scale: size of the painting's strokes against the picture.
        memory: bytes that may be used; None takes what the machine has.
        watch: called after every step of every picture.

    Attributes:
        is_interrupted: the last picture was cut short by Ctrl-C, and is the best so far.

    Raises:
        InputError: an unknown preset, start or device, a painting or mask that is missing, unreadable or too small.
    """

    def __init__(
        self,
        style: str | StyleMix,
        preset: str | Preset = "good",
        *,
        paintings: Path | None = None,
        features: Features | None = None,
        start: str | None = None,
        model: str = "fast",
        device: str = "auto",
        seed: int = 0,
        masks: tuple[Path, list[Path]] | None = None,
        stroke_scale: float = 1.0,
        memory: int | None = None,
        watch: Callable[[Progress], None] | None = None,
    ) -> None:
        mix = StyleMix.parse(style) if isinstance(style, str) else style
        plan = find_preset(preset) if isinstance(preset, str) else preset
        if not LEAST_STROKES <= stroke_scale <= MOST_STROKES:
            raise InputError(
                f"stroke scale {stroke_scale:g} is out of range; expected {LEAST_STROKES:g} to {MOST_STROKES:g}"
            )
        files = find_paintings(mix, paintings)
        pictures = {name: read_painting(path) for name, path in files.items()}
        labels, style_labels = read_masks(*masks) if masks else (None, [])
        if masks and len(style_labels) != len(files):
            raise InputError(
                f"{len(files)} paintings need as many style masks, in the same order; got {len(style_labels)}"
            )
        for labels_of, (name, picture) in zip(style_labels, pictures.items(), strict=bool(masks)):
            check_mask(labels_of, picture.shape[1], picture.shape[0], name)
        self._device = pick_device(device)
        features = features if features is not None else open_features()
        if isinstance(preset, str):
            plan = plan.on(features.name)
        self.preset = plan
        layers = features.layers
        weights = [value.float().cpu().numpy() for value in features.state_dict().values()]
        precision = "bf16" if plan.half and has_fast_bfloat16(self._device) else "fp32"
        if isinstance(features, Vgg19):
            features.average = plan.average_pooling
        features = features.to(self._device, torch.bfloat16 if precision == "bf16" else torch.float32)
        self._painter = Painter(
            features,
            layers,
            Paintings(pictures, features, pick_layers(layers)[0], style_labels, stroke_scale, self._device),
            plan,
            device=self._device,
            half=precision == "bf16",
            labels=labels,
            memory=memory,
            watch=watch,
        )
        self._start = starts.open_start(start or plan.start, self._painter, seed=seed, model=model)
        self.is_interrupted = False
        self.description = EngineDescription(
            name=f"optimise {plan.name} on {features.name}",
            styles=tuple(StyleInfo(name=name) for name in files),
            size=SizeRules(minimum=LEAST_SIDE),
            device=self._device,
            precision=precision,
            settings=_settings(
                plan,
                start=start or plan.start,
                seed=seed,
                stroke_scale=stroke_scale,
                paintings=pictures,
                content_mask=labels,
                style_mask=style_labels,
                features=weights,
                start_model=model,
            ),
        )

    def check(self, width: int, height: int) -> None:
        """
        Raises:
            InputError: frames of this size cannot be painted: too small, or more than the memory holds.
        """
        self._painter.check(width, height)

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """The picture repainted, on its own. Ctrl-C after the first step ends the work early, with the best so far,
        and sets `is_interrupted`; the next call raises it instead of painting, once, so that a loop ends.

        Raises:
            InputError: as `check`; a style that was not given.
            VideoNSTError: the optimisation diverged, or memory ran out.
        """
        mix.weights([style.name for style in self.description.styles])
        if mix.strength == 0:
            return frame
        if self.is_interrupted:
            self.is_interrupted = False
            raise KeyboardInterrupt
        try:
            painted = self.paint(frame, mix, self.begin(frame, mix, self.choose_start(frame, mix)))
        except Stopped as stopped:
            self.is_interrupted = True
            painted = stopped.best
        return self.finished(frame, mix, painted)

    def clip(self, flow: FlowProvider) -> Film:
        """An engine for the frames of one clip, in order: steady by itself. A preset of `DisFlow` works on more lines
        here than where somebody waits."""
        return Film(self, self._painter, DisFlow(flow.preset, FLOW_SIDE) if isinstance(flow, DisFlow) else flow)

    def choose_start(self, frame: Frame, mix: StyleMix) -> str:
        """For `begin`, of all frames of a film; see `starts.Start.choose`."""
        return self._start.choose(frame, mix)

    def begin(self, frame: Frame, mix: StyleMix, choice: str) -> Pixels:
        """The picture to start from where there is no frame before."""
        return self._start.begin(frame, mix, choice)

    def paint(self, frame: Frame, mix: StyleMix, beginning: Pixels) -> Pixels:
        """A first frame, before its colours are kept."""
        return self._painter.paint(frame.pixels, mix, beginning, steps=self.preset.steps)

    @staticmethod
    def finished(frame: Frame, mix: StyleMix, painted: Pixels) -> Frame:
        return frame.with_pixels(keep_colour(painted, frame.pixels) if mix.keep_colour else painted)


LEAST_STROKES, MOST_STROKES = 0.25, 4.0


def has_fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are in hardware, so that they are faster than fp32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)


def _settings(plan: Preset, **others: object) -> dict[str, Any]:
    """Everything that decides the pictures, by name; of what holds arrays, a hash."""
    settings = {f"{name} of the preset": value for name, value in asdict(plan).items() if name != "name"}
    return settings | {name: _digest(value) for name, value in others.items()}


def _digest(value: object) -> object:
    arrays = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    digest = hashlib.sha256()
    for array in arrays:
        if not isinstance(array, np.ndarray):
            return value
        digest.update(f"{array.shape} {array.dtype} ".encode() + array.tobytes())
    return digest.hexdigest()
