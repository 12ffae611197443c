"""Standard input and output, and network addresses: local servers and pipes only, each with a time-out."""

import contextlib
import functools
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest
from clips import audio_packets, make_clip, video_timing

from videonst.errors import InputError
from videonst.sinks import open_sink
from videonst.sources import is_address, open_source
from videonst.sources.network import open_address
from videonst.sources.passing import StandardInput
from videonst.trim import Trim

pytestmark = pytest.mark.timeout(280)
TIMEOUT = 5.0


@contextlib.contextmanager
def pipe_from(content: bytes):
    """The reading end of a pipe into which a thread writes."""
    reading, writing = os.pipe()

    def feed():
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    with open(reading, "rb", buffering=0) as stream:
        yield stream
    thread.join(timeout=30)
    assert not thread.is_alive()


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Quiet, and with ranges not supported: FFmpeg then reads front to back."""

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=30)


@contextlib.contextmanager
def silent_server():
    """Accepts connections (the kernel does) and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def pixels_of(source):
    with source:
        return [frame.pixels for frame in source]


def assert_same_frames(source, path):
    expected = pixels_of(open_source(path))
    for ours, theirs in zip(pixels_of(source), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_standard_input_with_its_sound(tmp_path, suffix):
    """Sound is read once, with the pictures, and still arrives whole."""
    clip = make_clip(tmp_path / f"clip{suffix}", pts=range(0, 2000, 40), audio=["aac"])
    with (
        pipe_from(clip.read_bytes()) as pipe,
        StandardInput(stream=pipe) as source,
        open_sink(tmp_path / "piped.mkv", source.info) as sink,
    ):
        for frame in source:
            sink.write(frame)
    with open_source(clip) as source, open_sink(tmp_path / "named.mkv", source.info) as sink:
        for frame in source:
            sink.write(frame)
    assert video_timing(tmp_path / "piped.mkv") == video_timing(tmp_path / "named.mkv")
    assert audio_packets(tmp_path / "piped.mkv") == audio_packets(tmp_path / "named.mkv")
    assert len(audio_packets(tmp_path / "piped.mkv")) > 80
    assert_same_frames(open_source(tmp_path / "piped.mkv"), tmp_path / "named.mkv")


def test_a_part_of_standard_input(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", pts=range(0, 1000, 40), audio=["aac"])
    trim = Trim.parse("0.2", "0.6")
    for name, piped in (("piped", True), ("named", False)):
        with (
            pipe_from(clip.read_bytes()) as pipe,
            StandardInput(trim, stream=pipe) if piped else open_source(clip, trim) as source,
            open_sink(tmp_path / f"{name}.mp4", source.info) as sink,
        ):
            for frame in source:
                sink.write(frame)
    assert video_timing(tmp_path / "piped.mp4") == video_timing(tmp_path / "named.mp4")
    assert audio_packets(tmp_path / "piped.mp4") == audio_packets(tmp_path / "named.mp4")


def test_unclaimed_sound_is_not_kept(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", audio=["aac"])
    with pipe_from(clip.read_bytes()) as pipe, StandardInput(stream=pipe) as source:
        next(iter(source))
        with pytest.raises(InputError, match="claimed before the first frame"):
            open_sink(tmp_path / "out.mkv", source.info)


@pytest.mark.parametrize("content", [b"", b"not a video at all\n" * 50])
def test_standard_input_that_is_no_video(content):
    with pipe_from(content) as pipe, pytest.raises(InputError, match="standard input is no video"):
        StandardInput(stream=pipe)


def test_a_stalled_pipe_can_be_stopped(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", pts=range(0, 4000, 40)).read_bytes()
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as pipe, open(reading, "rb", buffering=0) as stream:
        feeder = threading.Thread(target=pipe.write, args=(clip[: len(clip) * 3 // 4],), daemon=True)
        feeder.start()
        with StandardInput(stream=stream) as source:
            stopper = threading.Timer(0.5, source.stop)
            stopper.daemon = True
            stopper.start()
            assert 0 < len(list(source)) < 100
        feeder.join(timeout=30)
        stopper.join(timeout=30)


def test_to_standard_output_and_back(tmp_path):
    """Two processes and two pipes, as a user would write it; only the video is on standard output."""
    clip = make_clip(tmp_path / "clip.mkv", audio=["aac"])
    command = [sys.executable, "-m", "videonst", "convert", "-", "-", "--engine", "none"]
    for options, name in (([], "matroska,webm"), (["--format", "mpegts"], "mpegts")):
        done = subprocess.run([*command, *options], input=clip.read_bytes(), capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        with av.open(io.BytesIO(done.stdout)) as result:
            assert result.format.name == name
            assert sum(1 for _ in result.decode(video=0)) == 10
            assert len(result.streams.audio) == 1


def test_unknown_format_for_standard_output():
    with pytest.raises(InputError, match="unknown format 'avi'"):
        open_sink("-", stream_format="avi")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://camera/1", True), ("https://host/a.m3u8", True), ("udp://@:1234", True), ("SRT://host:9", True),
        ("clip.mp4", False), ("C:\\clip.mp4", False), ("http:clip.mp4", False), ("-", False), ("file:///a.mp4", False),
    ],
)  # fmt: skip
def test_what_is_an_address(text, expected):
    assert is_address(text) == expected


def test_http_with_its_sound(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", audio=["aac"])
    with serving(functools.partial(Ranges, directory=str(tmp_path))) as address:
        with (
            open_source(f"{address}/clip.mkv", timeout=TIMEOUT) as source,
            open_sink(tmp_path / "out.mkv", source.info) as sink,
        ):
            for frame in source:
                sink.write(frame)
        assert len(audio_packets(tmp_path / "out.mkv")) == len(audio_packets(clip))
        assert_same_frames(open_address(f"{address}/clip.mkv", timeout=TIMEOUT), clip)
        live = [frame.pixels for frame in open_address(f"{address}/clip.mkv", timeout=TIMEOUT, low_delay=True)]
        assert len(live) == 10
        with pytest.raises(InputError, match="404"):
            open_address(f"{address}/absent.mkv", timeout=TIMEOUT)
        (tmp_path / "text.mkv").write_text("nothing to see")
        with pytest.raises(InputError, match="no video"):
            open_address(f"{address}/text.mkv", timeout=TIMEOUT)


def test_hls(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", pts=range(0, 3000, 40), audio=["aac"], keyframe_interval=25)
    with (
        av.open(str(clip)) as source,
        av.open(
            str(tmp_path / "live.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_playlist_type": "vod"}
        ) as output,
    ):
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    assert len(list(tmp_path.glob("*.ts"))) > 1
    with serving(functools.partial(Ranges, directory=str(tmp_path))) as address:
        assert_same_frames(open_address(f"{address}/live.m3u8", timeout=TIMEOUT), clip)


def test_a_download_that_breaks_goes_on(tmp_path):
    """The server closes the connection in the middle, once; FFmpeg asks for the rest."""
    clip = make_clip(tmp_path / "clip.ts", pts=range(0, 4000, 40), size=(320, 240))
    content = clip.read_bytes()
    requests = []

    class Breaking(Ranges):
        def do_GET(self):
            requested = self.headers.get("Range")
            first = int(requested.split("=")[1].split("-")[0]) if requested else 0
            requests.append(first)
            self.send_response(206 if requested else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - first))
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            rest = content[first:]
            with contextlib.suppress(OSError):
                self.wfile.write(rest[: len(rest) // 2] if len(requests) == 1 else rest)

    with serving(Breaking) as address:
        assert_same_frames(open_address(f"{address}/clip.ts", timeout=TIMEOUT), clip)
    assert any(first > 0 for first in requests)


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp", "tcp"])
def test_a_dead_server_ends_within_the_time_out(scheme):
    with silent_server() as port:
        started = time.monotonic()
        with pytest.raises(InputError, match=r"did not answer within 0.5 s|cannot open") as raised:
            open_source(f"{scheme}://user:secret@127.0.0.1:{port}/clip", timeout=0.5)
        assert time.monotonic() - started < 10
        assert "secret" not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_protocol_that_ffmpeg_lacks_is_named(monkeypatch):
    def lacking(*_, **__):
        raise av.error.ProtocolNotFoundError(0, "Protocol not found")

    monkeypatch.setattr("videonst.sources.network.av.open", lacking)
    with pytest.raises(InputError, match="FFmpeg was built without srt here"):
        open_address("srt://127.0.0.1:9", timeout=0.5)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match="cannot open"):
        open_source(f"http://127.0.0.1:{port}/clip.mkv", timeout=0.5)


def test_a_camera_that_goes_silent_ends_with_a_report(tmp_path, caplog):
    content = make_clip(tmp_path / "clip.ts", pts=range(0, 2000, 40)).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def feed():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(content)
                    time.sleep(3)

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        with open_address(f"tcp://127.0.0.1:{server.getsockname()[1]}", timeout=1.0) as source:
            frames = list(source)
        thread.join(timeout=30)
    assert 45 <= len(frames) <= 50
    assert "was lost" in caplog.text


def test_a_camera_that_comes_back_goes_on(tmp_path):
    """The second connection starts its clock anew; the frames' times go on."""
    content = make_clip(tmp_path / "clip.ts", pts=range(0, 2000, 40)).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def feed():
            for _ in range(2):
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(content)
            server.close()

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        with open_address(f"tcp://127.0.0.1:{server.getsockname()[1]}", timeout=1.5) as source:
            frames = list(source)
        thread.join(timeout=30)
    times = [frame.time for frame in frames]
    assert times == sorted(set(times))
    assert len(frames) >= 95
    assert all(frame.duration > 0 for frame in frames[:-1])
    assert source.info.damage.lost == 0
