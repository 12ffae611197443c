"""Writes models/TIER.md from the model file's own metadata and the quality rows of tools/evaluate.py.

python tools/evaluate.py models/fast.onnx --json docs/benchmarks/quality-fast.json
python tools/model_card.py fast
"""

import argparse
import json
from pathlib import Path

from evaluate import PUBLISHED

from videonst.engines.metadata import read_metadata

ROOT = Path(__file__).resolve().parents[1]

# Share of the better published score (evaluate.PUBLISHED) that a tier is to reach.
FACTOR = {"full": 0.85, "fast": 0.95, "tiny": 1.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tier", choices=FACTOR)
    tier = parser.parse_args().tier
    path = ROOT / "models" / f"{tier}.md"
    path.write_text(card(tier), encoding="utf-8")
    print(path)


def card(tier: str) -> str:
    metadata = read_metadata(ROOT / "models" / f"{tier}.onnx")
    quality = {
        n: json.loads((ROOT / "docs" / "benchmarks" / f"quality-{tier}{n}.json").read_text())["styles"]
        for n in ("", "-8")
    }
    recipe = metadata.training.recipe
    steady = any(stage.get("temporal", 0) > 0 for stage in recipe["stages"])
    files = {
        path.name: use
        for suffix, use in ((".onnx", "fp32, {:.1f} MB, CPU"), (".fp16.onnx", "{:.1f} MB, GPU"),
                            (".int8.onnx", "{:.1f} MB, live on a CPU"))
        if (path := ROOT / "models" / f"{tier}{suffix}").exists()
    }  # fmt: skip
    sizes = {name: (ROOT / "models" / name).stat().st_size / 1e6 for name in files}
    described = ", ".join(f"`{name}` ({use.format(sizes[name])})" for name, use in files.items())
    lines = [
        f"# {tier}",
        "",
        f"Multi-style network with conditional instance normalisation, tier `{tier}`: {len(metadata.styles)} styles",
        f"and the photograph in one file. Files: {described}.",
        "",
        "## Training",
        "",
        f"- {metadata.training.steps:,} of the recipe's {recipe['steps']:,} steps of batch {recipe['batch']}, "
        f"on 2 CPU cores; recipe: `models/recipes/{tier}{'-steady' * steady}.toml`, commit {metadata.training.commit}.",
        f"- Data: {metadata.training.data} (research and non-commercial terms; mixed Creative Commons).",
        "- Paintings: public domain, listed below. Losses: VGG-19 (Visual Geometry Group, CC BY 4.0).",
        *(line if line.startswith("  ") else f"- {line}" for line in NOTES.get(tier, ())),
        "",
        "## Difference to torch, in levels of 8 bit (measured at export)",
        "",
        "| file | size | maximum | mean | 99.9 % |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {p.width}x{p.height} | {p.maximum} | {p.mean:.4f} | {p.p99_9:g} |"
            for name in files
            for p in read_metadata(ROOT / "models" / name).parity
        ),
        "",
        "## Quality on the 32 held-out photographs",
        "",
        "content: what of the photograph is lost; style: what of the painting is missing; score = content + 2 x style;",
        "sharp: gradients over the photograph's. Lower is better but for sharp, where a falling value means blur.",
        "Definitions: `quality.py` of the data folder. Made by",
        f"`python tools/evaluate.py models/{tier}.onnx --json docs/benchmarks/quality-{tier}.json`.",
        "",
        "| style | artist, year | score | content | style | sharp |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for style in metadata.styles:
        row = quality[""][style.name]
        lines.append(
            f"| {style.name} | {style.artist}, {style.title}, {style.year} | {row['score']:.3f} | {row['content']:.3f} "
            f"| {row['style']:.3f} | {row['sharp']:.2f} |"
        )
    lines += [
        "",
        "Against published networks, on the first 8 photographs, as their reference values are (`--limit 8`). Target: "
        f"at most {FACTOR[tier]:g} x the better published score.",
        "",
        "| style | score | published | ratio | target met |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, published in PUBLISHED.items():
        score = quality["-8"][name]["score"]
        met = "yes" if score <= FACTOR[tier] * published else "no"
        lines.append(f"| {name} | {score:.3f} | {published:.2f} | {score / published:.2f} | {met} |")
    return "\n".join(lines) + "\n"


NOTES: dict[str, tuple[str, ...]] = {
    "fast": (
        "That is the fine-tuning that makes it boil less. The weights are three quarters of its result and one quarter",
        "  of what it began from (`tools/average_networks.py`), as the whole of it cost a tenth of the style. It began",
        "  from 10,000 steps of `models/recipes/fast.toml`, not quite that recipe from its first step: until step",
        "  4,049 the grid loss knew period 2 only, and until step 6,548 the style statistics left out a border of 16",
        "  pixels. Both were mended in mid-run. An overflowing gradient at step 746 led to the guard that skips such",
        "  steps; the run went on from step 480.",
    ),
    "tiny": (
        "That is the fine-tuning that makes it boil less. The weights are three fifths of its result and two fifths",
        "  of what it began from (`tools/average_networks.py`), as the whole of it cost too much style. It began",
        "  from 11,317 steps of `models/recipes/tiny.toml`, not quite that recipe from its first step: until step",
        "  6,501 the grid loss knew period 2 only, and until step 8,274 the style statistics left out a border of 16",
        "  pixels and the rate followed a cosine of 10,000 steps.",
    ),
    "full": (
        "That is the fine-tuning that makes it boil less. The weights are 65 % of its result and 35 % of what it began",
        "  from (`tools/average_networks.py`), as the whole of it cost too much style. It began from 1,600 steps of",
        "  `models/recipes/full.toml`, grown from `fast` (Net2Wider): it has seen few steps at its own width, and is",
        "  the tier with most to gain from a GPU.",
    ),
}
"""What a reader of the card should know of a run beyond its recipe."""


if __name__ == "__main__":
    main()
