"""What a model file says about itself, in the ONNX `metadata_props`: any consumer can build a slider from it.

Every value is JSON under its own key: `format`, `tier`, `styles`, `size`, `training`, `opset`, `precision`, `parity`
and `held`. From Python, `onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map` gives the same.
"""

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from videonst.errors import InputError

FORMAT = 1
"""Number of this layout of keys; a reader refuses a higher one."""

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class LearntInfo:
    """How a style was added to a trained network.

    Attributes:
        pictures: file names of what it was learnt from, without folders.
        base: fingerprint of the network that it was learnt on, see `videonst.bank.StyleBank.base`.
        features: perceptual network, "vgg19" or "compact".
        content: what was repainted while learning, in words.
        steps, seconds: of the work, for all styles learnt at once together.
        strength, stroke_size, seed: as asked for.
        score: content loss + weighted style loss at the end; lower is better, with the same features only.
    """

    pictures: tuple[str, ...]
    base: str
    features: str
    content: str
    steps: int
    seconds: float
    strength: float
    stroke_size: str
    seed: int
    score: float


@dataclass(frozen=True, kw_only=True)
class StyleInfo:
    """A style as users see it.

    Attributes:
        name: what is typed in a style mixture.
        title, artist, year, licence: of the painting; "unknown" where unknown.
        thumbnail: data URI (`data:image/jpeg;base64,…`) of a standard picture in this style; empty where none.
        learnt: of a style that was added to a trained network.
    """

    name: str
    title: str = "unknown"
    artist: str = "unknown"
    year: str = "unknown"
    licence: str = "unknown"
    thumbnail: str = field(default="", repr=False)
    learnt: LearntInfo | None = None


@dataclass(frozen=True, kw_only=True)
class SizeRules:
    """Which frames a model takes: sides of at least `minimum` pixels that `multiple` divides."""

    minimum: int = 16
    multiple: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainingInfo:
    """Where the weights come from.

    Attributes:
        recipe: hyper-parameters, as in the recipe file.
        steps: optimiser steps done.
        commit: of the source that trained them.
        data: the photographs, in words.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    commit: str = "unknown"
    data: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Difference to the torch network in fp32 at one size, over several mixtures, in levels of 8 bit.

    Attributes:
        height, width: of the frames, pixels.
        maximum, mean: absolute difference.
        p99_9: 99.9th percentile of the absolute difference.
        over_one: share of the values that differ by more than one level, 0 to 1.
    """

    height: int
    width: int
    maximum: int
    mean: float
    p99_9: float
    over_one: float


@dataclass(frozen=True, kw_only=True)
class HeldGraph:
    """A second graph, for frames whose normalisation statistics are held entirely, so that the frame's own need not be
    computed: inputs `frame`, `style_weights` and `statistics`, output `stylized`; see `held_model`.

    Attributes:
        model: the ONNX model without the weights that it has in common with the file, in base64.
        weights: their names.
    """

    model: str = field(repr=False)
    weights: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """Everything that a model file says about itself.

    Attributes:
        tier: size of the network.
        styles: in slot order from 1; slot 0 of `style_weights` is the photograph.
        size: which frames it takes.
        training: where the weights come from.
        opset: version of the ONNX operators.
        precision: arithmetic of the convolutions, "fp32", "fp16" or "int8".
        parity: measured when it was exported.
        held: a quicker graph for most frames of a film; None in 8-bit files, whose graph has a branch for them.
    """

    tier: str
    styles: tuple[StyleInfo, ...]
    size: SizeRules = SizeRules()
    training: TrainingInfo = field(default_factory=TrainingInfo)
    opset: int
    precision: str
    parity: tuple[Parity, ...] = ()
    held: HeldGraph | None = None

    def __post_init__(self) -> None:
        names = self.style_names
        if not names or len(set(names)) < len(names) or not all(isinstance(n, str) and n for n in names):
            raise InputError(f"a model needs one style or more, each with its own name; got {list(names)}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}, expected {' or '.join(PRECISIONS)}")

    @property
    def style_names(self) -> tuple[str, ...]:
        return tuple(style.name for style in self.styles)

    def to_properties(self) -> dict[str, str]:
        """As `metadata_props`: every value JSON."""
        values = {"format": FORMAT} | dataclasses.asdict(self)
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], origin: str) -> Self:
        """Inverse of `to_properties`.

        Args:
            properties: `metadata_props`; keys that are not ours are passed over.
            origin: file name for the messages.

        Raises:
            InputError: no videonst model, a newer format, or a value that is not as described here.
        """
        if not {"format", "tier", "styles"} <= properties.keys():
            raise InputError(f"{origin} is not a videonst model; expected an .onnx file made by `videonst export`")
        try:
            known = ("format", *(f.name for f in dataclasses.fields(cls)))
            # Files of before there was one hold no `held`.
            values = {key: json.loads({"held": "null", **properties}[key]) for key in known}
            held = values["held"]
            version = values.pop("format")
            if not isinstance(version, int) or version > FORMAT:
                raise InputError(f"{origin} has model format {version}, this version reads {FORMAT}; upgrade videonst")
            return cls(
                **values
                | {
                    "styles": tuple(_style(style) for style in values["styles"]),
                    "size": SizeRules(**values["size"]),
                    "training": TrainingInfo(**values["training"]),
                    "parity": tuple(Parity(**parity) for parity in values["parity"]),
                    "held": held and HeldGraph(**held | {"weights": tuple(held["weights"])}),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the metadata of {origin} is damaged ({error!r}); export the model again") from error


def read_metadata(path: Path) -> ModelMetadata:
    """Reads what a model file says about itself, passing over the weights: no ONNX library, a few disk reads.

    Raises:
        InputError: missing or unreadable file, no ONNX file, no videonst model.
    """
    try:
        with path.open("rb") as file:
            properties = dict(_properties(file))
    except OSError as error:
        raise InputError(f"cannot read the model {path}: {error.strerror}") from error
    except (EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not an ONNX file; expected a model made by `videonst export`") from error
    return ModelMetadata.from_properties(properties, str(path))


def held_model(path: Path, held: HeldGraph) -> bytes:
    """The second graph of a model file, as ONNX Runtime opens it: two messages of protocol buffers one after the other
    are one message with the fields of both, so that the file's weights are put behind the graph's own.

    Raises:
        InputError: the file is gone, cut short, or holds not all of them.
    """
    try:
        with path.open("rb") as file:
            found = dict(_initialisers(file))
        shared = b"".join(_message(_INITIALIZER, found[name]) for name in held.weights)
        return base64.b64decode(held.model, validate=True) + _message(_GRAPH, shared)
    except OSError as error:
        raise InputError(f"cannot read the model {path}: {error.strerror}") from error
    except (EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error!r}); export the model again") from error


def _style(values: Mapping[str, Any]) -> StyleInfo:
    learnt = values.get("learnt")
    if learnt is not None:
        learnt = LearntInfo(**learnt | {"pictures": tuple(learnt["pictures"])})
    return StyleInfo(**{**values, "learnt": learnt})


# The wire format of protocol buffers (protobuf.dev/programming-guides/encoding) and the field numbers of onnx.proto.
_GRAPH, _METADATA_PROPS = 7, 14
_KEY, _VALUE = 1, 2
_INITIALIZER, _NAME = 5, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _properties(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Key and value of every `metadata_props` entry of a serialised ModelProto."""
    size = file.seek(0, 2)
    for number, start, length in list(_fields(file, 0, size)):
        if number == _METADATA_PROPS:
            texts = {}
            for inner, inner_start, inner_length in list(_fields(file, start, start + length)):
                file.seek(inner_start)
                texts[inner] = file.read(inner_length).decode()
            yield texts[_KEY], texts.get(_VALUE, "")


def _initialisers(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Name of every initialiser of a serialised ModelProto, and its TensorProto."""
    size = file.seek(0, 2)
    for number, start, length in list(_fields(file, 0, size)):
        for inner, inner_start, inner_length in list(_fields(file, start, start + length)) if number == _GRAPH else ():
            if inner != _INITIALIZER:
                continue
            parts = list(_fields(file, inner_start, inner_start + inner_length))
            name_start, name_length = next((begin, count) for part, begin, count in parts if part == _NAME)
            file.seek(name_start)
            name = file.read(name_length).decode()
            file.seek(inner_start)
            yield name, file.read(inner_length)


def _message(number: int, content: bytes) -> bytes:
    """A field that holds bytes or another message."""
    head, left = bytearray([number << 3 | _BYTES]), len(content)
    while left >= 0x80:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*head, left]) + content


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and length of each field of a message; the length of a number is 0."""
    file.seek(start)
    while file.tell() < end:
        tag = _varint(file)
        kind, length = tag & 7, 0
        if kind == _VARINT:
            _varint(file)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, 1)
        elif kind == _BYTES:
            length = _varint(file)
        else:
            raise ValueError(f"wire type {kind}")
        begin = file.tell()
        if begin + length > end:
            raise EOFError
        yield tag >> 3, begin, length
        file.seek(begin + length)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than 64 bits")
