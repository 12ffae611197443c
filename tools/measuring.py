"""What the tools that measure frames of a size have in common."""

import argparse

from videonst.bench.json_values import check_json
from videonst.errors import InputError
from videonst.resize import Resize


def checked_size(
    parser: argparse.ArgumentParser, args: argparse.Namespace, multiple: int, least: int
) -> tuple[int, int]:
    """Width and height that `--size` gives, multiples from `least` on, once `--json` is known to be writable; else the
    program ends in a line."""
    try:
        size = Resize.parse(args.size).size
        if args.json:
            check_json(args.json)
    except InputError as error:
        parser.error(str(error))
    if size is None or any(side % multiple for side in size) or min(size) < least:
        parser.error(f"--size {args.size}: expected WIDTHxHEIGHT, multiples of {multiple} from {least} on")
    return size
