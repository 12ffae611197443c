"""Styles of one's own: learnt on the bank of a model file, and written into a copy of it that keeps all else."""

import dataclasses
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from videonst.bank import StyleBank, check_target
from videonst.demo import PORTRAIT
from videonst.engines.metadata import LearntInfo, StyleInfo, read_metadata
from videonst.errors import InputError, VideoNSTError
from videonst.export.int8 import export_int8
from videonst.export.onnx import (
    FrameNetwork,
    add_thumbnails,
    describe_paintings,
    load_network,
    measure_parity,
    require_parity,
)
from videonst.frame import Pixels
from videonst.models import find_model
from videonst.network import StyleNetwork
from videonst.perceptual import open_features
from videonst.sources.image import read_picture
from videonst.styles import check_name
from videonst.training import Painting, list_paintings, pick_device
from videonst.training.budget import SMALLEST_PAINTING, STROKE_SIZES, LearnSettings
from videonst.training.data import read_painting
from videonst.training.learn import Learner, LearnProgress
from videonst.training.pictures import gather_pictures

log = logging.getLogger(__name__)


def learn(
    paintings: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    into: str | Path = "fast",
    name: str | None = None,
    title: str | None = None,
    artist: str | None = None,
    year: str | None = None,
    licence: str | None = None,
    content: str | Path | None = None,
    settings: LearnSettings | None = None,
    features: str = "auto",
    vgg: Path | None = None,
    device: str = "auto",
    compile: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    int8: bool = False,
    progress: Callable[[LearnProgress], None] | None = None,
) -> tuple[StyleInfo, ...]:
    """Adds styles to a model: learns them from paintings and writes a copy that has them.

    The styles that the model has stay what they are, bit for bit, also in mixtures. The run lives in OUT.learning/
    (preview.png shows how far it is). Ctrl-C ends it early: the file is written with the best so far, then
    KeyboardInterrupt is raised; `resume` goes on.

    Args:
        paintings: picture files, or folders of them (with a `styles.toml` or not); a style each.
        out: model file to write, ending in .onnx.
        into: name of a shipped model or path of a model file, in fp32 or fp16.
        name: makes one style of all pictures, by this name; else the names of the files are taken.
        title, artist, year, licence: of the paintings, for the file's own description; else what styles.toml says.
        content: folder of photographs, or a clip, to learn on; None takes a small built-in set.
        settings: time or steps, strength, stroke size; see `LearnSettings`.
        features, vgg: perceptual network; see `videonst.perceptual.open_features`.
        device: "auto", "cuda" or "cpu".
        compile: fuse the step with torch.compile, which takes a minute or more of the time.
        resume: go on with what an interrupted run has left, with the same arguments; time and steps may be other.
        overwrite: replace `out` if it exists.
        int8: write NAME.int8.onnx beside NAME.onnx, for live painting on CPUs. Where that paints too differently, it is
            left out with a warning.
        progress: called about twice a second, in this thread.

    Returns:
        What the file says about the new styles.

    Raises:
        InputError: anything that cannot be done as asked, before work starts.
        VideoNSTError: a failure on the way; `out` is untouched.
    """
    settings = settings or LearnSettings()
    out, base = Path(out), find_model(into)
    targets = [out, out.with_suffix(".int8.onnx")] if int8 else [out]
    for target in targets:
        check_target(target, overwrite=overwrite or resume)
    device = pick_device(device)
    bank = StyleBank(base)
    if bank.metadata.precision == "int8":
        raise InputError(
            f"{base} is in 8 bits, which cannot be learnt in; learn into the fp32 file of the model, "
            f"then: videonst export {out} {out} --calibrate DIR"
        )
    if int8 and bank.metadata.precision != "fp32":
        raise InputError(f"{base} is in {bank.metadata.precision}; an 8-bit file is made of one in fp32")
    given = [paintings] if isinstance(paintings, str | Path) else paintings
    labels = {"title": title, "artist": artist, "year": year, "licence": licence}
    groups = _styles([Path(p) for p in given], name, {key: value for key, value in labels.items() if value is not None})
    if resume and out.exists() and out.samefile(base):  # what was interrupted has left its styles in the base
        bank.set_styles([kept for style, kept in bank.styles.items() if style not in groups])
    for style in groups:
        if style in bank.styles:
            raise InputError(f"{base} holds a style {style!r} already; give another name with --as, or remove that one")
    network = load_network(base)
    if len(network.bank) > len(bank.rows):
        network.bank = torch.nn.Parameter(torch.from_numpy(bank.rows))
    size = STROKE_SIZES[settings.stroke_size]
    least = min(SMALLEST_PAINTING, settings.crop)
    pictures = {style: [read_painting(p, size, least) for p in group] for style, group in groups.items()}
    photographs, words = gather_pictures(Path(content) if content is not None else None)
    perceptual = open_features(features, vgg)
    log.info("learning with the features of %s on %s", perceptual.name, words)
    learner = Learner(
        network,
        bank.base,
        pictures,
        photographs,
        perceptual,
        out.with_suffix(".learning"),
        settings,
        device=device,
        compile=compile,
        resume=resume,
    )

    def write() -> tuple[StyleInfo, ...]:
        styles = [
            dataclasses.replace(
                describe_paintings([dataclasses.replace(group[0], name=style)])[0],
                learnt=LearntInfo(
                    pictures=tuple(painting.path.name for painting in group),
                    base=bank.base,
                    features=perceptual.name,
                    content=words,
                    steps=learner.budget.step,
                    seconds=round(learner.budget.seconds, 1),
                    strength=settings.strength,
                    stroke_size=settings.stroke_size,
                    seed=settings.seed,
                    score=learner.scores[style],
                ),
            )
            for style, group in groups.items()
        ]
        described = _write(bank, network, styles, learner.best, out)
        for quick in targets[1:]:
            _write_int8(out, quick, photographs)
        return described

    try:
        learner.run(progress or (lambda _: None))
    except KeyboardInterrupt:
        if learner.started:
            write()
        raise
    return write()


def _write_int8(model: Path, path: Path, photographs: Sequence[Pixels]) -> None:
    """The model file in 8 bits, with ranges set on the photographs."""
    path.unlink(missing_ok=True)  # what is there holds other styles
    styles = len(read_metadata(model).styles)
    try:
        export_int8(model, path, list(itertools.islice(itertools.cycle(photographs), 2 * styles)))
    except VideoNSTError as error:
        log.warning("there is no %s: %s", path.name, error)


def _styles(paths: Sequence[Path], name: str | None, labels: dict[str, Any]) -> dict[str, list[Painting]]:
    """The pictures of each style by its name."""
    if not paths:
        raise InputError("there is nothing to learn from; give one picture of a painting or more")
    found: list[Painting] = []
    for path in paths:
        if path.is_dir():
            found += list_paintings(path)
        else:
            found.append(Painting(_name(path), path, path.stem, "unknown", "unknown", "unknown"))
    found = [dataclasses.replace(painting, **labels) for painting in found]
    if name is not None:
        return {check_name(name): found}
    groups = {painting.name: [painting] for painting in found}
    for painting in found:
        check_name(painting.name)
        if groups[painting.name] != [painting]:
            raise InputError(
                f"{groups[painting.name][0].path} and {painting.path} would both be called {painting.name!r}; "
                "rename a file, or make one style of all with --as NAME"
            )
    return groups


def _name(path: Path) -> str:
    """A style's name from a file's: what a mixture cannot hold becomes an underscore."""
    return re.sub(r"[^\w.-]+", "_", path.stem).strip("_.-") or "style"


def _write(
    bank: StyleBank, network: StyleNetwork, styles: Sequence[StyleInfo], rows: torch.Tensor, out: Path
) -> tuple[StyleInfo, ...]:
    """Adds the rows to the file, compares it with torch, and writes it."""
    old = list(bank.styles.values())
    bank.set_styles([*old, *zip(styles, rows.cpu().numpy(), strict=True)])
    network.bank = torch.nn.Parameter(torch.from_numpy(bank.rows))
    reference = FrameNetwork(network).eval()
    described = add_thumbnails(reference, styles, read_picture(PORTRAIT).pixels, first=len(old) + 1)
    bank.metadata = dataclasses.replace(
        bank.metadata,
        styles=(*(style for style, _ in old), *described),
        parity=measure_parity(bank.to_bytes(), reference),
    )
    require_parity(bank.metadata)
    bank.save(out, overwrite=True)
    return described
