"""Weighted mean of a network and the same fine-tuned (Wortsman et al., *Robust fine-tuning of zero-shot models*, 2022).

    python tools/average_networks.py plain.onnx fast-steady.training/checkpoint.pt --share 0.75 --out averaged.pt
    videonst export averaged.pt models/fast.onnx --calibrate PHOTOGRAPHS

Between the two lies a choice of how much of what the fine-tuning gained, and of what it cost, is taken over.
"""

import argparse
from pathlib import Path

import torch

from videonst.export.onnx import load_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plain", type=Path, help="model file in fp32")
    parser.add_argument("tuned", type=Path, help="checkpoint of the fine-tuning")
    parser.add_argument("--share", type=float, required=True, help="of the fine-tuned weights, 0 to 1")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, for `videonst export`")
    args = parser.parse_args()
    plain = load_network(args.plain).state_dict()
    checkpoint = torch.load(args.tuned, map_location="cpu", weights_only=True)
    checkpoint["network"] = {
        name: torch.lerp(plain[name], value, args.share) if value.is_floating_point() else value
        for name, value in checkpoint["network"].items()
    }
    torch.save(checkpoint, args.out)


if __name__ == "__main__":
    main()
