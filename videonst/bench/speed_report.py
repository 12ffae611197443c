"""Reports of `videonst.bench.speed`: JSON, Markdown tables, a plot, the comparison of two reports."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from videonst.bench.json_values import rounded
from videonst.bench.speed import SpeedRow
from videonst.errors import InputError

FORMAT = "videonst-speed-1"
"""Of the JSON."""

STAGES = ("decode", "upload", "network", "download", "flow", "stabiliser", "encode")
"""In the order of the way; upload and download only on a device."""

KEY = ("model", "precision", "device", "size", "flow")
"""What tells rows apart."""


def make_report(
    rows: Sequence[SpeedRow], machine: Mapping[str, Any], start_up: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All that was measured, as JSON values."""
    made = []
    for row in rows:
        derived = {"overlap": row.overlap, "reached": row.reached, "from_floor": row.from_floor}
        made.append(asdict(row) | derived | {"fps": row.whole.fps})
    report: dict[str, Any] = {"format": FORMAT, "machine": dict(machine), "rows": rounded(made, 4)}
    return report | ({"start_up_s": dict(start_up)} if start_up else {})


def read_report(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: not there, or no report of this kind.
    """
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON; expected a report of videonst bench speed --json") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise InputError(f"{path} is no report of this version; expected one of videonst bench speed --json")
    rows = report.get("rows")
    if not (rows and isinstance(rows, list) and isinstance(report.get("machine"), dict) and all(map(_is_row, rows))):
        raise InputError(f"{path} is not whole; expected a report of videonst bench speed --json")
    return report


def tables(report: Mapping[str, Any]) -> str:
    """The report as Markdown: stages, then the whole way."""
    rows = report["rows"]
    stages = [stage for stage in STAGES if any(stage in row["stages"] for row in rows)]
    alone = []
    for row in rows:
        network = row["stages"]["network"]
        times = [_ms(row["stages"].get(stage)) for stage in stages]
        if row.get("hwaccel"):
            times[0] += f" ({row['hwaccel']})"
        floor = [_number(row["floor_ms"]), _number(row["from_floor"])]
        many = f"{_ms(row['at_once'])} ({row['painters']})" if row.get("at_once") else ""
        alone.append([*_names(row), *times, _percentiles(network), f"{1000 / network['ms']:.1f}", many, *floor])
    together = []
    for row in rows:
        rates = [f"{row['fps']:.1f}", _number(row["bound_ms"]), f"{row['reached']:.2f}", f"{row['overlap']:.2f}"]
        delay = [_ms(row["delay"]), _percentiles(row["delay"])]
        # Reports of before this was measured have no such row.
        between = f"{1000 / row['through']['ms']:.1f}" if row.get("through") else ""
        together.append([*_names(row), between, _ms(row["whole"]), *rates, *delay, _number(row["peak_mb"], 0)])
    percentiles = "p50 / p95 / p99"
    head = [*_HEAD, *stages, f"network {percentiles}", "network fps", "several at once", "floor", "times the floor"]
    whole = [
        "frames to frames, fps",
        "whole",
        "fps",
        "bound",
        "reached",
        "over slowest stage",
        "delay",
        f"delay {percentiles}",
        "peak MB",
    ]
    parts = [_table(head, alone), _table([*_HEAD, *whole], together)]
    if "start_up_s" in report:
        lines = [
            [name, f"{_middle(s):.2f}", f"{min(s):.2f}", f"{max(s):.2f}"] for name, s in report["start_up_s"].items()
        ]
        parts.append(_table(["process", "median s", "least", "most"], lines))
    return "\n\n".join(parts)


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Times of `new` over those of `old`, stage by stage, as a Markdown table; only what both have. Below it, whether
    they come from different machines or versions.

    Raises:
        InputError: they have no row in common.
    """
    before = {tuple(row[key] for key in KEY): row for row in old["rows"]}
    pairs = [(before[key], row) for row in new["rows"] if (key := tuple(row[k] for k in KEY)) in before]
    if not pairs:
        raise InputError("the two reports have no model and size in common, so there is nothing to compare")
    stages = [stage for stage in STAGES if any(stage in row["stages"] for _, row in pairs)]
    lines = []
    for was, now in pairs:
        ratios = [
            f"{now['stages'][stage]['ms'] / was['stages'][stage]['ms']:.2f}"
            if stage in now["stages"] and stage in was["stages"]
            else ""
            for stage in stages
        ]
        rest = [
            f"{now[key]['ms'] / was[key]['ms']:.2f}" if now.get(key) and was.get(key) else ""
            for key in ("at_once", "through", "whole", "delay")
        ]
        lines.append([*_names(now), *ratios, *rest])
    table = _table([*_HEAD, *stages, "several at once", "frames to frames", "whole", "delay"], lines)
    changed = [
        f"{key} {old['machine'].get(key)} → {new['machine'].get(key)}"
        for key in ("processor", "cores", "gpu", "versions")
        if old["machine"].get(key) != new["machine"].get(key)
    ]
    for was, now in pairs:
        if was.get("hwaccel") != now.get("hwaccel"):
            changed.append(f"decoding {was.get('hwaccel') or 'software'} → {now.get('hwaccel') or 'software'}")
            break
    return f"{table}\n\nNot only the times differ: {'; '.join(changed)}" if changed else table


def draw_plot(path: Path, report: Mapping[str, Any]) -> None:
    """Stacked time of each stage alone, by size and model, beside the time of the whole.

    Raises:
        InputError: as `check_plot`.
    """
    check_plot(path)
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = report["rows"]
    told = ["model", "precision", *(key for key in ("device", "flow") if len({row[key] for row in rows}) > 1)]
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(1.5 + 3.6 * len(sizes), 4.4), layout="constrained", squeeze=False
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        shown = [row for row in rows if row["size"] == size]
        places = range(len(shown))
        bottom = [0.0] * len(shown)
        for stage in STAGES:
            heights = [row["stages"].get(stage, {"ms": 0.0})["ms"] for row in shown]
            if any(heights):
                axes.bar(places, heights, bottom=bottom, label=stage)
                bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
        axes.plot(places, [row["whole"]["ms"] for row in shown], "k_", markersize=24, label="file to file")
        axes.set_xticks(places, ["\n".join(row[key] for key in told) for row in shown])
        axes.set_title(size)
    panels[0][0].set_ylabel("ms a frame, each stage alone")
    panels[0][-1].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def check_plot(path: Path) -> None:
    """What can be known before there is anything to draw.

    Raises:
        InputError: matplotlib is missing, or the plot cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("the plot needs matplotlib; run: pip install 'videonst[train]'")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot draw {path.name}; expected a name that ends in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no directory {path.parent}; create it first")


def _is_row(row: object) -> bool:
    """With what every version has written."""
    return isinstance(row, dict) and row.keys() >= {*KEY, *_ALWAYS}


_ALWAYS = ("stages", "delay", "whole", "fps", "bound_ms", "reached", "overlap", "peak_mb", "floor_ms", "from_floor")

_HEAD = ("model", "size", "device", "flow by")


def _names(row: Mapping[str, Any]) -> list[str]:
    name = row["model"] if row["precision"] == "fp32" else f"{row['model']}.{row['precision']}"
    return [f"`{name}`", row["size"], row["device"], row["flow"]]


def _ms(timing: Mapping[str, float] | None) -> str:
    return _number(timing["ms"]) if timing else ""


def _percentiles(timing: Mapping[str, float]) -> str:
    return " / ".join(_number(timing[key]) for key in ("p50", "p95", "p99"))


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))
