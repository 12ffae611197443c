"""The styles of a model file: taken out, renamed, put in order, taken over from another file, or added.

A style is a row of the bank, one initialiser of the graph. Nothing else is touched, so what a file painted before it
still paints, bit for bit. Needs onnx, not torch.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videonst.engines.metadata import ModelMetadata, StyleInfo, read_metadata
from videonst.errors import InputError
from videonst.models import writing_model
from videonst.styles import check_name

try:
    import onnx
    from onnx import numpy_helper
except ModuleNotFoundError as error:
    raise InputError("changing the styles of a model file needs onnx; run: pip install onnx") from error

BANK = "bank"
"""Name of the initialiser; (styles + 1, 2 x channels), row 0 the photograph."""

Rows = npt.NDArray[np.float32]


class StyleBank:
    """A model file in memory, with styles to change.

    Args:
        path: a model file of any precision.

    Attributes:
        metadata: what the file says about itself.
        rows: (styles + 1, 2 x channels), the photograph first.
        base: fingerprint of tier, precision, convolutions and photo slot, in 8-bit files the ranges of activations
            too: styles can be exchanged between files where it is the same.

    Raises:
        InputError: missing or unreadable, no videonst model, or without a bank.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = read_metadata(path)
        try:
            self._model = onnx.load(path)
        except Exception as error:  # protobuf's exceptions share no base class
            raise InputError(f"{path} is damaged: {error}") from error
        tensors = {tensor.name: tensor for tensor in self._model.graph.initializer}
        if BANK not in tensors or tensors[BANK].dims[0] != len(self.metadata.styles) + 1:
            raise InputError(f"{path} holds no bank of its {len(self.metadata.styles)} styles; export the model again")
        self._tensor = tensors[BANK]
        self.rows: Rows = numpy_helper.to_array(self._tensor)
        digest = hashlib.sha256(f"{self.metadata.tier} {self.metadata.precision} {self.rows.shape[1]}".encode())
        digest.update(self.rows[0].tobytes())
        for tensor in _kernels(self._model.graph, {}):
            digest.update(numpy_helper.to_array(tensor).tobytes())
        self.base = digest.hexdigest()

    @property
    def styles(self) -> dict[str, tuple[StyleInfo, Rows]]:
        """Description and row of each style, in order."""
        return {style.name: (style, row) for style, row in zip(self.metadata.styles, self.rows[1:], strict=True)}

    def set_styles(self, styles: Sequence[tuple[StyleInfo, Rows]]) -> None:
        """Replaces all styles.

        Raises:
            InputError: none, or names that are not fit or not different.
        """
        if not styles:
            raise InputError("no style would be left; a model needs one or more")
        for style, _ in styles:
            check_name(style.name)
        self.metadata = dataclasses.replace(self.metadata, styles=tuple(style for style, _ in styles))
        self.rows = np.stack([self.rows[0], *(row for _, row in styles)]).astype(np.float32)
        self._tensor.CopyFrom(numpy_helper.from_array(self.rows, BANK))
        graph = self._model.graph
        weights = next(value for value in graph.input if value.name == "style_weights")
        weights.type.tensor_type.shape.dim[1].dim_value = len(self.rows)
        for known in [value for value in graph.value_info if value.name == BANK]:
            graph.value_info.remove(known)

    def to_bytes(self) -> bytes:
        """The model as a file holds it."""
        onnx.helper.set_model_props(self._model, self.metadata.to_properties())
        content: bytes = self._model.SerializeToString()
        return content

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes the file, complete or not at all.

        Raises:
            InputError: it exists and is not to be replaced, or cannot be written.
        """
        check_target(path, overwrite=overwrite)
        content = self.to_bytes()
        with writing_model(path) as part:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            onnx.checker.check_model(content)


def edit_styles(
    path: Path,
    out: Path | None = None,
    *,
    remove: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    merge: Sequence[Path] = (),
    order: Sequence[str] = (),
    overwrite: bool = False,
) -> ModelMetadata:
    """Changes the styles of a model file, in the order of the arguments. The others paint as before, bit for bit.

    Args:
        path: a model file of any precision.
        out: target, ending in .onnx; None replaces `path`.
        remove: names of styles to leave out.
        rename: new names by old ones.
        merge: files of the same tier and precision with the same convolutions, all of whose styles are taken over;
            those that both hold under one name must be the same.
        order: names to put first; the rest follow as they stand.
        overwrite: replace `out` if it exists.

    Returns:
        What the new file says about itself.

    Raises:
        InputError: an unknown name, one that is taken, a file of another base, or a target that cannot be written.
    """
    bank = StyleBank(path)
    styles = bank.styles
    for name in remove:
        require_style(name, styles, path)
        del styles[name]
    names = {name: name for name in styles}
    for old, new in (rename or {}).items():
        require_style(old, styles, path)
        names[old] = check_name(new)
    if len(set(names.values())) < len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise InputError(f"{twice!r} would name two styles; give another name")
    styles = {names[name]: (dataclasses.replace(style, name=names[name]), row) for name, (style, row) in styles.items()}
    for other in merge:
        _merge(styles, bank, StyleBank(other))
    for name in order:
        require_style(name, styles, path)
    chosen = dict.fromkeys((*order, *styles))
    bank.set_styles([styles[name] for name in chosen])
    bank.save(out or path, overwrite=overwrite or out is None)
    return bank.metadata


def check_target(path: Path, *, overwrite: bool) -> None:
    """
    Raises:
        InputError: no name of a model file, or one that exists and is not to be replaced.
    """
    if path.suffix != ".onnx":
        raise InputError(f"cannot write a model to {path}; expected a name ending in .onnx")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give another target, or --overwrite")


def require_style(name: str, styles: Mapping[str, object], path: Path) -> None:
    """
    Raises:
        InputError: the file does not hold it.
    """
    if name not in styles:
        raise InputError(f"{path} holds no style {name!r}; it holds {', '.join(styles)}")


def _merge(styles: dict[str, tuple[StyleInfo, Rows]], bank: StyleBank, other: StyleBank) -> None:
    for what in ("tier", "precision"):
        ours, theirs = getattr(bank.metadata, what), getattr(other.metadata, what)
        if ours != theirs:
            raise InputError(
                f"{other.path} has {what} {theirs}, {bank.path} has {ours}; only files of the same base can be merged"
            )
    if other.base != bank.base:
        raise InputError(
            f"{other.path} and {bank.path} have different convolutions: their styles cannot be exchanged; "
            + (
                "merge the fp32 files, and export the result in 8 bits"
                if bank.metadata.precision == "int8"
                else "learn the style anew on the other base"
            )
        )
    for name, (style, row) in other.styles.items():
        if name not in styles:
            styles[name] = style, row
        elif not np.array_equal(styles[name][1], row):
            raise InputError(f"both files hold a style {name!r}, and they differ; rename one of them first")


def _kernels(graph: "onnx.GraphProto", around: "Mapping[str, onnx.TensorProto]") -> "list[onnx.TensorProto]":
    """Initialisers that convolutions read; in 8-bit files their scales and those of what goes in and out, too. These
    files have two branches that read the same, with and without held statistics: the latter counts."""
    tensors = {**around, **{tensor.name: tensor for tensor in graph.initializer}}
    found = []
    for node in graph.node:
        if node.op_type in ("Conv", "QLinearConv"):
            found += [tensors[name] for name in node.input[1:] if name in tensors]
        for attribute in node.attribute:
            if attribute.name == "else_branch":
                found += _kernels(attribute.g, tensors)
    return found
