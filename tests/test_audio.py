"""Sound that the container cannot hold is encoded anew: the same sound, at the same time."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import copy, make_clip

from videonst.errors import InputError
from videonst.sinks import open_sink
from videonst.sources import open_source
from videonst.trim import Trim

RATE = 48000
SECONDS = 2
IN_STEP = 0.001
"""Seconds; a WebM counts in them."""


def bursts(rate: int, channels: int) -> np.ndarray:
    """Tones of 50 ms that rise in pitch, one every 0.2 s, float (channels, samples); no two places are alike."""
    time = np.arange(SECONDS * rate) / rate
    tone = np.sin(2 * np.pi * (300 + 400 * np.floor(time / 0.2)) * time) * (time % 0.2 < 0.05) * 0.5
    return np.stack([tone * (1 - 0.3 * channel) for channel in range(channels)]).astype(np.float32)


def clip_with_sound(
    path: Path,
    codec: str,
    *,
    rate: int = RATE,
    layout: str = "stereo",
    start: Fraction = Fraction(0),
    gap: bool = False,
) -> Path:
    """With `gap`, the sound of 0.8 s to 1.2 s is not in the file."""
    plain = make_clip(path.with_name("plain.mkv"), pts=range(0, SECONDS * 1000, 100), last_duration=100)
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        sound = output.add_stream(codec, rate=rate, layout=layout)
        sound.metadata["language"] = "fra"
        samples = bursts(rate, sound.codec_context.channels)
        resampler = av.AudioResampler(sound.codec_context.format, layout, rate)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        for index in range(0, samples.shape[1], 960):
            if gap and 0.8 <= index / rate < 1.2:
                continue
            packed = np.ascontiguousarray(samples[:, index : index + 960].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), index + int(start * rate)
            for converted in resampler.resample(frame):
                output.mux(sound.encode(converted))
        output.mux(sound.encode(None))
    return path


def heard(path: Path, stream: int = 0) -> np.ndarray:
    """The first channel from time 0 on, 48,000 samples a second, as a player plays it."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", None, RATE)
        sound = np.zeros((SECONDS + 2) * RATE, np.float32)
        for decoded in container.decode(container.streams.audio[stream]):
            for frame in resampler.resample(decoded):
                samples = frame.to_ndarray()[0, :: frame.layout.nb_channels]
                at = round(frame.pts * frame.time_base * RATE)
                first = max(0, -at)
                sound[at + first : at + len(samples)] = samples[first:]
    return sound


def delay(before: np.ndarray, after: np.ndarray) -> float:
    """Seconds by which `after` is late, from the peak of the cross-correlation; asserts that they sound alike."""
    size = 2 * len(before)
    product = np.fft.irfft(np.conj(np.fft.rfft(before, size)) * np.fft.rfft(after, size), size)
    assert product.max() > 0.8 * np.sqrt((before**2).sum() * (after**2).sum())
    lag = int(product.argmax())
    return (lag - size if lag > size // 2 else lag) / RATE


@pytest.mark.parametrize(
    ("codec", "container", "target", "written"),
    [
        ("aac", "mp4", "webm", "opus"),
        ("pcm_s16le", "mov", "webm", "opus"),
        ("libmp3lame", "mkv", "webm", "opus"),
        ("wavpack", "mkv", "mp4", "aac"),
        ("libopus", "mkv", "mov", "aac"),
    ],
)
def test_it_sounds_the_same_at_the_same_time(tmp_path, codec, container, target, written, caplog):
    path = clip_with_sound(tmp_path / f"clip.{container}", codec)
    copied = copy(path, tmp_path / f"copy.{target}")
    assert "which is encoded anew" in caplog.text
    with av.open(str(copied)) as output:
        (stream,) = output.streams.audio
        assert stream.codec_context.codec.canonical_name == written
        assert stream.codec_context.channels == 2
        assert stream.metadata.get("language") == ("fra" if container != "mov" else stream.metadata.get("language"))
    before, after = heard(path), heard(copied)
    assert abs(delay(before, after)) <= IN_STEP
    assert np.flatnonzero(np.abs(after) > 0.05)[-1] / RATE == pytest.approx(1.85, abs=0.02)  # all of it is there


@pytest.mark.parametrize("rate", [44100, 22050])
@pytest.mark.parametrize("target", ["webm", "mp4"])
def test_other_rates(tmp_path, rate, target):
    path = clip_with_sound(tmp_path / "clip.mkv", "wavpack", rate=rate)
    copied = copy(path, tmp_path / f"copy.{target}")
    assert abs(delay(heard(path), heard(copied))) <= IN_STEP


@pytest.mark.parametrize("layout", ["mono", "quad", "5.1", "5.1(side)", "7.1"])
@pytest.mark.parametrize("target", ["webm", "mp4"])
def test_other_channels(tmp_path, layout, target):
    path = clip_with_sound(tmp_path / "clip.mkv", "wavpack", layout=layout)
    copied = copy(path, tmp_path / f"copy.{target}")
    with av.open(str(path)) as before, av.open(str(copied)) as after:
        assert after.streams.audio[0].codec_context.channels == before.streams.audio[0].codec_context.channels
    assert abs(delay(heard(path), heard(copied))) <= IN_STEP


@pytest.mark.parametrize("target", ["webm", "mp4"])
def test_sound_that_starts_late_or_has_gaps_stays_in_step(tmp_path, target):
    path = clip_with_sound(tmp_path / "clip.mkv", "wavpack", start=Fraction(1, 4), gap=True)
    before, after = heard(path), heard(copy(path, tmp_path / f"copy.{target}"))
    assert abs(delay(before, after)) <= IN_STEP
    for part in (slice(RATE), slice(int(1.45 * RATE), None)):  # each side of the gap on its own
        assert abs(delay(before[part], after[part])) <= IN_STEP
    assert np.abs(after[int(1.12 * RATE) : int(1.43 * RATE)]).max() < 0.05


@pytest.mark.parametrize("target", ["webm", "mp4"])
def test_a_part_is_cut_to_the_sample(tmp_path, target):
    path = clip_with_sound(tmp_path / "clip.mkv", "wavpack")
    cut = copy(path, tmp_path / f"cut.{target}", trim=Trim.parse(start="0.5", end="1.3"))
    expected = np.zeros_like(heard(path))
    wanted = heard(path)[int(0.5 * RATE) : int(1.3 * RATE)]
    expected[: len(wanted)] = wanted
    got = heard(cut)
    assert abs(delay(expected, got)) <= IN_STEP
    assert np.abs(got[int(0.83 * RATE) :]).max() < 0.05
    with av.open(str(cut)) as container:
        stream = container.streams.video[0]
        assert min(packet.pts for packet in container.demux(stream) if packet.size) * stream.time_base == 0


def test_only_what_does_not_fit_is_encoded_anew(tmp_path):
    path = make_clip(tmp_path / "clip.mkv", audio=["libopus", "aac"])
    copied = copy(path, tmp_path / "copy.webm")
    with av.open(str(path)) as before, av.open(str(copied)) as after:
        assert [s.codec_context.codec.canonical_name for s in after.streams.audio] == ["opus", "opus"]
        kept = [bytes(p) for p in before.demux(before.streams.audio[0]) if p.size]
        assert [bytes(p) for p in after.demux(after.streams.audio[0]) if p.size] == kept


def test_sound_is_left_out_on_request(tmp_path, caplog):
    path = make_clip(tmp_path / "clip.mp4", audio=["aac"])
    with av.open(str(copy(path, tmp_path / "copy.webm", drop=["audio"]))) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert not caplog.records


def test_subtitles_that_do_not_fit_are_refused(tmp_path):
    from test_streams import SRT, make_rich_clip

    path = make_rich_clip(tmp_path / "clip.mkv", subtitles=[("subrip", SRT)])
    with open_source(path) as source, pytest.raises(InputError, match=r"\.webm cannot hold srt \(subtitles\)"):
        open_sink(tmp_path / "out.webm", source.info)
