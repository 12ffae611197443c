"""Colour on the way in and out: the oracle is the definition of matrix, range and transfer function in H.273."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import smooth_picture, yuv_frame, yuv_from_rgb

from videonst.errors import InputError
from videonst.frame import ColourTags
from videonst.sinks import open_sink
from videonst.sources import open_source

SDR = (1, 6, 9)
PQ, HLG = 16, 18
FORMATS = [f"yuv4{chroma}p{depth}" for chroma in ("20", "22", "44") for depth in ("", "10le", "12le")]


def lossless_clip(path: Path, pictures: list[av.VideoFrame], tags: tuple[int, int, int, int]) -> Path:
    """FFV1 with these pictures, tagged (matrix, primaries, transfer, range)."""
    with av.open(str(path), "w") as output:
        first = pictures[0]
        stream = output.add_stream("ffv1", rate=25, width=first.width, height=first.height, pix_fmt=first.format.name)
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        for index, picture in enumerate(pictures):
            picture.pts, picture.time_base = index, Fraction(1, 25)
            picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range = tags
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", SDR)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_every_depth_and_subsampling_is_read(tmp_path, pixel_format, matrix, full_range):
    picture = smooth_picture(64, 48)
    stored = yuv_frame(picture, pixel_format, matrix, full_range)
    path = lossless_clip(tmp_path / "clip.mkv", [stored], (matrix, 9, 14, 1 + full_range))
    with open_source(path) as source:
        (frame,) = source
    assert frame.colour == ColourTags(matrix, 9, 14, full_range)
    difference = frame.pixels.astype(int) - picture
    assert np.abs(difference).mean() < 0.8
    cast = np.abs(difference.mean(axis=(0, 1))).max()
    assert cast < (0.8 if full_range and pixel_format[-2:] == "le" else 0.3)  # swscale takes 1020 for full, not 1023


def hdr_picture(light: np.ndarray, transfer: int, peak: float = 1000) -> av.VideoFrame:
    """Light of BT.709 primaries in cd/m², (height, width, 3), as BT.2020 in PQ or HLG on a display of `peak`."""
    scene = light @ BT709_TO_BT2020.T
    if transfer == PQ:  # SMPTE ST 2084
        y = (scene / 10000) ** (2610 / 16384)
        coded = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    else:  # ARIB STD-B67, the display's gamma of 1.2 undone on the luminance
        luminance = scene @ [0.2627, 0.6780, 0.0593]
        e = scene / peak * np.maximum(luminance / peak, 1e-9)[..., None] ** (1 / 1.2 - 1)
        bright = 0.17883277 * np.log(np.maximum(12 * e, 0.3) - 0.28466892) + 0.55991073
        coded = np.where(e <= 1 / 12, np.sqrt(3 * e), bright)
    return yuv_frame(coded * 255, "yuv444p10le", 9, False)


BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
GREYS = (0, 1, 5, 20, 50, 100, 203, 400, 700, 1000)
"""cd/m²; 203 is the reference white of BT.2408."""


def patches(*light: tuple[float, float, float]) -> np.ndarray:
    """Squares of 8 pixels, side by side."""
    return np.array(light, float)[None].repeat(8, axis=1).repeat(8, axis=0)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_is_mapped_to_sdr(tmp_path, transfer, caplog):
    colours = ((60, 10, 10), (10, 60, 10), (10, 10, 60), (60, 50, 40))
    picture = hdr_picture(patches(*((grey,) * 3 for grey in GREYS), *colours), transfer)
    path = lossless_clip(tmp_path / "clip.mkv", [picture], (9, 9, transfer, 1))
    with open_source(path) as source:
        (frame,) = source
    assert f"is HDR ({'PQ' if transfer == PQ else 'HLG'}); its colours are mapped to SDR" in caplog.text
    assert frame.colour == ColourTags(1, 1, 1)
    middles = frame.pixels[4, 4::8].astype(int)
    grey, colour = middles[: len(GREYS)], middles[len(GREYS) :]
    assert np.ptp(grey, axis=1).max() <= 1  # grey stays grey
    assert (np.diff(grey[:, 1]) > 0).all()  # brighter stays brighter
    assert grey[0, 1] == 0
    assert grey[-1, 1] >= 253
    assert 150 < grey[GREYS.index(203), 1] < 200  # BT.2390 has 58 % of PQ, that is 180, on a display of 100 cd/m²
    assert [int(c.argmax()) for c in colour] == [0, 1, 2, 0]
    assert (colour[3] > 90).all()
    # as saturated as it was: the ratio of the least to the most of the light, on a display of gamma 2.4
    ratios = (colour.min(axis=1) / colour.max(axis=1)) ** 2.4
    assert ratios == pytest.approx([1 / 6, 1 / 6, 1 / 6, 2 / 3], abs=0.1)
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.write(frame)
    with open_source(tmp_path / "out.mp4") as source:
        assert next(iter(source)).colour == ColourTags(1, 1, 1, False)


def test_hdr_is_refused_on_request(tmp_path):
    path = lossless_clip(tmp_path / "clip.mkv", [hdr_picture(patches((100, 100, 100)), HLG)], (9, 9, HLG, 1))
    with pytest.raises(InputError, match=r"clip\.mkv is HDR \(HLG\); allow it to be mapped to SDR with --hdr tonemap"):
        open_source(path, hdr="error")
    with pytest.raises(InputError, match="cannot treat HDR by 'maybe'; expected one of tonemap, error"):
        open_source(path, hdr="maybe")


def test_sdr_warns_of_nothing(tmp_path, caplog):
    picture = yuv_frame(smooth_picture(64, 48), "yuv420p10le", 9, False)
    path = lossless_clip(tmp_path / "clip.mkv", [picture], (9, 9, 14, 1))
    with open_source(path, hdr="error") as source:
        list(source)
    assert not caplog.records


@pytest.mark.parametrize("codec", ["ffv1", "mjpeg"])
def test_chroma_is_taken_from_where_it_is(tmp_path, codec):
    """A red that grows from left to right: half a pixel further on, it would be off by a level more everywhere."""
    ramp = np.zeros((48, 64, 3), np.uint8)
    ramp[..., 0] = 30 + 3 * np.arange(64)
    ramp[..., 1] = ramp[..., 2] = 100
    full_range = codec == "mjpeg"
    frame = yuv_frame(ramp, "yuvj420p" if full_range else "yuv420p", 6, full_range)
    if codec == "mjpeg":  # between the columns
        chroma = yuv_from_rgb(ramp, 6, True)[..., 1:].reshape(24, 2, 32, 2, 2).mean(axis=(1, 3))
        for plane, values in zip(frame.planes[1:], np.moveaxis(chroma, -1, 0), strict=True):
            padded = np.zeros((plane.height, plane.line_size), np.uint8)
            padded[:, :32] = np.rint(values)
            plane.update(padded.tobytes())
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as output:
        options = {"flags": "+qscale", "global_quality": "118"} if codec == "mjpeg" else {}
        stream = output.add_stream(codec, rate=25, options=options, width=64, height=48, pix_fmt=frame.format.name)
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1 + full_range
        frame.colorspace, frame.color_range, frame.pts, frame.time_base = 6, 1 + full_range, 0, Fraction(1, 25)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with open_source(path) as source:
        (read,) = source
    bias = (read.pixels.astype(int) - ramp)[:, 8:-8].mean(axis=(0, 1))
    assert np.abs(bias).max() < (1.6 if full_range else 0.4)  # swscale rounds full-range chroma down
