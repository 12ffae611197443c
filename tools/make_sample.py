"""Makes the clip and the picture that the package ships (videonst/samples).

    pip install scikit-image && python tools/make_sample.py

Slow camera moves over three photographs of scikit-image, free to use: `astronaut` (NASA, public domain), `coffee`
(Rachel Michetti, CC0) and `chelsea` (Stefan van der Walt, CC0), with a few chords of synthesised sound.
"""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data

SAMPLES = Path(__file__).resolve().parent.parent / "videonst" / "samples"
WIDTH, HEIGHT, RATE, SOUND_RATE = 640, 360, 24, 44100
SHOT_FRAMES = 44
# photograph, then the camera's window at the first and last frame: centre x, centre y, width (pixels of the photograph)
SHOTS = [
    ("astronaut", (235, 150, 330), (225, 175, 470)),
    ("coffee", (200, 190, 330), (350, 210, 440)),
    ("chelsea", (240, 150, 440), (200, 140, 260)),
]
CHORDS = [(220.0, 277.2, 329.6), (185.0, 233.1, 277.2), (146.8, 220.0, 293.7)]


def frames():
    for name, start, end in SHOTS:
        photo = getattr(data, name)()
        for i in range(SHOT_FRAMES):
            t = i / (SHOT_FRAMES - 1)
            t = t * t * (3 - 2 * t)
            x, y, width = (a + (b - a) * t for a, b in zip(start, end, strict=True))
            scale = WIDTH / width
            move = np.array([[scale, 0, WIDTH / 2 - scale * x], [0, scale, HEIGHT / 2 - scale * y]])
            yield cv2.warpAffine(
                photo, move, (WIDTH, HEIGHT), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101
            )


def sound() -> np.ndarray:
    samples = SHOT_FRAMES * SOUND_RATE // RATE
    t = np.arange(samples) / SOUND_RATE
    envelope = np.minimum(t / 0.4, 1) * np.minimum((t[-1] - t) / 0.4, 1)
    chords = [envelope * sum(np.sin(2 * np.pi * f * t) for f in chord) / 12 for chord in CHORDS]
    return np.concatenate(chords).astype(np.float32)


def main() -> None:
    SAMPLES.mkdir(parents=True, exist_ok=True)
    target = SAMPLES / "sample.mp4"
    with av.open(str(target), "w", options={"movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=RATE, options={"crf": "22", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.colorspace, video.codec_context.color_range = 6, 1  # BT.601, limited
        audio = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for index, pixels in enumerate(frames()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        wave = av.AudioFrame.from_ndarray(sound()[None], format="fltp", layout="mono")
        wave.sample_rate, wave.pts, wave.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        out.mux(audio.encode(wave))
        out.mux(audio.encode(None))
    photo = cv2.cvtColor(data.astronaut()[0:360, 60:420], cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(SAMPLES / "portrait.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 92])
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
