"""Interrupted conversions. The oracle is an uninterrupted run of the same settings, compared after decoding."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from clips import audio_packets, make_clip, smooth_picture, stream_packets, video_timing

from videonst.api import Stylizer, convert
from videonst.engines import EngineDescription
from videonst.engines.metadata import SizeRules
from videonst.errors import InputError, VideoNSTError
from videonst.sinks import open_sink, parts, space
from videonst.sources import open_source

pytestmark = pytest.mark.timeout(280)
LONG = range(0, 13_000, 100)
"""130 frames in four segments, 1/1000 s."""


class Inverting:
    """An engine without a network. Fails at frame `fail_at` of its life."""

    def __init__(self, fail_at: int | None = None, error: type[BaseException] = VideoNSTError) -> None:
        self.painted = 0
        self.fail_at, self.error = fail_at, error
        self.description = EngineDescription(
            name="inverting", styles=(SimpleNamespace(name="a"),), size=SizeRules(), device="cpu", precision="fp32"
        )

    def stylize(self, frame, mix):
        if self.painted == self.fail_at:
            raise self.error("enough")
        self.painted += 1
        return frame.with_pixels(self.paint(frame.pixels))

    def paint(self, pixels):
        return 255 - pixels


class Remembering(Inverting):
    """Mixes every frame with all before it, so that forgetting shows."""

    last = None

    def paint(self, pixels):
        mixed = pixels if self.last is None else ((pixels.astype(np.uint16) + self.last) // 2).astype(np.uint8)
        self.last = mixed
        return mixed

    def state(self):
        return {"last": self.last.copy(), "painted": self.painted}

    def restore(self, state):
        self.last = state["last"]
        assert state["painted"] > 0


def paint(source, target, engine=None, *, steady=0, **options):
    options["steady"] = steady
    return convert(source, target, "a", model=Stylizer(engine or Inverting()), preset="ultrafast", **options)


def decoded(path, **options):
    with open_source(path, **options) as source:
        return [(frame.time, frame.pixels) for frame in source]


def assert_identical(path, other):
    for (time_a, pixels_a), (time_b, pixels_b) in zip(decoded(path), decoded(other), strict=True):
        assert time_a == time_b
        np.testing.assert_array_equal(pixels_a, pixels_b)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr(parts, "SEGMENT_SECONDS", 4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", pts=LONG, last_duration=100, audio=["aac"])


@pytest.mark.parametrize(("engine", "steady"), [(Inverting, 0), (Remembering, 0), (Remembering, 0.75)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fail_at", [50, 121])
def test_a_resumed_video_is_identical(tmp_path, clip, engine, steady, suffix, fail_at, caplog):
    whole, resumed = tmp_path / f"whole{suffix}", tmp_path / f"resumed{suffix}"
    paint(clip, whole, engine(), steady=steady)
    with pytest.raises(VideoNSTError, match="enough"):
        paint(clip, resumed, engine(fail_at), steady=steady)
    assert "go on with --resume" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == [".resumed" + suffix + ".parts", whole.name]
    again = engine()
    done = paint(clip, resumed, again, steady=steady, resume=True)
    assert done.frames_done == len(LONG)
    assert 0 < again.painted < len(LONG) - 39
    assert_identical(resumed, whole)
    assert stream_packets(resumed) == stream_packets(whole)
    assert video_timing(resumed) == video_timing(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == [resumed.name, whole.name]


def test_segments_are_as_one_file(tmp_path, clip):
    """Against a sink that writes no segments: same times, same sound, same tags, and pictures as near to the source."""
    paint(clip, tmp_path / "segments.mp4")
    with open_source(clip) as source, open_sink(tmp_path / "plain.mp4", source.info, preset="ultrafast") as sink:
        for frame in source:
            sink.write(frame.with_pixels(255 - frame.pixels))
    assert video_timing(tmp_path / "segments.mp4") == video_timing(tmp_path / "plain.mp4")
    assert audio_packets(tmp_path / "segments.mp4") == audio_packets(tmp_path / "plain.mp4")
    for a, b in zip(decoded(tmp_path / "segments.mp4"), decoded(tmp_path / "plain.mp4"), strict=True):
        assert a[0] == b[0]
        assert np.abs(a[1].astype(int) - b[1]).mean() < 1


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "hevc"), (".mkv", "hevc"), (".mp4", "av1"), (".webm", "vp9"), (".mov", "prores"), (".mkv", "ffv1"),
        (".mov", "h264"),
    ],
)  # fmt: skip
def test_every_codec_can_be_joined(tmp_path, suffix, codec):
    """What the joined file says of its pictures is what a file in one piece says."""
    clip = make_clip(tmp_path / "clip.mp4", pts=range(0, 9000, 500), last_duration=500, aspect_ratio=Fraction(4, 3))
    segments, plain = tmp_path / f"segments{suffix}", tmp_path / f"plain{suffix}"
    convert(clip, segments, "a", model=Stylizer(Inverting()), steady=0, codec=codec)
    with open_source(clip) as source, open_sink(plain, source.info, codec=codec) as sink:
        for frame in source:
            sink.write(frame.with_pixels(255 - frame.pixels))
    descriptions = []
    for path in (segments, plain):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            frame = next(container.decode(stream))
            descriptions.append(
                [
                    context.name, context.profile, context.codec_tag, context.pix_fmt, stream.sample_aspect_ratio,
                    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc, stream.average_rate,
                ]
            )  # fmt: skip
    assert descriptions[0] == descriptions[1]
    assert video_timing(segments) == video_timing(plain)
    for (_, a), (_, b) in zip(decoded(segments), decoded(plain), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 4


def test_transparency_survives_the_joins(tmp_path):
    pictures = tmp_path / "in"
    pictures.mkdir()
    for index in range(4):
        rgba = np.dstack([smooth_picture(64, 48, seed=index), np.full((48, 64), 60 * index, np.uint8)])
        cv2.imwrite(str(pictures / f"{index}.png"), rgba)
    for suffix, codec in ((".webm", "vp9"), (".mov", "prores"), (".mkv", "ffv1")):
        target = tmp_path / f"out{suffix}"
        convert(pictures, target, "a", model=Stylizer(Inverting()), steady=0, codec=codec, rate=Fraction(1, 3))
        with open_source(target) as source:
            alphas = [float(frame.alpha.mean()) for frame in source]
        assert alphas == pytest.approx([0, 60, 120, 180], abs=2)


def test_a_size_that_changes_between_segments_is_noticed(tmp_path, clip):
    with open_source(clip) as source:
        frames = [f if f.time < 4 else f.with_pixels(np.ascontiguousarray(f.pixels[:, ::2])) for f in source]
    with pytest.raises(VideoNSTError, match="picture size changed from 64x48 to 32x48"):
        write_all(open_sink(tmp_path / "out.mp4", source.info, settings={}), frames)


def write_all(sink, frames):
    with sink:
        for frame in frames:
            sink.write(frame)


def test_irregular_times_with_b_frames_survive_the_joins(tmp_path):
    rng = np.random.default_rng(0)
    pts = np.cumsum(rng.integers(1, 700, 60)).tolist()
    clip = make_clip(tmp_path / "vfr.mp4", pts=pts, last_duration=77)
    convert(clip, tmp_path / "out.mp4", "a", model=Stylizer(Inverting()), steady=0, preset="medium")
    ends = [*pts[1:], pts[-1] + 77]
    expected = [(Fraction(a, 1000), Fraction(b - a, 1000)) for a, b in zip(pts, ends, strict=True)]
    assert video_timing(tmp_path / "out.mp4") == expected


def test_resumed_pictures(tmp_path, clip):
    for engine in (Inverting, Remembering):
        folder = tmp_path / engine.__name__
        with pytest.raises(VideoNSTError):
            paint(clip, f"{folder}/", engine(90), end=11)
        with pytest.raises(InputError, match="--resume"):
            paint(clip, f"{folder}/", engine(), end=11)
        again = engine()
        paint(clip, f"{folder}/", again, resume=True, end=11)
        assert 0 < again.painted < 40
        paint(clip, f"{folder}_whole/", engine(), end=11)
        assert len(list(folder.iterdir())) == 110
        for picture in folder.iterdir():
            assert picture.read_bytes() == (tmp_path / f"{folder.name}_whole" / picture.name).read_bytes()


def test_interrupted_twice_and_while_joining(tmp_path, clip, monkeypatch):
    target = tmp_path / "out.mp4"
    paint(clip, tmp_path / "whole.mp4")
    with pytest.raises(VideoNSTError):
        paint(clip, target, Inverting(60))
    with pytest.raises(KeyboardInterrupt):
        paint(clip, target, Inverting(45, KeyboardInterrupt), resume=True)
    with monkeypatch.context() as patched:
        patched.setattr("videonst.sinks.part_file.os.replace", _failing_for(target))
        with pytest.raises(VideoNSTError, match="No space left"):
            paint(clip, target, resume=True)
    assert not target.exists()
    last = Inverting()
    paint(clip, target, last, resume=True)
    assert last.painted == 0
    assert_identical(target, tmp_path / "whole.mp4")


def _failing_for(target):
    replace = os.replace

    def fail(source, destination):
        if Path(destination) == target:
            raise OSError(28, "No space left on device")
        replace(source, destination)

    return fail


def test_what_was_begun_is_not_lost_by_accident(tmp_path, clip):
    target = tmp_path / "out.mp4"
    with pytest.raises(VideoNSTError):
        paint(clip, target, Inverting(60))
    with pytest.raises(InputError, match=r"go on with --resume .* or start over with --overwrite"):
        paint(clip, target)
    engine = Inverting()
    paint(clip, target, engine, overwrite=True)
    assert engine.painted == len(LONG)


@pytest.mark.parametrize(
    ("options", "changed"),
    [({"crf": 30}, "crf"), ({"start": 1}, "start"), ({"strength": 0.5}, "strength"), ({"drop": ["audio"]}, "drop")],
)
def test_changed_settings_are_refused(tmp_path, clip, options, changed):
    with pytest.raises(VideoNSTError):
        paint(clip, tmp_path / "out.mp4", Inverting(60))
    with pytest.raises(InputError, match=rf"cannot resume .*: .*{changed}.* changed"):
        paint(clip, tmp_path / "out.mp4", resume=True, **options)
    paint(clip, tmp_path / "out.mp4", resume=True)


def test_a_changed_input_is_refused(tmp_path, clip):
    copy = tmp_path / "clip.mp4"
    copy.write_bytes(clip.read_bytes())
    with pytest.raises(VideoNSTError):
        paint(copy, tmp_path / "out.mp4", Inverting(60))
    changed = bytearray(clip.read_bytes())
    changed[len(changed) // 2] ^= 1
    times = (copy.stat().st_atime_ns, copy.stat().st_mtime_ns)
    copy.write_bytes(changed)
    os.utime(copy, ns=times)
    with pytest.raises(InputError, match="content of the input changed"):
        paint(copy, tmp_path / "out.mp4", resume=True)


def test_torn_parts_are_done_again(tmp_path, clip):
    """A power cut leaves a segment without its times, or files that were being written."""
    target = tmp_path / "out.mp4"
    paint(clip, tmp_path / "whole.mp4")
    with pytest.raises(VideoNSTError):
        paint(clip, target, Inverting(85))
    folder = tmp_path / ".out.mp4.parts"
    assert not (folder / "00002.json").exists()
    (folder / "00002.packets").write_bytes(b"torn")
    (folder / "00002.json.tmp").write_bytes(b"torn")
    (folder / "00003.packets").write_bytes(b"torn")
    paint(clip, target, resume=True)
    assert_identical(target, tmp_path / "whole.mp4")
    assert not folder.exists()


def test_two_programs_do_not_write_one_target(tmp_path, clip):
    if os.name == "nt":
        pytest.skip("no file locks of this kind")
    folder = tmp_path / ".out.mp4.parts"
    with open_source(clip) as source:
        first = open_sink(tmp_path / "out.mp4", source.info, settings={})
        with pytest.raises(InputError, match="another program is writing"):
            open_sink(tmp_path / "out.mp4", source.info, settings={}, resume=True)
        with pytest.raises(VideoNSTError, match="no frames"), first:
            pass
    assert not folder.exists()


@pytest.mark.parametrize(("source", "target"), [("picture.png", "out.png"), ("clip", "-")])
def test_what_cannot_be_resumed_says_so(tmp_path, clip, source, target, portrait, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("picture.png", portrait)
    with pytest.raises(InputError, match="can be resumed"):
        paint(clip if source == "clip" else source, target, resume=True)


def test_a_full_disk_is_foreseen(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(InputError, match=r"will take at least 0\.0 MB, but .* has 0\.0 MB left"):
        paint(clip, tmp_path / "out.mp4")
    with pytest.raises(InputError, match="will take at least"):
        paint(clip, f"{tmp_path}/out/")
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
del sys.argv[1]
from videonst.cli import main
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="no resource limits")
def test_a_folder_that_is_taken_away_is_one_line(tmp_path, clip):
    with open_source(clip) as source:
        sink = open_sink(tmp_path / "out.mp4", source.info, settings={})
        shutil.rmtree(tmp_path / ".out.mp4.parts")
        with pytest.raises(VideoNSTError, match=r"cannot write in .*\.parts"), sink:
            sink.write(next(iter(source)))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_keeps_what_is_done(tmp_path, small_model, monkeypatch):
    """A limit on the size of a file stands in for a full disk: segments fit, the joined file does not. The
    stabiliser, whose memory is larger than these segments, is off."""
    clip = make_clip(tmp_path / "clip.mp4", pts=range(0, 26_000, 800), size=(160, 120))
    monkeypatch.undo()  # the process has segments of the usual length
    convert(clip, tmp_path / "whole.mp4", "a", model=small_model, steady=0)
    limit = (tmp_path / "whole.mp4").stat().st_size * 2 // 3
    arguments = [limit, "convert", clip, tmp_path / "out.mp4", "-s", "a", "-m", small_model, "--steady", 0]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, arguments)],
        capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert "--resume" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.mp4.parts", "clip.mp4", "whole.mp4"]
    convert(clip, tmp_path / "out.mp4", "a", model=small_model, steady=0, resume=True)
    assert_identical(tmp_path / "out.mp4", tmp_path / "whole.mp4")


def test_killed_and_resumed(tmp_path, small_model):
    """kill -9 as soon as a segment is finished; the command line goes on from there."""
    clip = make_clip(tmp_path / "clip.mp4", pts=range(0, 26_000, 200), size=(160, 120), audio=["aac"])
    command = [sys.executable, "-m", "videonst", "convert", clip, "-s", "a", "-m", small_model, "--preset", "ultrafast"]
    command = list(map(str, command))
    folder = tmp_path / ".out.mp4.parts"
    with subprocess.Popen([*command, tmp_path / "out.mp4"], stdin=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (folder / "00001.json").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait(timeout=30)
    if (tmp_path / "out.mp4").exists():
        pytest.skip("the conversion was faster than the kill")
    assert json.loads((folder / "manifest.json").read_text())["settings"]["preset"] == "ultrafast"
    for target, options in ((tmp_path / "out.mp4", ["--resume"]), (tmp_path / "whole.mp4", [])):
        done = subprocess.run(
            [*command, target, *options], timeout=100, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
    assert_identical(tmp_path / "out.mp4", tmp_path / "whole.mp4")
    assert stream_packets(tmp_path / "out.mp4") == stream_packets(tmp_path / "whole.mp4")
    assert not folder.exists()
    assert -process.returncode == signal.SIGKILL


def test_the_stabiliser_remembers(tmp_path, clip, small_model):
    """`--steady` mixes in what was painted before; a resumed run has it from the saved memory."""
    options = {"model": small_model, "preset": "ultrafast", "steady": 0.9, "end": 10}
    convert(clip, tmp_path / "whole.mp4", "a", **options)

    def interrupt(progress):
        if progress.frames_done >= 90:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(clip, tmp_path / "out.mp4", "a", **options, progress=interrupt)
    done = convert(clip, tmp_path / "out.mp4", "a", **options, resume=True)
    assert done.frames_done == 100
    assert_identical(tmp_path / "out.mp4", tmp_path / "whole.mp4")
