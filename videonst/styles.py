"""Style mixtures: the one grammar for them, used by the command line, the Python API and the server."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videonst.errors import InputError

MAX_STRENGTH = 2.0
"""Beyond the painting's own strength the network extrapolates; past twice it only breaks."""


_NAME = re.compile(r"[\w.-]+")
"""What a mixture can name: no comma, colon or space."""


@dataclass(frozen=True)
class StyleMix:
    """A mixture of styles and how strongly it is applied.

    Attributes:
        shares: (style name, share) pairs; shares above 0, summing to 1, every name once.
        strength: 0 = the untouched photograph, 1 = as trained, up to `MAX_STRENGTH`.
        keep_colour: keep the photograph's colours and take only the painting's luma (Gatys et al. 2017).
    """

    shares: tuple[tuple[str, float], ...]
    strength: float = 1.0
    keep_colour: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise InputError(f"strength {self.strength:g} is out of range; expected 0 (photograph) to {MAX_STRENGTH:g}")

    @classmethod
    def parse(cls, text: str, *, strength: float = 1.0, keep_colour: bool = False) -> "StyleMix":
        """Reads `name` or `name:share, name:share …`; a missing share is 1, and shares are normalised to sum 1. A name
        may be the path of a picture; only what follows the last colon is taken for a share (`C:\\monet.jpg:0.7`). A
        path with commas is read as meant where it stands alone and the picture exists.

        Raises:
            InputError: an empty text, a share that is no positive number, a name given twice.
        """
        shares: dict[str, float] = {}
        is_file = "," in text and is_picture(text) and Path(text).expanduser().is_file()
        for item in [text] if is_file else [piece.strip() for piece in text.split(",")]:
            name, colon, number = (part.strip() for part in item.rpartition(":"))
            if not colon or (is_picture(item) and is_picture(number)):  # C:\\monet.jpg
                name, colon, number = item, "", ""
            try:
                share = float(number) if number else 1.0
            except ValueError:
                share = math.nan
            if not name or not math.isfinite(share) or share < 0 or (colon and not number):
                raise InputError(f"cannot read {item!r} in style {text!r}; expected NAME or NAME:SHARE, with commas")
            if name in shares:
                raise InputError(f"style {name!r} is named twice in {text!r}")
            shares[name] = share
        total = sum(shares.values())
        if not 0 < total < math.inf:
            raise InputError(f"the shares in {text!r} sum to {total:g}; at least one must be above 0")
        return cls(tuple((n, s / total) for n, s in shares.items() if s > 0), strength, keep_colour)

    def with_strength(self, strength: float) -> "StyleMix":
        return replace(self, strength=strength)

    def weights(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """The network's weight vector, (1, len(names) + 1): slot 0 is the photograph, slot i + 1 is `names[i]`.

        Sums to 1; slot 0 is negative where the strength is above 1.

        Raises:
            InputError: a style that `names` does not hold; the nearest names are offered.
        """
        weights = np.zeros((1, len(names) + 1), np.float32)
        weights[0, 0] = 1 - self.strength
        for name, share in self.shares:
            if name not in names and is_picture(name):
                raise InputError(
                    f"{name} is a picture, but models paint only what they learnt; use --engine optimise, or teach "
                    "it to a model with `videonst learn`"
                )
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
                hint = f"did you mean {' or '.join(near)}?" if near else f"the styles are {', '.join(names)}"
                raise InputError(f"unknown style {name!r}; {hint}")
            weights[0, 1 + list(names).index(name)] = share * self.strength
        return weights

    def __str__(self) -> str:
        return ", ".join(f"{n}:{s:.3g}" if len(self.shares) > 1 else n for n, s in self.shares)


PICTURE_NAMES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif")


def is_picture(name: str) -> bool:
    """Whether a style is meant as the path of a picture rather than a name."""
    return "/" in name or "\\" in name or name.lower().endswith(PICTURE_NAMES)


def check_name(name: str) -> str:
    """The name, where it can stand in a mixture.

    Raises:
        InputError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a style; expected letters, digits and ._- only")
    return name
