"""Peak memory of `convert` on a short clip and on a long one, as docs/benchmarks/speed.md reports it.

    python tools/measure_memory.py [--seconds 10 600] [--size 1280x720] [--model tiny.int8] [--json …]

Each in a process of its own (VmHWM). Without --model frames pass untouched: decoding, queues and encoding alone, which
is what could grow with the length. The long clip is the short one's packets over and over. Linux only.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

import av
from measuring import checked_size

from videonst.bench.json_values import write_json
from videonst.bench.machine import describe_machine, peak_resident_mb
from videonst.bench.peak import peak_of_convert
from videonst.bench.stages import RATE, sample_frames, write_clip

LIMIT = 1.10
"""Of the long clip's peak over the short one's."""


def repeat(clip: Path, target: Path, times: int) -> None:
    """The packets of `clip`, `times` over."""
    with av.open(str(target), "w") as out:
        with av.open(str(clip)) as source:
            stream = out.add_stream_from_template(source.streams.video[0])
        offset = 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                for packet in source.demux(video):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        out.mux(packet)
                offset += video.duration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, nargs=2, default=(10, 600))
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--model", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    short, long = args.seconds
    if short < 1 or long % short:
        parser.error(f"the long clip is the short one over and over; {long} s is no multiple of {short}")
    size = checked_size(parser, args, multiple=2, least=2)
    if peak_resident_mb() is None:
        parser.error("this system does not tell the memory of a process; Linux does")
    report = {"machine": describe_machine(), "size": args.size, "model": args.model or "none", "peak_mb": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(folder / "short.mp4", itertools.islice(sample_frames(size), short * RATE))
        repeat(folder / "short.mp4", folder / "long.mp4", long // short)
        for clip, seconds in (("short", short), ("long", long)):
            peak = peak_of_convert(folder / f"{clip}.mp4", folder / f"{clip}.out.mp4", args.model)
            report["peak_mb"][f"{seconds} s"] = peak
    first, second = report["peak_mb"].values()
    report["ratio"] = round(second / first, 3)
    print(json.dumps(report, indent=1))
    if args.json:
        write_json(args.json, report)
    sys.exit(0 if report["ratio"] <= LIMIT else f"{report['ratio']} is over {LIMIT}")


if __name__ == "__main__":
    main()
