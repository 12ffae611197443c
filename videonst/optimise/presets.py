"""What a preset of the quality mode is: every number of the optimisation in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from videonst.errors import InputError

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
"""The layers of Gatys et al. 2016. A network that lacks one of them does without, see `Objective`."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a picture is optimised.

    Attributes:
        name: what users type.
        method: "lbfgs" (Gatys et al. 2016) or "adam" with averaged iterates.
        history: steps that L-BFGS remembers; each takes 24 bytes a pixel.
        spectrum: of its variables, see `descent.lbfgs`.
        steps: evaluations of losses and gradient at each scale, coarse to fine; each scale has twice the side of the
            one before, the last one the picture's own size.
        compact_steps: the same on the compact network, which further steps bring no nearer to VGG-19 (its card); None
            where nothing changes.
        next_steps: as `steps`, for a frame that starts from the one before, where that shows all of it; see
            `following`.
        start: see `starts.STARTS`.
        distance: of the styles, in `losses.DISTANCES`.
        content_weight, style_weight, tv_weight, laplacian_weight: of the relative losses.
        range_weight: of the squared distance to what a picture can show, [0, 1], mean over the picture. Without it
            pictures in bright or dark styles lean on values that are cut off in the end.
        average_pooling: in VGG-19, instead of the maximum.
        half: features in bfloat16.
        temporal_weight: of the squared difference to the frames before, moved along the flow.
        lags: the frames before that count, the nearest first.
        passes: over a window of frames: forwards, then alternating.
        window: frames that are optimised together where there are several passes.
    """

    name: str
    steps: tuple[int, ...]
    method: Literal["lbfgs", "adam"] = "lbfgs"
    history: int = 20
    spectrum: float = 0.5
    compact_steps: tuple[int, ...] | None = None
    next_steps: tuple[int, ...] = (60,)
    start: str = "auto"
    distance: str = "gram"
    content_weight: float = 1.0
    style_weight: float = 10.0
    tv_weight: float = 0.0
    laplacian_weight: float = 0.0
    range_weight: float = 1000.0
    average_pooling: bool = True
    half: bool = True
    temporal_weight: float = 200.0
    lags: tuple[int, ...] = (1,)
    passes: int = 1
    window: int = 1

    @property
    def of_method(self) -> dict[str, float]:
        """Arguments of the method."""
        return {"history": self.history, "spectrum": self.spectrum} if self.method == "lbfgs" else {}

    def on(self, network: str) -> "Preset":
        """As it is on the perceptual network of this name."""
        return self if network != "compact" or self.compact_steps is None else replace(self, steps=self.compact_steps)

    def following(self, anew: float) -> tuple[int, ...]:
        """Steps of a frame that starts from those before, of whose area the share `anew` was not seen in them: to
        `next_steps` comes that share of a first frame's, up to as many as that has. They are added at the full size,
        since what was carried would lose its sharpness at another."""
        first, following = sum(self.steps), sum(self.next_steps)
        more = min(round(anew * first), max(0, first - following))
        return *self.next_steps[:-1], self.next_steps[-1] + more

    def with_steps(self, total: int) -> "Preset":
        """The same with `total` steps for a first frame, shared among scales as before; for the next in proportion.

        Raises:
            InputError: less than one.
        """
        if total < 1:
            raise InputError(f"{total} steps are too few; expected 1 or more")
        factor = total / sum(self.steps)
        finest = [round(count * factor) for count in self.steps[:-1]]
        steps = (*finest, total - sum(finest))
        return replace(
            self,
            steps=tuple(count for count in steps if count > 0),
            next_steps=tuple(max(1, round(count * factor)) for count in self.next_steps),
        )


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="gatys2016",
            history=100,
            spectrum=0.0,
            range_weight=0.0,
            steps=(500,),
            next_steps=(500,),
            start="content",
            half=False,
        ),
        Preset(name="draft", steps=(40,), next_steps=(15,)),
        Preset(name="good", steps=(30, 240), compact_steps=(10, 70), next_steps=(40,), lags=(1, 4)),
        Preset(
            name="best",
            steps=(60, 400),
            compact_steps=(20, 80),
            next_steps=(80,),
            lags=(1, 2, 4),
            passes=3,
            window=8,
        ),
    )
}


def find_preset(name: str) -> Preset:
    """
    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r} of the optimise engine; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
