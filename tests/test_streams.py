"""What a file holds besides its pictures: copied as it is, or refused, or left out on request."""

import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import pytest
from av.stream import Disposition
from clips import copy, make_clip, stream_packets

from videonst.errors import InputError
from videonst.sinks import open_sink
from videonst.sources import open_source

FONT = b"not really a font" * 20
SRT, ASS = [b"one", b"<i>two</i>", b"three"], [b"0,0,Default,,0,0,0,,one", b"1,0,Default,,0,0,0,,two"]
MOV_TEXT, PAUSE = [b"\x00\x03one", b"\x00\x03two"], b"\x00\x00"
ASS_HEADER = b"[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
CHAPTERS = [("first", 0, 160), ("second", 160, 400)]


def make_rich_clip(
    path: Path, *, subtitles: Sequence[tuple[str, list[bytes]]] = (), font: bool = False, cover: bool = False
) -> Path:
    """Two audio streams in two languages, chapters and metadata; subtitles, a font and cover art where asked for."""
    plain = make_clip(path.with_name("plain.mkv"), audio=["aac", "libmp3lame"])
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        output.metadata.update(title="A film", artist="A director", comment="A note")
        output.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for number, (title, start, end) in enumerate(CHAPTERS)
            ]
        )
        first = source.streams.video[0]
        video = output.add_stream("libx264", rate=25, width=first.width, height=first.height)
        video.codec_context.time_base = first.time_base
        video.metadata.update(language="spa", title="Picture")
        sounds = {s.index: output.add_stream_from_template(s) for s in source.streams.audio}
        for stream, language, disposition in zip(
            sounds.values(), ("eng", "fra"), (Disposition.default, Disposition.comment), strict=True
        ):
            stream.metadata.update(language=language, title=f"Sound in {language}")
            stream.disposition = disposition
        texts = [_add_text(output, codec) for codec, _ in subtitles]
        for stream, language in zip(texts, ("fra", "ita"), strict=False):
            stream.metadata["language"] = language
            stream.disposition = Disposition.forced
        if font:
            output.add_attachment("hand.ttf", "font/ttf", FONT)
        if cover:
            art = output.add_stream("mjpeg", rate=1, width=16, height=16, pix_fmt="yuvj420p")
            art.disposition = Disposition.attached_pic
            output.mux(art.encode(av.VideoFrame(16, 16, "yuvj420p")))
            output.mux(art.encode(None))
        for stream, (_, lines) in zip(texts, subtitles, strict=True):
            for index, line in enumerate(lines):
                output.mux(_text_packet(stream, line, start=index * 120, duration=100))
        for packet in source.demux(*source.streams.audio):
            if packet.size:
                packet.stream = sounds[packet.stream_index]
                output.mux(packet)
        source.seek(0)
        for frame in source.decode(first):
            frame.pict_type = 0
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def _add_text(output: av.container.OutputContainer, codec: str) -> av.stream.Stream:
    if codec == "ass":  # its header is part of the stream, which only an encoder's context can hold
        stream = output.add_stream("ass")
        stream.codec_context.subtitle_header = ASS_HEADER
    else:
        stream = output.add_mux_stream(codec)
    stream.time_base = Fraction(1, 1000)
    return stream


def _text_packet(stream: av.stream.Stream, text: bytes, *, start: int, duration: int) -> av.Packet:
    packet = av.Packet(text)
    packet.pts = packet.dts = start
    packet.duration, packet.time_base, packet.stream = duration, Fraction(1, 1000), stream
    return packet


class Tags(NamedTuple):
    codec: str | None
    language: str | None
    title: str | None
    disposition: Disposition


def stream_tags(path: Path) -> list[Tags]:
    """Of the streams that players show to the user."""
    with av.open(str(path)) as container:
        return [
            Tags(
                stream.codec_context and stream.codec_context.name,
                stream.metadata.get("language"),
                stream.metadata.get("title", stream.metadata.get("name")),  # MP4's word for it
                Disposition(stream.disposition),
            )
            for stream in container.streams
            if stream.type in ("audio", "subtitle")
        ]


def attachments(path: Path) -> list[tuple[str, str, bytes]]:
    with av.open(str(path)) as container:
        return [(s.name, s.mimetype, s.data) for s in container.streams if s.type == "attachment"]


def cover_art(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        streams = [s for s in container.streams.video if Disposition(s.disposition) & Disposition.attached_pic]
        return [bytes(packet) for packet in container.demux(streams) if packet.size] if streams else []


def chapters(path: Path) -> list[tuple[str, Fraction, Fraction]]:
    with av.open(str(path)) as container:
        return [
            (c["metadata"]["title"], c["start"] * c["time_base"], c["end"] * c["time_base"])
            for c in container.chapters()
        ]


def global_tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
        return {key: tags.get(key) for key in ("title", "artist", "comment")}


def test_streams_of_a_real_clip_are_copied(data, tmp_path, caplog):
    path = data / "video" / "nasa_streams.mp4"
    copied = copy(path, tmp_path / "copy.mp4", limit=10, shrink=16)
    assert [len(packets) for packets in stream_packets(path)] == [103, 5, 205, 5]
    assert stream_packets(copied) == stream_packets(path)
    assert [tags._replace(disposition=0) for tags in stream_tags(copied)] == [
        tags._replace(disposition=0) for tags in stream_tags(path)
    ]
    assert "holds another video stream, #0, which is left out" in caplog.text


@pytest.mark.parametrize(
    ("suffix", "holds"),
    [
        ("mkv", {"subtitles": [("subrip", SRT), ("ass", ASS)], "font": True}),
        ("mp4", {"subtitles": [("mov_text", MOV_TEXT)], "cover": True}),
        ("mov", {"subtitles": [("mov_text", MOV_TEXT)]}),
    ],
)
def test_everything_is_copied_within_a_container(tmp_path, suffix, holds, caplog):
    path = make_rich_clip(tmp_path / f"clip.{suffix}", **holds)
    copied = copy(path, tmp_path / f"copy.{suffix}")
    original = stream_packets(path)
    assert len(original) == 2 + len(holds["subtitles"])
    texts = [[data for *_, data in packets if data != PAUSE] for packets in original[2:]]
    assert texts == [lines for _, lines in holds["subtitles"]]
    assert stream_packets(copied) == original
    assert stream_tags(copied) == stream_tags(path)
    assert attachments(copied) == attachments(path) == ([("hand.ttf", "font/ttf", FONT)] if "font" in holds else [])
    assert cover_art(copied) == cover_art(path)
    assert len(cover_art(path)) == ("cover" in holds)
    assert chapters(copied) == chapters(path)
    assert [title for title, *_ in chapters(path)] == ["first", "second"]
    assert global_tags(copied) == {"title": "A film", "artist": "A director", "comment": "A note"}
    with av.open(str(path)) as before, av.open(str(copied)) as after:
        assert after.streams.video[0].metadata.get("language") == before.streams.video[0].metadata.get("language")
    assert not caplog.records


@pytest.mark.parametrize(("suffix", "target"), [("mp4", "mkv"), ("mkv", "mp4")])
def test_tags_cross_containers(tmp_path, suffix, target):
    path = make_rich_clip(tmp_path / f"clip.{suffix}", cover=suffix == "mp4")
    copied = copy(path, tmp_path / f"copy.{target}")
    assert [[data for *_, data in packets] for packets in stream_packets(copied)] == [
        [data for *_, data in packets] for packets in stream_packets(path)
    ]
    assert [tags[:3] for tags in stream_tags(copied)] == [
        (codec, language, f"Sound in {language}") for codec, language in (("aac", "eng"), ("mp3float", "fra"))
    ]
    assert cover_art(copied) == cover_art(path)
    assert chapters(copied) == chapters(path)
    assert global_tags(copied) == global_tags(path)
    with av.open(str(copied)) as container:
        assert container.streams.video[0].metadata["language"] == "spa"


def test_cover_art_goes_from_matroska_to_matroska(tmp_path):
    path = copy(make_rich_clip(tmp_path / "clip.mp4", cover=True), tmp_path / "clip.mkv")
    copied = copy(path, tmp_path / "copy.mkv")
    assert cover_art(copied) == cover_art(tmp_path / "clip.mp4")
    assert len(cover_art(copied)) == 1


@pytest.mark.parametrize(
    ("suffix", "expected"), [("mov", ["ger", "sve", "hr ", "fra"]), ("mp4", ["deu", "swe", "hrv", "fre"])]
)
def test_languages_are_written_as_the_container_knows_them(tmp_path, suffix, expected):
    path = tmp_path / "clip.mkv"
    with (
        av.open(str(make_clip(tmp_path / "plain.mkv", audio=["aac"] * 4))) as source,
        av.open(str(path), "w") as output,
    ):
        copies = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for stream, language in zip(source.streams.audio, ("deu", "swe", "hrv", "fre"), strict=True):
            copies[stream.index].metadata["language"] = language
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    assert [tags.language for tags in stream_tags(copy(path, tmp_path / f"copy.{suffix}"))] == expected


@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_timecode_is_kept(tmp_path, suffix, caplog):
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, width=64, height=48)
        video.metadata["timecode"] = "01:02:03:04"
        for pts in range(5):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    with av.open(str(copy(path, tmp_path / f"copy.{suffix}"))) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
        assert [stream.metadata["timecode"] for stream in container.streams] == ["01:02:03:04"] * 2
    assert not caplog.records


def _with_telemetry(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, width=64, height=48)
        telemetry = output.add_data_stream("klv")
        for pts in range(5):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 25)
            output.mux(video.encode(frame))
            output.mux(_text_packet(telemetry, b"\x06\x0e\x2b\x34here", start=pts * 40, duration=40))
        output.mux(video.encode(None))
    return path


def test_data_that_does_not_fit_is_left_out_with_a_warning(tmp_path, caplog):
    path = _with_telemetry(tmp_path / "clip.ts")
    with caplog.at_level(logging.WARNING), av.open(str(copy(path, tmp_path / "copy.mp4"))) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert ".mp4 cannot hold data stream #1" in caplog.text
    caplog.clear()
    copy(path, tmp_path / "quiet.mp4", drop=["data"])
    assert not caplog.records


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "copy.mp4",
            r"\.mp4 cannot hold srt \(subtitles\), hand\.ttf \(attachments\) of clip\.mkv; write \.mkv instead, "
            r"or leave it out with --drop subtitles --drop attachments",
        ),
        ("copy.mov", r"\.mov cannot hold srt \(subtitles\), hand\.ttf \(attachments\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(tmp_path, target, message):
    path = make_rich_clip(tmp_path / "clip.mkv", subtitles=[("subrip", SRT)], font=True)
    before = sorted(os.listdir(tmp_path))
    with open_source(path) as source, pytest.raises(InputError, match=message) as raised:
        open_sink(tmp_path / target, source.info)
    assert "\n" not in str(raised.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_cover_art_does_not_fit_into_mov(tmp_path):
    path = make_rich_clip(tmp_path / "clip.mp4", cover=True)
    with open_source(path) as source, pytest.raises(InputError, match=r"mjpeg \(attachments\).*\.mp4 or \.mkv"):
        open_sink(tmp_path / "copy.mov", source.info)


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        (["subtitles", "attachments"], ["video", "audio", "audio"]),
        (["audio"], ["video", "subtitle", "attachment"]),
        (["audio", "subtitles", "data", "attachments"], ["video"]),
    ],
)
def test_drop(tmp_path, drop, left):
    path = make_rich_clip(tmp_path / "clip.mkv", subtitles=[("subrip", SRT)], font=True)
    copied = copy(path, tmp_path / f"copy.{'mkv' if 'attachment' in left else 'mp4'}", drop=drop)
    with av.open(str(copied)) as container:  # the hidden stream of data is where MP4 keeps chapters
        assert [stream.type for stream in container.streams if stream.type != "data"] == left
    assert chapters(copied) == chapters(path)


def test_unknown_kind_to_drop(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    message = "cannot leave out 'sound'; expected one of audio, subtitles, data, attachments"
    with open_source(path) as source, pytest.raises(InputError, match=message):
        open_sink(tmp_path / "copy.mp4", source.info, drop=["sound"])
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_statistics_of_the_old_file_are_not_copied(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(make_clip(tmp_path / "plain.mkv", audio=["aac"]))) as source, av.open(str(path), "w") as output:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for copied in copies.values():
            copied.metadata.update({"BPS-eng": "1", "NUMBER_OF_FRAMES": "2", "_STATISTICS_TAGS": "BPS", "AUTHOR": "me"})
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    with av.open(str(copy(path, tmp_path / "copy.mkv"))) as container:
        assert set(container.streams.audio[0].metadata) == {"AUTHOR", "DURATION"}
        assert set(container.streams.video[0].metadata) == {"DURATION"}


def test_tags_in_another_encoding_are_no_obstacle(tmp_path):
    path = make_rich_clip(tmp_path / "clip.mkv")
    content = path.read_bytes()
    assert content.count(b"A film") == 1
    path.write_bytes(content.replace(b"A film", b"A f\xe9lm"))
    assert global_tags(copy(path, tmp_path / "copy.mp4"))["title"] == "A f\N{REPLACEMENT CHARACTER}lm"


def test_a_codec_that_cannot_be_decoded_is_one_clear_line(tmp_path):
    path = make_clip(tmp_path / "clip.mkv")
    content = path.read_bytes()
    assert content.count(b"V_MPEG4/ISO/AVC") == 1
    path.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(InputError, match="in a format that FFmpeg cannot decode; convert it"):
        open_source(path)
