"""`videonst models`: which models are installed."""

from typing import Any

from videonst.cli.console import Json, print_json


def command(as_json: Json = False) -> None:
    """List the models that are installed."""
    from videonst.models import list_models

    rows: list[dict[str, Any]] = [
        {
            "name": m.name,
            "tier": m.metadata.tier,
            "precision": m.metadata.precision,
            "styles": len(m.metadata.styles),
            "training_steps": m.metadata.training.steps,
            "size_bytes": m.size,
            "path": str(m.path),
        }
        for m in list_models()
    ]
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "tier", "precision", "styles", "training steps", "size", "path", box=None)
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:.1f} MB"
        table.add_row(
            row["name"], row["tier"], row["precision"], str(row["styles"]), str(row["training_steps"]), size,
            row["path"],
        )  # fmt: skip
    Console().print(table)
