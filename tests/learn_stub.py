"""Stands in for `videonst learn` in tests of the server: tells of progress, waits, and adds a style of noise.

It ends when a file `stop` lies in its folder, and fails where the new style is called `broken`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from videonst.bank import StyleBank
from videonst.engines.metadata import StyleInfo

PATIENCE = 150.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("painting", type=Path)
    for option in ("--as", "--title", "--into", "--out", "--minutes", "--stroke-size"):
        parser.add_argument(option, required=True)
    for flag in ("--overwrite", "--int8"):
        parser.add_argument(flag, action="store_true")
    options = vars(parser.parse_args())
    name, out = options["as"], Path(options["out"])
    folder = out.with_suffix(".learning")
    assert cv2.imread(str(options["painting"])) is not None
    cv2.imwrite(str(folder / "preview.png"), np.full((8, 8, 3), 99, np.uint8))
    (folder / "options.json").write_text(json.dumps({k: str(v) for k, v in options.items()} | {"nice": os.nice(0)}))
    progress = {
        "step": 7,
        "share": 0.5,
        "seconds": 1.0,
        "seconds_left": 61.0,
        "scores": {name: 0.5},
        "state": "learning",
        "features": "vgg19",
    }
    (folder / "progress.json").write_text(json.dumps(progress))
    if name == "broken":
        sys.exit("videonst: this painting cannot be learnt")
    ends = time.monotonic() + PATIENCE
    while not (folder / "stop").exists():
        assert time.monotonic() < ends, "never told to stop"
        time.sleep(0.02)
    bank = StyleBank(Path(options["into"]))
    row = np.random.default_rng(5).normal(1, 0.5, bank.rows.shape[1]).astype(np.float32)
    bank.set_styles([*bank.styles.values(), (StyleInfo(name=name, title=options["title"]), row)])
    bank.save(out, overwrite=True)


if __name__ == "__main__":
    main()
