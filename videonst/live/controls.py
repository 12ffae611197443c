"""What can be turned while it runs. The window, the page and the HTTP API all drive the same controls."""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from videonst.errors import InputError
from videonst.styles import MAX_STRENGTH, StyleMix
from videonst.temporal import DEFAULT_STEADY

_log = logging.getLogger(__name__)

AUTO = "auto"
"""Model that the quality controller chooses."""

MIN_LINES, MAX_LINES = 64, 2160
"""Working sizes that can be pinned, lines."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The position of every control at one moment.

    Attributes:
        shares: slider of each style in the model's order, 0 to 1; all at 0 is the untouched picture.
        strength: 0 = untouched, 1 = as trained, up to `MAX_STRENGTH`.
        steady: how strongly frames are tied to the ones before, 0 to 1.
        keep_colour: keep the colours of the input.
        model: name of the model, or `AUTO`.
        lines: working size, the shorter side in pixels; None = automatic.
    """

    shares: tuple[tuple[str, float], ...]
    strength: float = 1.0
    steady: float = DEFAULT_STEADY
    keep_colour: bool = False
    model: str = AUTO
    lines: int | None = None

    @cached_property
    def mix(self) -> StyleMix:
        """As the engine takes it."""
        total = sum(share for _, share in self.shares)
        if not total:
            return StyleMix(((self.shares[0][0], 1.0),), 0.0, self.keep_colour)
        parts = tuple((name, share / total) for name, share in self.shares if share > 0)
        return StyleMix(parts, self.strength, self.keep_colour)


class Controls:
    """The settings, to be read and changed from any thread; a change takes effect on the next frame.

    Args:
        styles: names in the model's order.
        mix: where the sliders stand at first; None sets the first style.
        steady, model, lines: see `Settings`.
        models: names that `model` may take besides `AUTO`; empty allows any.

    Attributes:
        styles: as given.
        models: as given.

    Raises:
        InputError: a value out of range or a name that is not known.
    """

    def __init__(
        self,
        styles: Sequence[str],
        mix: StyleMix | None = None,
        *,
        steady: float = DEFAULT_STEADY,
        model: str = AUTO,
        lines: int | None = None,
        models: Sequence[str] = (),
    ) -> None:
        self.styles, self.models = tuple(styles), tuple(models)
        mix = mix or StyleMix(((self.styles[0], 1.0),))
        mix.weights(self.styles)  # an unknown style is refused with the nearest names
        self._lock = threading.Lock()
        self._revision = 0
        self._settings = Settings(shares=self._sliders(dict(mix.shares)))
        self.change(
            strength=mix.strength, steady=steady, keep_colour=mix.keep_colour, model=model, lines=lines
        )  # checks the values

    def read(self) -> Settings:
        return self._settings

    @property
    def revision(self) -> int:
        """Grows with every change, so that a viewer knows when to look again."""
        return self._revision

    def change(
        self,
        *,
        shares: Mapping[str, float] | None = None,
        strength: float | None = None,
        steady: float | None = None,
        keep_colour: bool | None = None,
        model: str | None = None,
        lines: int | str | None = "",
    ) -> Settings:
        """Sets what is given and leaves the rest, all at once or, where a value is refused, not at all.

        Args:
            shares: slider of each style, 0 to 1; styles that are not named go to 0.
            strength, steady, keep_colour, model: see `Settings`.
            lines: see `Settings`; None or `AUTO` returns to automatic.

        Returns:
            The settings after the change.

        Raises:
            InputError: a value out of range or a name that is not known.
        """
        changes: dict[str, object] = {}
        if shares is not None:
            changes["shares"] = self._sliders(shares)
        if strength is not None:
            changes["strength"] = _within("strength", strength, MAX_STRENGTH)
        if steady is not None:
            changes["steady"] = _within("steadiness", steady, 1)
        if keep_colour is not None:
            changes["keep_colour"] = bool(keep_colour)
        if model is not None:
            if self.models and model not in (AUTO, *self.models):
                raise InputError(f"unknown model {model!r}; expected one of {', '.join((AUTO, *self.models))}")
            changes["model"] = model
        if lines != "":
            changes["lines"] = _lines(lines)
        with self._lock:
            return self._set(changes)

    def adopt(self, styles: Sequence[str], models: Sequence[str]) -> Settings:
        """Takes over what other models hold: sliders of styles that are no more go, new ones stand at 0."""
        with self._lock:
            self.styles, self.models = tuple(styles), tuple(models)
            shares = {name: share for name, share in self._settings.shares if name in self.styles}
            model = self._settings.model if self._settings.model in self.models else AUTO
            return self._set({"shares": self._sliders(shares), "model": model})

    def set_share(self, style: str, share: float) -> Settings:
        """Moves one slider, 0 to 1.

        Raises:
            InputError: an unknown style, or a value out of range.
        """
        with self._lock:
            return self._set({"shares": self._sliders(dict(self._settings.shares) | {style: share})})

    def step_style(self, step: int) -> Settings:
        """Leaves the strongest style of the mixture for the one `step` places further, alone; the last is followed by
        the first."""
        with self._lock:
            shares = [share for _, share in self._settings.shares]
            index = (shares.index(max(shares)) + step) % len(shares)
            return self._set({"shares": self._sliders({self.styles[index]: 1.0})})

    def toggle_keep_colour(self) -> Settings:
        with self._lock:
            return self._set({"keep_colour": not self._settings.keep_colour})

    def _set(self, changes: Mapping[str, object]) -> Settings:
        self._settings = replace(self._settings, **changes)  # type: ignore[arg-type]
        self._revision += 1
        _log.debug("%s", self._settings)
        return self._settings

    def _sliders(self, shares: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
        for name, share in shares.items():
            StyleMix(((name, 1.0),)).weights(self.styles)
            _within(f"the share of {name}", share, 1)
        return tuple((name, float(shares.get(name, 0.0))) for name in self.styles)


def _within(what: str, value: float, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{what} is {value!r}; expected a number from 0 to {maximum:g}")
    if not 0 <= value <= maximum:
        raise InputError(f"{what} is {value:g}; expected 0 to {maximum:g}")
    return float(value)


def _lines(lines: int | str | None) -> int | None:
    if lines is None or lines == AUTO:
        return None
    if isinstance(lines, bool) or not isinstance(lines, int) or not MIN_LINES <= lines <= MAX_LINES:
        raise InputError(f"the working size is {lines!r}; expected {AUTO} or {MIN_LINES} to {MAX_LINES} lines")
    return lines
