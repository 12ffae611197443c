"""Every hyper-parameter of a training run, read from a TOML file."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videonst.errors import InputError
from videonst.network import TIERS
from videonst.perceptual import FEATURES
from videonst.perceptual.vgg import LAYERS


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the run with its own crop.

    Attributes:
        until: share of the steps after which the next stage begins, 0 to 1; the last stage's is 1.
        crop: side of the square training crops, pixels, a multiple of 16.
        scales: the style loss is taken on the result and on the result shrunk by these factors (1 = as it is).
        temporal: weight of the difference between the results of a photograph and of the same in synthetic motion.
        temporal_features: weight of the same difference at the bottleneck. With both 0 there is no second frame.
    """

    until: float
    crop: int
    scales: tuple[int, ...] = (1,)
    temporal: float = 0.0
    temporal_features: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether photographs get a second frame."""
        return self.temporal > 0 or self.temporal_features > 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. Losses are relative (see `videonst.perceptual.losses`), so the weights suit any painting.

    Attributes:
        tier: size of the network.
        steps: optimiser steps.
        batch: photographs a step, each repainted in another style.
        learning_rate: peak rate of Adam, reached after `warmup` steps, then falling on a cosine to `final` of it.
        clip: largest gradient norm.
        painting_size: short side to which paintings are brought, pixels: larger means bolder strokes.
        zoom: range of enlargement of the photographs before cropping; 1 keeps their own pixels.
        content, style, total_variation, grid: weights of the losses.
        pixel: weight of the squared pixel error of the photo slot, beside its content loss.
        features: perceptual network, "vgg19" or "compact"; "auto" is VGG-19 where its weights are at hand.
        content_layer, style_layers: activations of VGG-19, or of the compact network where it has them.
        seed: of initialisation, sampling and augmentation.
        stages: crops, in order.
    """

    tier: str
    steps: int
    batch: int = 4
    learning_rate: float = 3e-3
    warmup: int = 100
    final: float = 0.02
    clip: float = 1.0
    painting_size: int = 512
    zoom: tuple[float, float] = (1.0, 1.6)
    content: float = 1.0
    style: float = 2.5
    total_variation: float = 0.05
    grid: float = 100.0
    pixel: float = 10.0
    features: str = "auto"
    content_layer: str = "relu4_2"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    seed: int = 0
    stages: tuple[Stage, ...] = field(default=(Stage(until=1.0, crop=256, scales=(1, 2)),))

    def __post_init__(self) -> None:
        def require(condition: bool, what: str) -> None:
            if not condition:
                raise InputError(f"training recipe: {what}")

        require(self.tier in TIERS, f"tier is {self.tier!r}, expected one of {', '.join(TIERS)}")
        require(self.steps >= 1 and self.batch >= 1, "steps and batch must be at least 1")
        require(self.learning_rate > 0, "learning_rate must be above 0")
        require(0 < self.zoom[0] <= self.zoom[1], "zoom must be two rising numbers above 0")
        require(self.features in FEATURES, f"features is {self.features!r}, expected one of {', '.join(FEATURES)}")
        for layer in (self.content_layer, *self.style_layers):
            require(layer in LAYERS, f"unknown layer {layer!r}, expected one of {', '.join(LAYERS)}")
        ends = [s.until for s in self.stages]
        require(bool(ends) and ends == sorted(ends) and ends[-1] == 1.0, "stages must rise in `until` and end with 1.0")
        for stage in self.stages:
            require(stage.crop >= 64 and stage.crop % 16 == 0, f"crop {stage.crop} is not a multiple of 16 from 64 up")
            require(min(stage.scales, default=0) >= 1, "scales must name whole factors from 1 up")
            weights = (stage.temporal, stage.temporal_features)
            require(min(weights) >= 0, "temporal and temporal_features must be at least 0")

    def stage(self, step: int) -> Stage:
        """The stage that holds at a step (counted from 0)."""
        return next(s for s in self.stages if step < s.until * self.steps or s is self.stages[-1])

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, strings, lists and dictionaries."""
        return dataclasses.asdict(self)


def load_recipe(path: Path, **overrides: Any) -> Recipe:
    """Reads a recipe file; keyword arguments that are not None replace what it says.

    Raises:
        InputError: missing file, TOML error, unknown key or a value out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    return make_recipe(values | {k: v for k, v in overrides.items() if v is not None}, str(path))


def make_recipe(values: dict[str, Any], origin: str = "training recipe") -> Recipe:
    """Builds a recipe from plain values, as in a TOML file or a model's metadata."""
    try:
        if "stages" in values:
            values = values | {"stages": tuple(Stage(**_tuples(stage)) for stage in values["stages"])}
        return Recipe(**_tuples(values))
    except TypeError as error:
        known = ", ".join(f.name for f in dataclasses.fields(Recipe))
        raise InputError(f"{origin}: {error}; the keys are {known}") from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
