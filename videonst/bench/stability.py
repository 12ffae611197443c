"""How steady an engine is over the positions of the knob, and at what price in style and sharpness."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from videonst.bench.json_values import rounded, write_json
from videonst.bench.scenes import Scene, noisy_stills
from videonst.engines import Engine
from videonst.errors import InputError
from videonst.frame import Frame, Pixels
from videonst.sources import open_source
from videonst.styles import StyleMix
from videonst.temporal import Stabiliser
from videonst.temporal.flow import FlowProvider, open_flow
from videonst.temporal.metrics import flicker, sharpness, warping_error

RATE = 25
"""Frames per second that the scenes are taken to have."""

SETTLED = 8
"""Frames of a still scene that are left out: the history fills."""

HOLD_SIDE = 180
"""Side of the photograph that is held, pixels: drift does not depend on it, and thousands of frames take minutes."""

INPUT = "input"
"""In place of a style: the scene itself."""

Losses = Callable[[Pixels, Pixels], tuple[float, float]]
"""Content and style loss of a result and its photograph."""


@dataclass(frozen=True)
class Row:
    """One scene, painted one way.

    Attributes:
        style: name; `INPUT` for the scene itself, the folder where another program painted.
        steady: position of the knob; None where another program painted.
        scene, kind: of the scene.
        errors: warping error by lag in frames, mean over the pairs of which something is seen in both; see
            `warping_error`.
        step, deviation, drift: of a still scene, levels; see `Flicker`. Over a `hold`: see there.
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

    @property
    def position(self) -> str:
        """What is compared: the position of the knob, or the folder."""
        return self.style if self.steady is None else f"{self.steady:g}"

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
    for frames in (painted,) if plain is None else (painted, plain):
        _check(scene, frames)
    errors = defaultdict(list)
    for (first, second), motion in scene.motions.items():
        if motion.valid.any():
            errors[second - first].append(warping_error(painted[first], painted[second], motion))
    found: dict[str, float | None] = {}
    if scene.kind == "still":
        found |= asdict(flicker(painted[SETTLED:]))
    if plain is not None:
        found["sharpness"] = _sharpness_ratio(painted[-1], plain[-1])
    if losses:
        found["content"], found["style_loss"] = losses(painted[-1], scene.frames[-1])
    means = {lag: float(np.mean(values)) for lag, values in sorted(errors.items())}
    return Row(style, steady, scene.name, scene.kind, means, **found)


def _check(scene: Scene, painted: Sequence[Pixels]) -> None:
    if [p.shape for p in painted] == [p.shape for p in scene.frames]:
        return
    height, width, _ = scene.frames[0].shape
    found = ", ".join(sorted({f"{p.shape[1]}x{p.shape[0]}" for p in painted})) or "none"
    raise InputError(
        f"scene {scene.name} has {len(scene.frames)} frames of {width}x{height}, painted are {len(painted)} ({found}); "
        "paint every frame, at its own size"
    )


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

    Raises:
        InputError: a style or a position that there is not, before anything is painted.
    """
    positions, motion = sorted({0.0, *knob}), open_flow(flow)
    for position in positions:
        Stabiliser(engine, steady=position)
    names = [known.name for known in engine.description.styles]
    of_styles = {}
    for style in styles:
        StyleMix.parse(style).weights(names)
        of_styles[style] = losses(style)
    for style, of_style in of_styles.items():
        for scene in scenes:
            plain: list[Pixels] | None = None
            for steady in positions:
                painted = paint(engine, scene, style, steady, motion)
                plain = plain or painted
                yield measure(scene, painted, style, steady, plain=plain, losses=of_style)


def measure_hold(engine: Engine, style: str, steady: float, count: int, *, flow: str | FlowProvider = "medium") -> Row:
    """What becomes of a still photograph that is held for long: nothing may darken, smear or drift.

    Returns:
        A row of the kind "hold". `drift` is the change of the mean level since the history settled, levels, where it
        was largest; `step` the mean difference of the last frame from that first one; `sharpness` that of the last
        frame against the unsteadied painting of the same.
    """
    stabiliser, mix = Stabiliser(engine, steady=steady, flow=open_flow(flow)), StyleMix.parse(style)
    first: Pixels | None = None
    levels = []
    for index, pixels in enumerate(noisy_stills(count, HOLD_SIDE)):
        frame = Frame(pixels, pts=index, time_base=Fraction(1, RATE))
        shown = stabiliser.stylize(frame, mix)
        if index >= min(SETTLED, count - 1):
            first = shown.pixels if first is None else first
            levels.append(float(shown.pixels.mean()))
    assert first is not None
    changes = np.array(levels) - levels[0]
    return Row(
        style, steady, "hold", "hold", {},
        step=float(cv2.absdiff(shown.pixels, first).mean()),
        drift=float(changes[np.abs(changes).argmax()]),
        sharpness=_sharpness_ratio(shown.pixels, engine.stylize(frame, mix).pixels),
    )  # fmt: skip


def _sharpness_ratio(picture: Pixels, plain: Pixels) -> float | None:
    """None where the plain one is flat."""
    base = sharpness(plain)
    return sharpness(picture) / base if base else None


def measure_input(scenes: Iterable[Scene]) -> list[Row]:
    """The scenes themselves: what a result that changes only as its input does would score."""
    return [measure(scene, scene.frames, INPUT, None) for scene in scenes]


def measure_folder(
    folder: Path, scenes: Iterable[Scene], plain: Path | None = None, losses: Losses | None = None
) -> list[Row]:
    """What another program painted: a folder for each scene, with its frames as pictures, in natural order of name.

    Args:
        folder: as filled from `write_inputs`; scenes without a folder are passed over.
        scenes: the inputs.
        plain: such a folder, without that program's stabilisation: measured too, before the other, and what sharpness
            and changes are compared with.
        losses: None leaves them out.

    Raises:
        InputError: no scene is there, or one with other frames than the scene's.
    """
    wanted = [scene for scene in scenes if (folder / scene.name).is_dir()]
    if not wanted:
        raise InputError(f"{folder} holds no painted scene; paint the folders that --inputs writes, such as still")
    rows = []
    for scene in wanted:
        base = _read_folder(plain / scene.name) if plain else None
        if base is not None:
            rows.append(measure(scene, base, str(plain), None, plain=base, losses=losses))
        painted = _read_folder(folder / scene.name)
        rows.append(measure(scene, painted, str(folder), None, plain=base, losses=losses))
    return rows


def write_inputs(folder: Path, scenes: Iterable[Scene]) -> None:
    """Writes the frames of the scenes as PNG, for other programs to paint.

    Raises:
        InputError: the folder cannot be written to.
    """
    for scene in scenes:
        part = folder / scene.name
        try:
            part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {part}: {error.strerror}") from error
        for index, pixels in enumerate(scene.frames):
            path = part / f"{index:04}.png"
            if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
                raise InputError(f"cannot write {path}; is the disk full?")


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means over styles and scenes for each position of the knob or each painted folder, in the order of `rows`; of the
    drift the largest. Where there are several, their change against the first: position 0, or the plain folder."""
    found = []
    for position in dict.fromkeys(row.position for row in rows if row.style != INPUT):
        here = [row for row in rows if row.position == position and row.style != INPUT]
        summary: dict[str, Any] = {"steady": here[0].steady} if here[0].steady is not None else {"painted": position}
        for kind in sorted({row.kind for row in here}):
            for lag in sorted({lag for row in here if row.kind == kind for lag in row.errors}):
                values = [row.errors[lag] for row in here if row.kind == kind and lag in row.errors]
                summary[f"{kind}_error_{lag}"] = float(np.mean(values))
        for prefix, apart in (
            ("", [r for r in here if r.kind != "hold"]),
            ("hold_", [r for r in here if r.kind == "hold"]),
        ):
            for name in ("step", "deviation", "drift", "sharpness", "content", "style_loss"):
                numbers = [value for row in apart if (value := getattr(row, name)) is not None]
                if numbers:
                    summary[prefix + name] = max(map(abs, numbers)) if name == "drift" else float(np.mean(numbers))
        found.append(summary)
    for summary in found if len(found) > 1 else ():
        summary["change"] = {
            key: value / found[0][key] - 1
            for key, value in summary.items()
            if (key.partition("_")[2].startswith("error") or key in ("step", "deviation", "style_loss", "content"))
            and found[0].get(key)
        }
    return found


def write_report(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Everything as JSON: `about`, `summary` and `rows`.

    Raises:
        InputError: it cannot be written.
    """
    write_json(path, rounded(about | {"summary": summarise(rows), "rows": [asdict(row) for row in rows]}, 5))


def draw_plot(path: Path, rows: Sequence[Row]) -> None:
    """Warping error against style loss (sharpness, where no losses were measured) over the knob.

    Raises:
        InputError: matplotlib is missing, or there is no error or nothing to set it against.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise InputError(f"the plot needs {error.name}; run: pip install 'videonst[train]'") from error
    summary = summarise(rows)
    price = "style_loss" if all("style_loss" in s for s in summary) else "sharpness"
    if not all(price in s for s in summary):
        raise InputError("the plot needs a price beside the error: add --plain, or --vgg and --paintings")
    kinds = [kind for kind in ("sintel", "synthetic", "clip") if all(f"{kind}_error_1" in s for s in summary)]
    if not kinds:
        raise InputError("the plot needs a warping error, and no scene that was measured has one; paint synthetic too")
    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for kind in kinds:
        key = f"{kind}_error_1"
        axes.plot([s[price] for s in summary], [s[key] for s in summary], "o-", label=kind)
        for s in summary:
            name = s["painted"] if "painted" in s else f"{s['steady']:g}"
            axes.annotate(name, (s[price], s[key]), textcoords="offset points", xytext=(5, 4), fontsize=8)
        own = [row.errors[1] for row in rows if row.style == INPUT and row.kind == kind and 1 in row.errors]
        if own:
            axes.axhline(float(np.mean(own)), linestyle=":", linewidth=1, color=axes.lines[-1].get_color())
    axes.set_xlabel("style loss" if price == "style_loss" else "sharpness against the unsteadied painting")
    axes.set_ylabel("warping error (dotted: the input itself)")
    axes.set_ylim(bottom=0)
    axes.legend(title="painted folders" if "painted" in summary[0] else "steady 0 … 1, mean over styles")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _read_folder(folder: Path) -> list[Pixels]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected the frames of this scene as pictures")
    with open_source(folder) as source:
        return [frame.pixels for frame in source]
