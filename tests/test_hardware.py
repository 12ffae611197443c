"""Decoding by hardware, with a stand-in for it, which gives what PyAV brings back from a device (NV12, P010, as FFmpeg
crops it), made of the pictures that software decodes. The oracle is software. One test needs a GPU."""

import json
import logging
import os
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from av.codec.context import Flags2
from av.filter import Graph
from clips import VFR, display_matrix, make_clip, smooth_picture, yuv_frame
from test_alpha import transparent_clip
from test_deinterlace import interlaced_clip
from typer.testing import CliRunner

from videonst.api import convert
from videonst.bench import speed
from videonst.bench.speed_report import comparison, make_report, tables
from videonst.cli import app
from videonst.demo import CLIP
from videonst.errors import InputError, VideoNSTError
from videonst.sources import hardware, open_source
from videonst.trim import Trim

DOWNLOADED = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le", "yuv444p": "yuv444p"}
"""FFmpeg's CUDA frames, by what software decodes the same clip to."""


class StandIn:
    """A container, stream or decoder of PyAV's, but for what is set here."""

    def __init__(self, real, **ours):
        self.__dict__.update(ours, _real=real)

    def __getattr__(self, name):
        return getattr(self._real, name)

    def __setattr__(self, name, value):
        setattr(self._real, name, value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._real.close()


class Decoder(StandIn):
    """Of a device: its own format is the device's, and the pictures are those downloaded from there."""

    def __init__(self, real, download):
        super().__init__(real, is_hwaccel=True, pix_fmt="cuda", download=download)
        real.flags2 |= Flags2.ignore_crop

    def decode(self, packet):
        size = self._real.width, self._real.height
        return [self.download(cropped(picture, *size)) for picture in self._real.decode(packet)]


class Container(StandIn):
    def __init__(self, real, download):
        made = [StandIn(stream, codec_context=Decoder(stream.codec_context, download)) for stream in real.streams.video]
        super().__init__(real, streams=StandIn(real.streams, video=made))

    def demux(self, stream):
        return self._real.demux(stream._real)

    def seek(self, offset, stream):
        return self._real.seek(offset, stream=stream._real)


def cropped(picture, width, height):
    """As FFmpeg crops pictures in a device's memory: to the size, but from the left and the top."""
    if (picture.width, picture.height) == (width, height):
        return picture
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    crop = graph.add("crop", f"{width}:{height}:0:0:exact=1")
    graph.link_nodes(source, crop, graph.add("buffersink")).configure()
    graph.push(picture)
    return graph.pull()


def downloaded(picture):
    made = picture.reformat(format=DOWNLOADED[picture.format.name])
    made.colorspace = picture.colorspace  # swscale knows fewer
    return made


@pytest.fixture
def device(monkeypatch):
    """A device "cuda" that works. Returns the times at which it was opened; `download` of the result may be set."""
    opened = []
    ways = {"download": downloaded}
    really_open = av.open

    def open_container(file, *args, hwaccel=None, **options):
        container = really_open(file, *args, **options)
        if hwaccel is None:
            return container
        opened.append(file)
        return Container(container, lambda picture: ways["download"](picture))

    monkeypatch.setattr(av, "open", open_container)
    monkeypatch.setattr(hardware, "_try", lambda device: None)
    ways["opened"] = opened
    return ways


def read(path, hwaccel="cuda", trim=Trim(), **options):
    with open_source(path, trim, hwaccel=hwaccel, **options) as source:
        return list(source), source.info


def assert_as_in_software(path, trim=Trim()):
    (ours, about), (theirs, known) = read(path, trim=trim), read(path, None, trim)
    assert about == known
    assert about.damage.messages == known.damage.messages
    assert len(ours) == len(theirs)
    for frame, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(frame.pixels, expected.pixels)
        np.testing.assert_array_equal(frame.alpha, expected.alpha)
        assert (frame.pts, frame.duration, frame.time_base) == (expected.pts, expected.duration, expected.time_base)
        assert frame.colour == expected.colour


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "clip",
    [
        {"pts": VFR, "matrix": 1, "size": (70, 50)},
        {"pixel_format": "yuvj420p", "matrix": 6, "full_range": True, "display_matrix": display_matrix(0, 1, -1, 0)},
        {"codec": "libx265", "pixel_format": "yuv420p10le", "matrix": 9},
        {"codec": "libx265", "pixel_format": "yuv444p", "aspect_ratio": Fraction(4, 3)},
        {"codec": "mpeg2video", "pts": range(5), "time_base": Fraction(1, 25), "last_duration": 1},
        {"codec": "mjpeg", "pixel_format": "yuvj420p", "matrix": 6, "full_range": True},
    ],
    ids=lambda clip: clip.get("codec", "") + clip.get("pixel_format", ""),
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_everything_is_as_in_software(tmp_path, clip, suffix, device, caplog):
    path = make_clip(tmp_path / f"clip{suffix}", **clip)
    assert_as_in_software(path)
    assert device["opened"]
    assert not warnings(caplog)


def test_a_part_is_as_in_software(tmp_path, device):
    path = make_clip(tmp_path / "clip.mp4", pts=range(0, 2000, 40), keyframe_interval=10)
    assert_as_in_software(path, Trim.parse(0.9, 1.5))
    assert len(device["opened"]) == 2  # one to compare, one to read


def test_interlaced_is_as_in_software(tmp_path, device, caplog):
    assert_as_in_software(interlaced_clip(tmp_path / "clip.mp4"))
    assert device["opened"]
    assert caplog.text.count("is interlaced") == 2  # once in each run


def test_hdr_is_as_in_software(tmp_path, device, caplog):
    """The peak that the clip states decides how its tones are mapped."""
    path = tmp_path / "clip.mp4"
    peak = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(6000000,50)"
    with av.open(str(path), "w") as output:
        options = {"x265-params": f"log-level=error:crf=4:{peak}", "preset": "ultrafast"}
        video = output.add_stream("libx265", rate=25, options=options, width=64, height=64, pix_fmt="yuv420p10le")
        context = video.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, 16, 1
        picture = yuv_frame(smooth_picture(64, 64), "yuv420p10le", 9, False)
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        output.mux([*video.encode(picture), *video.encode(None)])
    assert_as_in_software(path)
    assert device["opened"]
    assert caplog.text.count("is HDR (PQ)") == 2


def test_missing_frames_are_counted_as_in_software(tmp_path, device, caplog):
    path = make_clip(tmp_path / "clip.mkv", pts=range(0, 4000, 40), size=(160, 120), keyframe_interval=10)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    assert_as_in_software(path)
    assert device["opened"]
    assert caplog.text.count("is damaged") == 2


def only_time(picture):
    """As PyAV 17 did it."""
    copy = av.VideoFrame.from_ndarray(picture.reformat(format="nv12").to_ndarray(), format="nv12")
    copy.pts, copy.time_base = picture.pts, picture.time_base
    return copy


def other_levels(picture):
    """A decoder that errs by one level in one place."""
    made = downloaded(picture)
    plane = np.frombuffer(made.planes[0], np.uint8).copy()
    plane[plane.size // 2] ^= 1
    made.planes[0].update(plane)
    return made


@pytest.mark.parametrize(
    ("download", "reason"),
    [
        (only_time, "says other things of its pictures"),
        (other_levels, "decodes it to other pictures"),
    ],
)
def test_what_would_be_lost_is_decoded_in_software(tmp_path, device, caplog, download, reason):
    device["download"] = download
    path = make_clip(tmp_path / "clip.mp4", matrix=1, display_matrix=display_matrix(0, 1, -1, 0))
    assert_as_in_software(path)
    (warning,) = warnings(caplog)
    assert warning == f"{path} is decoded in software: cuda {reason}{' than software does' * ('says' in reason)}"


@pytest.mark.parametrize("black", [0, 5])
@pytest.mark.parametrize("crop", ["crop_top=8", "crop_bottom=8"])
def test_cropping_that_hardware_cannot_do_is_noticed(tmp_path, device, caplog, crop, black):
    """In the first picture that shows something; of black ones nobody can tell."""
    whole, path = tmp_path / "whole.mp4", tmp_path / "clip.mp4"
    shades = [np.full((48, 64, 3), 16, np.uint8)] * black + [smooth_picture(64, 48, seed=index) for index in range(4)]
    with av.open(str(whole), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"crf": "4"}, width=64, height=48, pix_fmt="yuv420p")
        for index, shade in enumerate(shades):
            picture = yuv_frame(shade, "yuv420p", 1, False)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
    with av.open(str(whole)) as source, av.open(str(path), "w") as output:
        video = source.streams.video[0]
        copy = output.add_stream_from_template(video)
        cut = av.BitStreamFilterContext(f"h264_metadata={crop}", video, copy)
        for packet in source.demux(video):
            for changed in cut.filter(packet if packet.size else None):
                changed.stream = copy
                output.mux(changed)
    assert read(path, None)[0][0].pixels.shape == (40, 64, 3)
    assert_as_in_software(path)
    expected = [f"{path} is decoded in software: cuda decodes it to other pictures"] if "top" in crop else []
    assert warnings(caplog) == expected


def fallen_back(monkeypatch, tmp_path):
    """H.264 with 10 bits, say: PyAV falls back by itself, and the decoder's format is the pictures' own."""
    monkeypatch.setitem(DOWNLOADED, "yuv420p10le", "yuv420p10le")
    decode = Decoder.decode

    def in_software(self, packet):
        self.__dict__["pix_fmt"] = "yuv420p10le"
        return decode(self, packet)

    monkeypatch.setattr(Decoder, "decode", in_software)
    return make_clip(tmp_path / "clip.mp4", pixel_format="yuv420p10le")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (fallen_back, "cuda does not decode this kind of h264"),
        (lambda _, folder: transparent_clip(folder / "clip.webm", "vp9"), "cuda does not decode transparency"),
        (lambda _, folder: transparent_clip(folder / "clip.mov", "prores"), "cuda does not decode prores"),
        (
            lambda _, folder: make_clip(folder / "clip.mkv", codec="libsvtav1", size=(64, 64)),
            "cuda does not decode av1",
        ),
    ],
)
def test_what_hardware_does_not_decode_is_decoded_in_software(tmp_path, device, caplog, monkeypatch, make, reason):
    path = make(monkeypatch, tmp_path)
    assert_as_in_software(path)
    assert warnings(caplog) == [f"{path} is decoded in software: {reason}"]


def test_what_is_no_video_file_is_decoded_in_software(tmp_path, device, caplog):
    from videonst.demo import PORTRAIT

    (frame,), _ = read(PORTRAIT)
    np.testing.assert_array_equal(frame.pixels, read(PORTRAIT, None)[0][0].pixels)
    assert warnings(caplog) == ["cuda decodes video files only; what is read here is decoded in software"]


def test_a_pipe_is_opened_once(tmp_path, device, caplog):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes")
    import threading

    clip, pipe = make_clip(tmp_path / "clip.mkv"), tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    writing = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()), daemon=True)
    writing.start()
    assert len(read(pipe)[0]) == len(read(clip, None)[0])
    writing.join(timeout=20)
    assert warnings(caplog)[0] == f"{pipe} is decoded in software: it can be read only once"


def test_a_device_that_fails_on_the_way_is_no_damage(tmp_path, device):
    path, count = make_clip(tmp_path / "clip.mp4"), iter(range(100))

    def failing(picture):
        if next(count) == 6:
            raise av.error.ExternalError(542398533, "Generic error in an external library")
        return downloaded(picture)

    device["download"] = failing
    with pytest.raises(VideoNSTError, match=r"hardware failed to decode .*: Generic error .*; try without --hwaccel"):
        convert(path, tmp_path / "out.mp4", engine="none", hwaccel="cuda")
    assert not (tmp_path / "out.mp4").exists()


def test_convert_takes_it_both_ways(tmp_path, device):
    path = make_clip(tmp_path / "clip.mp4", matrix=1, audio=["aac"])
    convert(path, tmp_path / "software.mp4", engine="none")
    assert not device["opened"]
    convert(path, tmp_path / "api.mp4", engine="none", hwaccel="cuda")
    assert len(device["opened"]) == 2
    done = CliRunner().invoke(
        app, ["convert", str(path), str(tmp_path / "cli.mp4"), "--engine", "none", "--hwaccel", "cuda"]
    )
    assert done.exit_code == 0
    assert len(device["opened"]) == 4
    assert (tmp_path / "software.mp4").read_bytes() == (tmp_path / "api.mp4").read_bytes()
    assert (tmp_path / "software.mp4").read_bytes() == (tmp_path / "cli.mp4").read_bytes()


def test_a_resumed_conversion_keeps_its_decoder(tmp_path, device):
    """Of a damaged clip, or one in MPEG-2, hardware makes other pictures."""
    path = make_clip(tmp_path / "clip.mp4", pts=range(0, 12000, 400))

    def stop(progress):
        if progress.frames_done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "out.mp4", engine="none", hwaccel="cuda", progress=stop)
    with pytest.raises(InputError, match=r"cannot resume .*hwaccel.* changed"):
        convert(path, tmp_path / "out.mp4", engine="none", resume=True)
    convert(path, tmp_path / "out.mp4", engine="none", hwaccel="cuda", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hwaccel", "abacus"], "abacus decodes nothing here: this PyAV can decode on "),
        (["--hwaccel", "cuda"], "cuda decodes nothing here: "),
        (["--hwaccel", "cuda", "--strict"], "hardware decoders conceal damage"),
    ],
)
@pytest.mark.parametrize("inputs", [1, 2])
def test_a_device_that_is_not_there_is_one_line(tmp_path, capfd, options, message, inputs):
    if options == ["--hwaccel", "cuda"] and not hardware.trouble("cuda", CLIP):
        pytest.skip("there is one here")
    sources = [str(make_clip(tmp_path / f"{index}.mp4")) for index in range(inputs)]
    target = tmp_path / ("out" if inputs > 1 else "out.mp4")
    done = CliRunner().invoke(app, ["convert", *sources, str(target), "--engine", "none", *options])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(message)
    assert "leave out --hwaccel" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert capfd.readouterr() == ("", "")
    assert done.output == ""
    assert not target.exists()
    with pytest.raises(InputError, match=message):
        open_source(CLIP, hwaccel=options[1], strict="--strict" in options)


def test_a_pyav_that_loses_what_pictures_say_is_refused(monkeypatch):
    monkeypatch.setattr(av, "__version__", "17.1.0")
    with pytest.raises(InputError, match=r"PyAV 17.1.0 loses .*pip install 'av>=18'"):
        hardware.check_hardware("cuda")


def test_bench_times_it(small_model, device, monkeypatch):
    monkeypatch.setattr(
        speed, "peak_of_convert", lambda _, target, *__, **options: target.touch() or len(options["hwaccel"])
    )
    options = {"device": "cpu", "rounds": 1, "round_seconds": 0.01, "hwaccel": "cuda"}
    (row,) = speed.measure_speed([small_model], [(64, 48)], **options)
    assert (row.hwaccel, row.peak_mb) == ("cuda", 4)
    assert len(device["opened"]) == 1 + 2 * 3  # tried once; to time decoding, warm up and convert
    new = make_report([row], {})
    assert " (cuda) |" in tables(new)
    old = make_report([replace(row, hwaccel=None)], {})
    assert "Not only the times differ: decoding software → cuda" in comparison(old, new)
    device["download"] = only_time
    with pytest.raises(InputError, match="frames of 64x48 would be decoded in software: cuda says"):
        next(speed.measure_speed([small_model], [(64, 48)], **options))


def test_bench_refuses_a_device_that_is_not_there(small_model):
    done = CliRunner().invoke(app, ["bench", "speed", "--model", str(small_model), "--hwaccel", "abacus"])
    assert "abacus decodes nothing here" in str(done.exception)


def test_doctor_tries_every_device():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    reports = json.loads(done.stdout)["hwaccel"]
    assert [report["device"] for report in reports] == list(hardware.hardware_decoders())
    for report in reports:
        assert report["works"] == (report["reason"] == "")


def test_on_a_gpu_pictures_are_those_of_software(tmp_path):
    if reason := hardware.trouble("cuda", CLIP):
        pytest.skip(f"no decoder on a GPU: {reason}")
    assert_as_in_software(CLIP)
    for name, options in {
        "turned.mp4": {"matrix": 6, "display_matrix": display_matrix(0, 1, -1, 0), "pts": VFR},
        "ten.mkv": {"codec": "libx265", "pixel_format": "yuv420p10le", "matrix": 9},
    }.items():
        path = make_clip(tmp_path / name, size=(320, 240), **options)
        assert not hardware.trouble("cuda", path)
        assert_as_in_software(path)
    path = make_clip(tmp_path / "long.mp4", pts=range(0, 4000, 40), size=(320, 240), keyframe_interval=10)
    assert_as_in_software(path, Trim.parse(1.9, 2.5))
    assert_as_in_software(interlaced_clip(tmp_path / "woven.mp4"))
