"""videonst: repaint moving pictures in the style of a painting.

>>> import videonst
>>> model = videonst.load("fast")                                        # doctest: +SKIP
>>> painted = model.stylize(image, "starry_night:0.7, great_wave:0.3")   # doctest: +SKIP
>>> videonst.convert("in.mp4", "out.mp4", style="the_scream")            # doctest: +SKIP
>>> videonst.learn("painting.jpg", "my-styles.onnx", into="fast")        # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videonst.errors import InputError, VideoNSTError
from videonst.frame import Frame
from videonst.styles import StyleMix

if TYPE_CHECKING:
    from videonst.api import Stylizer, convert, load
    from videonst.export.learnt import learn

__version__ = "0.1.0"
__all__ = ["Frame", "InputError", "StyleMix", "Stylizer", "VideoNSTError", "convert", "learn", "load"]


def __getattr__(name: str) -> Any:
    """Loads what needs ONNX Runtime, OpenCV, PyAV or torch only when it is used, so that `import videonst` is quick.

    Raises:
        InputError: torch is needed, but not installed.
    """
    if name in {"Stylizer", "convert", "load"}:
        return getattr(import_module("videonst.api"), name)
    if name == "learn":
        try:
            return import_module("videonst.export.learnt").learn
        except ModuleNotFoundError as error:
            raise InputError(f"learning a style needs {error.name}; run: pip install 'videonst[train]'") from error
    raise AttributeError(f"module 'videonst' has no attribute {name!r}")
