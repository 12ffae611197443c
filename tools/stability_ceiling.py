"""What a perfect motion would give on Sintel: the ceiling of docs/benchmarks/stability.md.

    python tools/stability_ceiling.py ../shared/data/sintel [--model fast] [--style udnie ...]

Prints the warping error of each scene, mean over the styles, and its ratio to the unsteadied painting: with the flow
as it is found, with the inverted ground truth and the trust judged as always, with the ground truth's occlusions as
trust, and with those but without the clamp. The pair with ground truth is carried so, the frames before as found.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

import videonst
from videonst.bench.scenes import Scene, sintel_scenes
from videonst.frame import Frame
from videonst.styles import StyleMix
from videonst.temporal import DEFAULT_STEADY, Stabiliser
from videonst.temporal.carry import HostCarry, Way, whole
from videonst.temporal.flow import DisFlow, Field, Plane, grey_at, place_of, resample, trust
from videonst.temporal.metrics import Motion, sharpness, warping_error
from videonst.temporal.stabiliser import history_share

ROUNDS = 8
"""Of the fixed point `back(p) = -flow(p + back(p))`, after splatting."""


def inverted(motion: Motion) -> tuple[Field, Plane]:
    """The way back, from the second frame, and 1 where the first shows it too."""
    height, width = motion.valid.shape
    place = place_of(motion.flow)
    splat = np.zeros((height, width, 3))
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = (np.floor(place[..., i]).astype(int) + d for i, d in enumerate((dx, dy)))
        weight = (1 - np.abs(place[..., 0] - x)) * (1 - np.abs(place[..., 1] - y))
        seen = motion.valid & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        values = np.dstack((motion.flow, np.ones_like(weight))) * weight[..., None]
        np.add.at(splat, (y[seen], x[seen]), values[seen])
    known = splat[..., 2] > 0.25
    back = np.zeros_like(motion.flow)
    back[known] = -(splat[known][:, :2] / splat[known][:, 2:])
    for _ in range(ROUNDS):
        nearer = -resample(motion.flow, place_of(back))
        same_layer = known & (np.linalg.norm(nearer - back, axis=2) < 0.5)
        back[same_layer] = nearer[same_layer]
    return back, known.astype(np.float32)


def errors(engine: videonst.Stylizer, scene: Scene, style: str, flow: str) -> dict[str, tuple[float, float]]:
    """Warping error and sharpness against the unsteadied frame, by the way of carrying."""
    ((first, second), motion), mix = next(iter(scene.motions.items())), StyleMix.parse(style)
    frames = [Frame(pixels, pts=i, time_base=Fraction(1, 25)) for i, pixels in enumerate(scene.frames)]
    plain = [engine.engine.stylize(frame, mix).pixels for frame in frames[: second + 1]]
    stabiliser = Stabiliser(engine.engine, flow=DisFlow(flow))
    held = [stabiliser.stylize(frame, mix).pixels for frame in frames[: second + 1]]
    back, known = inverted(motion)
    greys = [grey_at(scene.frames[i], min(known.shape)) for i in (first, second)]
    judged, _ = trust(*greys, motion.flow, back, 1.0)
    painting, share, carry = plain[second], history_share(DEFAULT_STEADY), HostCarry()
    shown = {"unsteadied": painting, "flow as found": held[second]}
    for name, trusted in (("true flow", judged), ("true flow and occlusions", known)):
        way = Way(back, trusted, 0.0)
        moved = carry.move(held[first].astype(np.float32), way)
        weight = (share * trusted)[..., None]
        free = whole((painting + weight * (moved - painting)).astype(np.float32))
        shown[name] = carry.merge(painting, moved, way, share)[1]
    shown["the same without the clamp"] = free
    return {
        name: (
            warping_error(plain[first] if name == "unsteadied" else held[first], picture, motion),
            sharpness(picture) / sharpness(painting),
        )
        for name, picture in shown.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sintel", type=Path)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--flow", default="medium")
    parser.add_argument("--style", action="append")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    styles = args.style or ["starry_night", "udnie", "great_wave", "the_scream"]
    engine, scenes = videonst.load(args.model, device="cpu"), sintel_scenes(args.sintel)
    found = [[errors(engine, scene, style, args.flow) for style in styles] for scene in scenes]
    print("| | " + " | ".join(scene.name for scene in scenes) + " | mean | sharpness |")
    print("| --- |" + " --- |" * (len(scenes) + 2))
    for name in found[0][0]:
        values, plain = (np.array([[e[key][0] for e in of] for of in found]).mean(1) for key in (name, "unsteadied"))
        pairs = zip([*values, values.mean()], [*plain, plain.mean()], strict=True)
        cells = [f"{value:.3f} ({value / alone:.2f})" for value, alone in pairs]
        sharp = np.mean([[e[name][1] for e in of] for of in found])
        print(f"| {name} | " + " | ".join(cells) + f" | {sharp:.2f} |")


if __name__ == "__main__":
    main()
