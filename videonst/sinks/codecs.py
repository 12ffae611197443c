"""Which video codecs can be written, and what FFmpeg's encoder for each takes: one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from videonst.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A video codec as users name it, and how FFmpeg's encoder for it is told what they want.

    Attributes:
        encoder: FFmpeg's name.
        muxers: FFmpeg's names of the containers that hold it.
        pixel_formats: to choose from, those with less chroma first.
        alpha_muxers: the containers that also hold its transparency.
        quality: the option that `crf` sets, None where the codec has no such choice.
        crf, best, worst: default and ends of `quality`, as users count it.
        unit: what the encoder counts for one of it.
        presets: fastest first; empty where there are none.
        preset: the default.
        preset_option: the option that `preset` sets.
        fixed: further options.
        any_size: 4:2:0 with odd sides is no obstacle.
        interval: seconds from one picture to the next, at least.
        tag: in MP4 and MOV, where players want another than FFmpeg's.
    """

    encoder: str
    muxers: tuple[str, ...]
    pixel_formats: tuple[str, ...]
    alpha_muxers: tuple[str, ...] = ()
    quality: str | None = None
    crf: float = 0
    best: float = 0
    worst: float = 0
    unit: int = 1
    presets: tuple[str, ...] = ()
    preset: str = ""
    preset_option: str = "preset"
    fixed: Mapping[str, str] = field(default_factory=dict)
    any_size: bool = False
    interval: Fraction = Fraction(0)
    tag: str = ""


_X264_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_YUV = ("yuv420p", "yuv422p", "yuv444p")
_MPEG = ("mp4", "mov", "matroska", "mpegts", "nut")
_AV1 = ("mp4", "matroska", "webm")
_NVENC = Codec(
    encoder="h264_nvenc", muxers=_MPEG, pixel_formats=("yuv420p", "yuv444p"), fixed={"rc": "vbr", "b": "0"},
    quality="cq", crf=19, worst=51, presets=tuple(f"p{number}" for number in range(1, 8)), preset="p5",
)  # fmt: skip
_QSV = Codec(
    encoder="h264_qsv", muxers=_MPEG, pixel_formats=("nv12",),
    quality="global_quality", crf=20, best=1, worst=51, presets=_X264_PRESETS[2:-1], preset="medium",
)  # fmt: skip
_VIDEOTOOLBOX = Codec(
    encoder="h264_videotoolbox", muxers=_MPEG, pixel_formats=("yuv420p",), fixed={"flags": "+qscale"},
    quality="global_quality", crf=65, best=100, worst=1, unit=118,
)  # fmt: skip
"""Its quality is counted upwards, as with ffmpeg's `-q:v`, of which FFmpeg makes 118 each (`FF_QP2LAMBDA`)."""

_GIF_INTERVAL = Fraction(2, 100)
"""GIF counts in 1/100 s, and players show a picture of less than two of them for ten."""

CODECS: dict[str, Codec] = {
    "h264": Codec(
        encoder="libx264", muxers=_MPEG, pixel_formats=_YUV,
        quality="crf", crf=18, worst=51, presets=_X264_PRESETS, preset="veryfast",
    ),
    "hevc": Codec(
        encoder="libx265", muxers=_MPEG, pixel_formats=_YUV, tag="hvc1",
        quality="crf", crf=20, worst=51, presets=_X264_PRESETS, preset="veryfast",
        fixed={"x265-params": "log-level=error"},
    ),
    "av1": Codec(
        encoder="libsvtav1", muxers=_AV1, pixel_formats=("yuv420p",), any_size=True,
        quality="crf", crf=25, worst=63, presets=tuple(map(str, range(13, -1, -1))), preset="8",
    ),
    "vp9": Codec(
        encoder="libvpx-vp9", muxers=("webm", "matroska", "mp4"), any_size=True,
        pixel_formats=(*_YUV, "yuva420p"), alpha_muxers=("webm", "matroska"),
        quality="crf", crf=24, worst=63, presets=("realtime", "good", "best"), preset="good", preset_option="deadline",
        fixed={"b": "0", "cpu-used": "4", "row-mt": "1"},
    ),
    "prores": Codec(
        encoder="prores_ks", muxers=("mov", "matroska"),
        pixel_formats=("yuv422p10le", "yuv444p10le", "yuva444p10le"), alpha_muxers=("mov", "matroska"),
        presets=("proxy", "lt", "standard", "hq", "4444", "4444xq"), preset="auto", preset_option="profile",
        fixed={"vendor": "apl0"},
    ),
    "ffv1": Codec(
        encoder="ffv1", muxers=("matroska", "nut"), pixel_formats=("bgr0", "bgra"), alpha_muxers=("matroska", "nut"),
        fixed={"level": "3", "slicecrc": "1"},
    ),
    "gif": Codec(
        encoder="gif", muxers=("gif",), pixel_formats=("pal8",), alpha_muxers=("gif",), interval=_GIF_INTERVAL
    ),
    "h264_nvenc": _NVENC,
    "hevc_nvenc": replace(_NVENC, encoder="hevc_nvenc", tag="hvc1"),
    "av1_nvenc": replace(_NVENC, encoder="av1_nvenc", muxers=_AV1, pixel_formats=("yuv420p",)),
    "h264_qsv": _QSV,
    "hevc_qsv": replace(_QSV, encoder="hevc_qsv", tag="hvc1"),
    "av1_qsv": replace(_QSV, encoder="av1_qsv", muxers=_AV1),
    "h264_videotoolbox": _VIDEOTOOLBOX,
    "hevc_videotoolbox": replace(_VIDEOTOOLBOX, encoder="hevc_videotoolbox", tag="hvc1"),
}  # fmt: skip
"""By the names that users give. The first seven are software and work everywhere."""

DEFAULT_CODEC = "h264"
DEFAULT_CODECS = {"webm": "vp9", "gif": "gif"}
"""By container, where `DEFAULT_CODEC` does not fit."""


def parse_options(pairs: Sequence[str]) -> dict[str, str]:
    """From `key=value` each, as on the command line.

    Raises:
        InputError: no `=`, or a key given twice.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in options:
            raise InputError(f"cannot read {pair!r} as an encoder option; expected KEY=VALUE, each key once")
        options[key] = value
    return options
