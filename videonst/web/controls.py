"""The controls of one session as its page and the HTTP API see them: JSON in and out, and who hears of changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videonst.errors import InputError
from videonst.live.controls import AUTO, Controls
from videonst.styles import StyleMix
from videonst.web.picture import FORMATS

_QUALITIES = range(1, 101)


@dataclass(frozen=True)
class Encoding:
    """How frames are sent to the browser: format "jpeg" or "webp", and its quality, 1 to 100."""

    format: str = "jpeg"
    quality: int = 80


class Board:
    """The controls of one session or of the server's source. Changed in the event loop; read from any thread.

    Args:
        controls: of this board alone.

    Attributes:
        controls: as given.
        encoding: of the frames.
        revision: counts the changes. Read before the controls, it says the least that they contain.
    """

    def __init__(self, controls: Controls) -> None:
        self.controls = controls
        self.encoding = Encoding()
        self.revision = 0
        self._listeners: list[Callable[[], None]] = []

    def change(self, changes: Mapping[str, Any]) -> None:
        """Takes effect on the next frame: all of it or, where something is refused, nothing.

        Args:
            changes: any of the keys of `as_json`. `mix` may also be text, "starry_night:0.7, great_wave:0.3".

        Raises:
            InputError: an unknown key, style or model, or a value of the wrong kind or out of range.
        """
        known = self.as_json().keys()
        if unknown := changes.keys() - known:
            raise InputError(f"unknown control {', '.join(sorted(unknown)):.80}; expected {', '.join(known)}")
        rest = {name: value for name, value in changes.items() if name not in ("mix", "format", "quality")}
        if "mix" in changes:
            rest["shares"] = _shares(changes["mix"])
        for name, value in rest.items():
            _check_kind(name, value)
        encoding = _encoding(self.encoding, changes)
        self.controls.change(**rest)
        self.encoding = encoding
        self._tell()

    def _tell(self) -> None:
        self.revision += 1
        for listener in list(self._listeners):
            listener()

    def adopt(self, styles: Sequence[str], models: Sequence[str]) -> None:
        """See `Controls.adopt`."""
        self.controls.adopt(styles, models)
        self._tell()

    def as_json(self) -> dict[str, Any]:
        settings, encoding = self.controls.read(), self.encoding
        return {
            "mix": {name: share for name, share in settings.shares if share},
            "strength": settings.strength,
            "steady": settings.steady,
            "keep_colour": settings.keep_colour,
            "model": settings.model,
            "lines": AUTO if settings.lines is None else settings.lines,
            "format": encoding.format,
            "quality": encoding.quality,
        }

    def copy(self, controls: Controls) -> "Board":
        """Another board that starts where this one stands, with fresh `controls`."""
        board = Board(controls)
        board.change(self.as_json())
        return board

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after every change, until the function that is returned here is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def _shares(mix: Any) -> dict[str, float]:
    if isinstance(mix, str):
        return dict(StyleMix.parse(mix).shares)
    if not isinstance(mix, dict):
        raise InputError(f'mix is {mix!r:.60}; expected {{"NAME": SHARE}} or "NAME:SHARE, NAME:SHARE"')
    return mix


def _check_kind(name: str, value: Any) -> None:
    """What `Controls.change` would take for something else: JSON's null, and what is merely true in Python's eyes."""
    if value is None or (name == "keep_colour" and not isinstance(value, bool)):
        raise InputError(f"{name} is {value!r:.60}; expected {'true or false' if name == 'keep_colour' else 'a value'}")
    if name == "model" and not isinstance(value, str):
        raise InputError(f"model is {value!r:.60}; expected a name")


def _encoding(now: Encoding, changes: Mapping[str, Any]) -> Encoding:
    form, quality = changes.get("format", now.format), changes.get("quality", now.quality)
    if form not in FORMATS:
        raise InputError(f"format is {form!r:.60}; expected {' or '.join(FORMATS)}")
    if isinstance(quality, bool) or not isinstance(quality, int) or quality not in _QUALITIES:
        raise InputError(f"quality is {quality!r:.60}; expected a whole number from 1 to 100")
    return Encoding(form, quality)
