"""A small copy of a clip for tools that convert it many times: fewer pixels, fewer frames, the same other streams."""

from pathlib import Path

import av


def small_clip(clip: Path, target: Path, *, width: int, every: int = 1, seconds: float | None = None) -> Path:
    """Writes every `every`-th picture of the first `seconds`, `width` pixels wide, as H.264 with B-frames at the same
    times; sound and subtitles as they are."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as output:
        shown = source.streams.video[0]
        height = round(shown.height * width / shown.width / 2) * 2
        video = output.add_stream("libx264", rate=shown.average_rate, options={"crf": "23", "bf": "2", "g": "25"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = shown.time_base
        others = [stream for stream in source.streams if stream.type in ("audio", "subtitle")]
        copies = {stream.index: output.add_stream_from_template(stream) for stream in others}
        count = 0
        for packet in source.demux([shown, *others]):
            if packet.pts is not None and seconds is not None and packet.pts * packet.time_base >= seconds:
                continue
            if packet.stream_index != shown.index:
                if packet.size:
                    packet.stream = copies[packet.stream_index]
                    output.mux(packet)
                continue
            for picture in packet.decode():
                if count % every == 0:
                    scaled = picture.reformat(width, height, "yuv420p")
                    scaled.pts, scaled.time_base, scaled.pict_type = picture.pts, picture.time_base, 0
                    output.mux(video.encode(scaled))
                count += 1
        output.mux(video.encode(None))
    return target
