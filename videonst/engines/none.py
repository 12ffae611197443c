"""The engine that paints nothing: frames pass untouched, which shows what the way through files alone does to them."""

from videonst.engines import EngineDescription
from videonst.engines.metadata import SizeRules
from videonst.frame import Frame
from videonst.styles import StyleMix


class NoneEngine:
    """Gives every frame back as it came."""

    description = EngineDescription(
        name="none", styles=(), size=SizeRules(minimum=1), device="no device", precision="untouched"
    )

    def stylize(self, frame: Frame, mix: StyleMix) -> Frame:
        """`frame` itself; `mix` is empty."""
        return frame
