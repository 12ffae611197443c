"""How steady an engine is over the positions of the knob, and at what price in style and sharpness."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from videonst.bench.json_values import rounded
from videonst.bench.scenes import Scene, read_picture
from videonst.engines import Engine
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.styles import StyleMix
from videonst.temporal import Stabiliser
from videonst.temporal.flow import FlowProvider, open_flow
from videonst.temporal.metrics import flicker, sharpness, warping_error

RATE = 25
"""Frames per second that the scenes are taken to have."""

SETTLED = 8
"""Frames of a still scene that are left out: the history fills."""

Losses = Callable[[Pixels, Pixels], tuple[float, float]]
"""Content and style loss of a result and its photograph."""


@dataclass(frozen=True)
class Row:
    """One scene, painted one way.

    Attributes:
        style: name; "input" for the scene itself.
        steady: position of the knob; None where another program painted.
        scene, kind: of the scene.
        errors: warping error by lag in frames, mean over pairs; see `warping_error`.
        step, deviation, drift: of a still scene, levels; see `Flicker`.
        sharpness: mean gradient over that of the unsteadied painting, last frame.
        content, style_loss: of the last frame; see `videonst.perceptual`.
    """

    style: str
    steady: float | None
    scene: str
    kind: str
    errors: dict[int, float]
    step: float | None = None
    deviation: float | None = None
    drift: float | None = None
    sharpness: float | None = None
    content: float | None = None
    style_loss: float | None = None

    def errors_by_name(self) -> dict[str, float]:
        """As columns of a table."""
        return {f"error_{lag}": error for lag, error in self.errors.items()}


def paint(engine: Engine, scene: Scene, style: str, steady: float, flow: FlowProvider) -> list[Pixels]:
    """The scene painted in order, from a fresh start."""
    stabiliser, mix = Stabiliser(engine, steady=steady, flow=flow), StyleMix.parse(style)
    frames = (Frame(p, pts=i, time_base=Fraction(1, RATE)) for i, p in enumerate(scene.frames))
    return [stabiliser.stylize(frame, mix).pixels for frame in frames]


def measure(
    scene: Scene,
    painted: Sequence[Pixels],
    style: str,
    steady: float | None,
    *,
    plain: Sequence[Pixels] | None = None,
    losses: Losses | None = None,
) -> Row:
    """All measures of one scene.

    Args:
        scene: the input.
        painted: as many frames of the same size.
        style, steady: see `Row`.
        plain: the unsteadied painting that sharpness is compared with; None leaves it out.
        losses: None leaves them out.

    Raises:
        InputError: other frames than the scene's.
    """
    if [p.shape for p in painted] != [p.shape for p in scene.frames]:
        raise InputError(
            f"scene {scene.name} has {len(scene.frames)} frames of {scene.frames[0].shape[1]}x"
            f"{scene.frames[0].shape[0]}, painted are {len(painted)}; paint every frame, at its own size"
        )
    errors = defaultdict(list)
    for (first, second), motion in scene.motions.items():
        errors[second - first].append(warping_error(painted[first], painted[second], motion))
    found: dict[str, float] = {}
    if scene.kind == "still":
        found |= asdict(flicker(painted[SETTLED:]))
    if plain is not None:
        found["sharpness"] = sharpness(painted[-1]) / sharpness(plain[-1])
    if losses:
        found["content"], found["style_loss"] = losses(painted[-1], scene.frames[-1])
    means = {lag: float(np.nanmean(values)) for lag, values in sorted(errors.items())}
    return Row(style, steady, scene.name, scene.kind, means, **found)


def measure_engine(
    engine: Engine,
    scenes: Sequence[Scene],
    styles: Iterable[str],
    knob: Iterable[float],
    *,
    flow: str | FlowProvider = "medium",
    losses: Callable[[str], Losses | None] = lambda style: None,
) -> Iterator[Row]:
    """Rows of every style, scene and position; 0, each frame on its own, comes first and is what sharpness refers to.

    Args:
        engine: what paints.
        scenes, styles, knob: what to run.
        flow: see `open_flow`.
        losses: by style.
    """
    positions, motion = sorted({0.0, *knob}), open_flow(flow)
    for style in styles:
        of_style = losses(style)
        for scene in scenes:
            plain: list[Pixels] | None = None
            for steady in positions:
                painted = paint(engine, scene, style, steady, motion)
                plain = plain or painted
                yield measure(scene, painted, style, steady, plain=plain, losses=of_style)


def measure_input(scenes: Iterable[Scene]) -> list[Row]:
    """The scenes themselves: what a result that changes only as its input does would score."""
    return [measure(scene, scene.frames, "input", None) for scene in scenes]


def measure_folder(folder: Path, scenes: Iterable[Scene], plain: Path | None = None) -> Iterator[Row]:
    """What another program painted: a folder for each scene, with its frames as pictures in order of name.

    Args:
        folder: as filled from `write_inputs`; scenes without a folder are passed over.
        scenes: the inputs.
        plain: such a folder, without that program's stabilisation; what sharpness is compared with.
    """
    for scene in scenes:
        if (folder / scene.name).is_dir():
            base = _read_folder(plain / scene.name) if plain else None
            yield measure(scene, _read_folder(folder / scene.name), folder.name, None, plain=base)


def write_inputs(folder: Path, scenes: Iterable[Scene]) -> None:
    """Writes the frames of the scenes as PNG, for other programs to paint."""
    for scene in scenes:
        part = folder / scene.name
        part.mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(scene.frames):
            cv2.imwrite(str(part / f"{index:04}.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means over styles and scenes for each position, and their change against position 0 of the same run."""
    found = []
    for steady in sorted({row.steady for row in rows if row.steady is not None}):
        here = [row for row in rows if row.steady == steady]
        summary: dict[str, Any] = {"steady": steady}
        for kind in sorted({row.kind for row in here}):
            for lag in sorted({lag for row in here if row.kind == kind for lag in row.errors}):
                values = [row.errors[lag] for row in here if row.kind == kind and lag in row.errors]
                summary[f"{kind}_error_{lag}"] = float(np.nanmean(values))
        for name in ("step", "deviation", "drift", "sharpness", "content", "style_loss"):
            numbers = [value for row in here if (value := getattr(row, name)) is not None]
            if numbers:
                summary[name] = float(np.mean(numbers))
        found.append(summary)
    for summary in found:
        summary["change"] = {
            key: value / found[0][key] - 1
            for key, value in summary.items()
            if key.partition("_")[2].startswith("error") or key in ("step", "deviation", "style_loss", "content")
        }
    return found


def write_report(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Everything as JSON: `about`, `summary` and `rows`."""
    report = about | {"summary": summarise(rows), "rows": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(report, 5), indent=1) + "\n")


def draw_plot(path: Path, rows: Sequence[Row]) -> None:
    """Warping error against style loss (sharpness, where no losses were measured) over the knob. Needs matplotlib."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise InputError(f"the plot needs {error.name}; run: pip install 'videonst[train]'") from error
    summary = summarise(rows)
    price = "style_loss" if "style_loss" in summary[0] else "sharpness"
    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for kind in ("sintel", "synthetic", "clip"):
        key = f"{kind}_error_1"
        if key not in summary[0]:
            continue
        axes.plot([s[price] for s in summary], [s[key] for s in summary], "o-", label=kind)
        for s in summary:
            axes.annotate(f"{s['steady']:g}", (s[price], s[key]), textcoords="offset points", xytext=(5, 4), fontsize=8)
        own = [row.errors[1] for row in rows if row.style == "input" and row.kind == kind and 1 in row.errors]
        if own:
            axes.axhline(float(np.mean(own)), linestyle=":", linewidth=1, color=axes.lines[-1].get_color())
    axes.set_xlabel("style loss" if price == "style_loss" else "sharpness against steady 0")
    axes.set_ylabel("warping error (dotted: the input itself)")
    axes.set_ylim(bottom=0)
    axes.legend(title="steady 0 … 1, mean over styles")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _read_folder(folder: Path) -> list[Pixels]:
    return [read_picture(p) for p in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])]
