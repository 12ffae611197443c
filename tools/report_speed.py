"""Puts the tables of docs/benchmarks/speed.md, and README's, in place from the JSON beside it.

    python tools/report_speed.py

Tables stand between `<!-- NAME: begin -->` and `<!-- NAME: end -->`; the words around them are written by hand.
"""

import json
import re
from pathlib import Path

from compare_layouts import table as layout_table

from videonst.bench.speed_report import draw_plot, read_report, tables

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "benchmarks"


def fill(path: Path, name: str, text: str) -> None:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    content = path.read_text()
    assert pattern.search(content), f"{path} has no place for {name}"
    path.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", content))


ABOUT = {
    "tiny": ("0.09 M", "0.5 MB", "weak machines, live"),
    "fast": ("0.41 M", "1.9 MB", "the default"),
    "full": ("1.66 M", "7.0 MB", "GPUs; trained least so far, and on a par with `fast`"),
}
"""Weights, size of the fp32 file and use of each tier, for README."""


def headline(rows: list[dict]) -> str:
    """README's table, at 640x360."""
    alone = [row for row in rows if row["flow"] == "medium"]
    network = {(row["model"], row["precision"]): 1000 / row["stages"]["network"]["ms"] for row in alone}
    whole = {(row["model"], row["flow"]): row["fps"] for row in rows if row["precision"] == "int8"}
    lines = [["model", "weights", "file", "network, fps", "in 8 bits", "file to file, 8 bits", "for"], ["---"] * 7]
    for tier, (weights, size, use) in ABOUT.items():
        rates = (network.get((tier, "fp32")), network.get((tier, "int8")), whole.get((tier, "fast")))
        lines.append([f"`{tier}`", weights, size, *("" if rate is None else f"{rate:.0f}" for rate in rates), use])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def side_by_side(rows: list[dict]) -> str:
    """README's sentence on the layouts in use."""
    times = {row["layout"]: f"{row['times_Johnson 2016']:.2g}" for row in rows}
    ours = [
        f"`{tier}` {times[tier]} times as fast"
        + (f" ({times[eight]} in 8 bits)" if (eight := f"{tier}.int8") in times else "")
        for tier in ABOUT
    ]
    return f"Against the layout of Johnson et al. 2016, taking turns in one run: {', '.join(ours)}."


def about(machine: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1_minute']} at the start; {versions}"


def main() -> None:
    page = FOLDER / "speed.md"
    speed = read_report(FOLDER / "speed.json")
    for name in ("speed-full", "speed-flow-fast"):
        if (FOLDER / f"{name}.json").exists():
            speed["rows"] += read_report(FOLDER / f"{name}.json")["rows"]
    fill(page, "machine", about(speed["machine"]))
    fill(page, "speed", tables(speed))
    draw_plot(FOLDER / "speed.png", {**speed, "rows": [row for row in speed["rows"] if row["flow"] == "medium"]})
    fill(ROOT / "README.md", "headline", headline([row for row in speed["rows"] if row["size"] == "640x360"]))
    layouts = json.loads((FOLDER / "layouts.json").read_text())
    fill(page, "layouts", layout_table(layouts["rows"]))
    fill(ROOT / "README.md", "layouts", side_by_side(layouts["rows"]))
    memory = json.loads((FOLDER / "memory.json").read_text())
    peaks = ", ".join(f"{mb:.0f} MB for {seconds}" for seconds, mb in memory["peak_mb"].items())
    fill(page, "memory", f"{memory['size']}, engine {memory['model']}: {peaks}; ratio {memory['ratio']:.2f}.")


if __name__ == "__main__":
    main()
