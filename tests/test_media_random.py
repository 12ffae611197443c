"""Random streams and cuts: whatever a clip holds, what belongs to the part arrives, in step, and nothing else."""

import tempfile
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import av
from clips import make_clip, stream_packets, video_timing
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st
from test_streams import chapters

import videonst
from videonst.errors import InputError

SOUNDS = {".mkv": ("aac", "libmp3lame", "libopus", "flac", "pcm_s16le"), ".mp4": ("aac", "libmp3lame")}
TARGETS = {".mkv": (".mkv",), ".mp4": (".mp4", ".mov", ".mkv")}
"""What holds every stream of the clip as it is; texts and other codecs are the business of test_streams.py."""

MS = Fraction(1, 1000)


class Clip(NamedTuple):
    """Times in 1/1000 s."""

    suffix: str
    target: str
    pts: list[int]
    last: int
    b_frames: int
    keyframe_interval: int
    sounds: list[str]
    texts: list[list[tuple[int, int]]]
    chapters: list[tuple[int, int]]


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    suffix = draw(st.sampled_from(list(SOUNDS)))
    steps = draw(st.lists(st.integers(1, 250), min_size=4, max_size=16))
    pts = list(accumulate(steps, initial=draw(st.sampled_from([0, 0, 40, 1234]))))
    last = draw(st.integers(1, 200))
    bounds = draw(st.lists(st.integers(0, pts[-1] + last), min_size=2, max_size=8, unique=True).map(sorted))
    intervals = [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=False)]
    texts = draw(st.integers(0, 2)) if suffix == ".mkv" else 0
    return Clip(
        suffix,
        draw(st.sampled_from(TARGETS[suffix])),
        pts,
        last,
        draw(st.integers(0, 2)),
        draw(st.integers(1, 8)),
        draw(st.lists(st.sampled_from(SOUNDS[suffix]), max_size=3)),
        [intervals] * texts,
        draw(st.sampled_from([[], list(pairwise([0, *bounds]))])) if bounds[0] else [],
    )


def written(clip: Clip, folder: Path) -> Path:
    plain = make_clip(
        folder / f"plain{clip.suffix}", pts=clip.pts, last_duration=clip.last, b_frames=clip.b_frames,
        keyframe_interval=clip.keyframe_interval, audio=clip.sounds, size=(32, 32),
    )  # fmt: skip
    path = folder / f"clip{clip.suffix}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        output.set_chapters(
            [
                {"id": i, "start": start, "end": end, "time_base": MS, "metadata": {"title": str(i)}}
                for i, (start, end) in enumerate(clip.chapters)
            ]
        )
        copies = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        texts = [output.add_mux_stream("subrip") for _ in clip.texts]
        for number, (stream, intervals) in enumerate(zip(texts, clip.texts, strict=True)):
            stream.time_base = MS
            for index, (start, end) in enumerate(intervals):
                packet = av.Packet(f"{number}.{index}".encode())
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = end - start, MS, stream
                output.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    return path


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(Clip(".mp4", ".mp4", [40, 41, 42, 43, 44], 1, 0, 1, ["aac"], [], []), 0, None)  # sound ends before the picture
@given(clips(), st.none() | st.integers(0, 3000), st.none() | st.integers(1, 2000))
def test_what_belongs_to_the_part_arrives(clip, start, length):
    with tempfile.TemporaryDirectory() as folder:
        path = written(clip, Path(folder))
        out = Path(folder) / f"out{clip.target}"
        origin = first_moment(path)
        begin = origin + (start or 0) * MS
        end = None if length is None else begin + length * MS
        before = video_timing(path)
        wanted = [t for t in before if (start is None or t.start >= begin) and (end is None or t.start < end)]
        arguments = {
            "start": None if start is None else Fraction(start, 1000),
            "end": None if length is None else Fraction((start or 0) + length, 1000),
        }
        try:
            videonst.convert(path, out, engine="none", preset="ultrafast", **arguments)
        except InputError as error:
            note(str(error))
            assert not wanted
            assert not out.exists()
            return
        after = video_timing(out)
        moved = wanted[0].start if start is not None else 0
        coarse = clip.suffix == ".mkv" or clip.target == ".mkv"
        rounding = MS if coarse else Fraction(1, 48000)
        shift = after[0].start - (wanted[0].start - moved)  # Matroska has no time before 0
        assert len(after) == len(wanted)
        assert shift + rounding >= 0
        for got, expected in zip(after, wanted, strict=True):
            assert abs(got.start - shift - (expected.start - moved)) <= (rounding if coarse else 0)
        ended = [] if end is None else [end]
        old, new = stream_packets(path), stream_packets(out)
        assert len(old) == len(clip.sounds) + len(clip.texts)
        if clip.target in (".mp4", ".mov") and len(new) < len(old):  # FFmpeg passes over a track without packets there
            old = [packets for packets in old if any(moved < t + d and (end is None or t < end) for t, d, _ in packets)]
        assert len(new) == len(old)
        for packets, copied in zip(old[: len(clip.sounds)], new, strict=False):
            check_sound(packets, copied, moved if start is not None else None, shift, ended, rounding)
        for intervals, copied in zip(clip.texts, new[len(clip.sounds) :], strict=True):
            cut = cut_to(intervals, moved if start is not None else None, ended)
            assert len(copied) == len(cut)
            for (time, duration, _), (first, last) in zip(copied, cut, strict=True):
                assert abs(time - shift - first) <= 2 * rounding
                assert abs(duration - (last - first)) <= 2 * rounding
        stated = [(int(first / MS), int(last / MS)) for _, first, last in chapters(path)]
        cut = cut_to(stated, moved if start is not None else None, ended)
        kept = chapters(out)
        assert len(kept) == len(cut)
        for (_, first, last), expected in zip(kept, cut, strict=True):
            assert abs(first - expected[0]) <= 2 * MS
            assert abs(last - expected[1]) <= 2 * MS


def first_moment(path: Path) -> Fraction:
    """When the first packet of sound or picture is shown, not before 0."""
    with av.open(str(path)) as container:
        streams = (*container.streams.video, *container.streams.audio)
        starts = [p.pts * p.time_base for p in container.demux(streams) if p.size and not p.is_discard]
    return max(Fraction(0), min(starts))


def cut_to(
    intervals: list[tuple[int, int]], start: Fraction | None, ended: list[Fraction]
) -> list[tuple[Fraction, Fraction]]:
    """What of the intervals lies in the part, from its start on."""
    cut = [(max(a * MS, start or 0), min([b * MS, *ended])) for a, b in intervals]
    return [(a - (start or 0), b - (start or 0)) for a, b in cut if a < b]


def check_sound(packets, copied, start, shift, ended, rounding) -> None:
    """A run of the packets without a gap: every one that sounds in the part, at most one more to either side."""
    if start is None and not ended:
        assert [data for *_, data in copied] == [data for *_, data in packets]
    if not copied:
        assert not [p for p in packets if p[0] + p[1] > (start or 0) + rounding and all(p[0] < e for e in ended)]
        return
    run = next(
        i for i, p in enumerate(packets)
        if p[2] == copied[0][2] and abs(copied[0][0] - shift - (p[0] - (start or 0))) <= 2 * rounding
    )  # fmt: skip
    assert [data for *_, data in copied] == [data for *_, data in packets[run : run + len(copied)]]
    for got, expected in zip(copied, packets[run:], strict=False):
        assert abs(got[0] - shift - (expected[0] - (start or 0))) <= 2 * rounding
    if start is not None and run > 0:
        assert packets[run][0] <= start + rounding <= packets[run][0] + 2 * packets[run][1] + 2 * rounding
    after = packets[run + len(copied) :]
    for end in ended:
        assert copied[-1][0] - shift + (start or 0) < end + rounding
        assert not after or after[0][0] >= end - rounding
    if not ended:
        assert not after
