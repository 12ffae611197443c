"""Damaged input: what is there is delivered, what is not is counted; the healthy is never called damaged."""

import logging

import av
import numpy as np
import pytest
from clips import make_clip

from videonst.api import convert
from videonst.errors import InputError, VideoNSTError
from videonst.sinks import open_sink
from videonst.sources import DamagedInputError, open_source

pytestmark = pytest.mark.timeout(280)
FRAMES = 100


def clip(folder, name, **options):
    options = {"codec": "mpeg4", **options} if name.endswith(".avi") else options
    options = {"b_frames": 0 if name.endswith(".avi") else 2, **options}
    return make_clip(folder / name, pts=range(0, FRAMES * 40, 40), size=(160, 120), keyframe_interval=10, **options)


def read(path, **options):
    with open_source(path, **options) as source:
        return len(list(source)), source.info.damage


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi", "a.ts"])
@pytest.mark.parametrize("audio", [[], ["aac"]])
def test_the_healthy_is_not_called_damaged(tmp_path, name, audio, caplog):
    audio = ["libopus"] if audio and name.endswith("webm") else audio
    codec = {"codec": "libvpx-vp9"} if name.endswith("webm") else {}
    frames, damage = read(clip(tmp_path, name, audio=audio, **codec), strict=True)
    assert frames == FRAMES
    assert damage.lost == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_truncated_file_is_counted(tmp_path, name, caplog):
    """The header says how much there was; where it is at the end of the file, nothing can be read."""
    path = clip(tmp_path, name)
    if name == "a.mp4":
        path = faststart(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    frames, damage = read(path)
    assert 30 < frames < 80
    assert damage.lost == pytest.approx(FRAMES - frames, abs=3)
    assert len(damage.messages) == 1
    assert "is damaged" in caplog.text
    with pytest.raises(DamagedInputError, match="leave out --strict"):
        read(path, strict=True)


def faststart(path):
    target = path.with_name(f"fast_{path.name}")
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return target


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_corrupt_bytes_cost_frames_not_the_clip(tmp_path, name):
    path = clip(tmp_path, name)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    third = len(content) // 3
    content[third : third + 400] = np.random.default_rng(0).integers(0, 256, 400)
    path.write_bytes(content.tobytes())
    frames, damage = read(path)
    assert frames > FRAMES * 0.6
    assert damage.lost > 0


def test_missing_packets_are_counted(tmp_path):
    """A broadcast with a gap, as after a moment without reception."""
    path = clip(tmp_path, "a.ts")
    content = path.read_bytes()
    size = 188
    gap = len(content) // size // 2 * size
    path.write_bytes(content[:gap] + content[gap + 5 * size :])
    frames, damage = read(path)
    assert frames >= FRAMES * 0.8
    assert damage.lost > 0


def test_packets_that_no_container_takes_are_left_out(tmp_path):
    """Two recordings in one file: the clock starts anew in the middle."""
    path = clip(tmp_path, "a.ts", audio=["aac"])
    path.write_bytes(path.read_bytes() * 2)
    with open_source(path) as source, open_sink(tmp_path / "out.mkv", source.info) as sink:
        for frame in source:
            sink.write(frame)
    assert read(tmp_path / "out.mkv", strict=True)[0] == FRAMES
    assert source.info.damage.lost > FRAMES
    assert any("could not be copied" in message for message in source.info.damage.messages)


def test_the_result_says_what_was_lost(tmp_path):
    path = faststart(clip(tmp_path, "a.mp4", audio=[]))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    done = convert(path, tmp_path / "out.mp4", engine="none")
    assert done.frames_lost == pytest.approx(FRAMES - done.frames_done, abs=3)
    assert read(tmp_path / "out.mp4", strict=True)[0] == done.frames_done
    with pytest.raises(VideoNSTError, match="is damaged"):
        convert(path, tmp_path / "strict.mp4", engine="none", strict=True)
    assert not (tmp_path / "strict.mp4").exists()


def test_what_a_file_is_counts_not_its_suffix(tmp_path, portrait):
    path = clip(tmp_path, "a.mp4")
    expected = read(path)[0]
    for wrong in ("b.avi", "b.png", "b.dat", "b"):
        (tmp_path / wrong).write_bytes(path.read_bytes())
        assert read(tmp_path / wrong)[0] == expected


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("empty.mp4", b"", "not a video file"),
        ("empty.png", b"", "not a picture"),
        ("text.mp4", b"To be or not to be.\n" * 99, "not a video file"),
        ("text.png", b"To be or not to be.\n" * 99, "not a picture"),
        ("zeros.mkv", bytes(99_999), "not a video file"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, name, content, wrong):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=wrong) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_sound_alone_is_one_line(tmp_path):
    with av.open(str(tmp_path / "sound.m4a"), "w") as output:
        stream = output.add_stream("aac", rate=48000, layout="mono")
        for start in range(0, 48000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(InputError, match="holds only sound"):
        read(tmp_path / "sound.m4a")
