"""`videonst doctor`: versions, devices, what is missing and the line that installs it."""

import importlib.metadata
import platform
from typing import Any

import typer

from videonst import __version__
from videonst.cli.console import Json, print_json

PACKAGES = {
    "numpy": "", "opencv-python": "", "av": "", "onnxruntime": "", "onnxruntime-gpu": "",
    "torch": "train", "torchvision": "train", "onnx": "train", "onnxscript": "train", "matplotlib": "train",
    "starlette": "web", "uvicorn": "web", "websockets": "web", "pyvirtualcam": "camera",
}  # fmt: skip
"""Distributions to report, with the extra that brings them."""


def command(as_json: Json = False) -> None:
    """Check this installation. Exit code 1 if something needed for conversion does not work."""
    from videonst.demo import CLIP
    from videonst.engines.providers import check_devices, distribution_conflict
    from videonst.models import list_models
    from videonst.sources.hardware import hardware_decoders, trouble

    versions = {name: _version(name) for name in PACKAGES}
    devices = check_devices()
    conflict = distribution_conflict()
    decoders = {device: trouble(device, CLIP) for device in hardware_decoders()}
    models = [m.name for m in list_models()]
    training = all(versions[name] for name, extra in PACKAGES.items() if extra == "train")
    problems = [p for p in (conflict, None if models else "no models are installed; install videonst again") if p]
    if not any(d.device == "cpu" and d.works for d in devices):
        problems.append("not even the CPU works; run: pip install --force-reinstall onnxruntime")
    report: dict[str, Any] = {
        "videonst": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
        "devices": [{"device": d.device, "works": d.works, "reason": d.reason, "install": d.install} for d in devices],
        "hwaccel": [{"device": d, "works": not reason, "reason": reason} for d, reason in decoders.items()],
        "models": models,
        "training": training,
        "problems": problems,
    }
    if as_json:
        print_json(report)
    else:
        _print(report)
    if problems:
        raise typer.Exit(1)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(report: dict[str, Any]) -> None:
    typer.echo(f"videonst {report['videonst']}, Python {report['python']}, {report['system']}")
    typer.echo("packages: " + ", ".join(f"{n} {v}" for n, v in report["packages"].items() if v))
    typer.echo("models:   " + (", ".join(report["models"]) or "none"))
    for device in report["devices"]:
        state = "works" if device["works"] else f"no: {device['reason']}"
        typer.echo(f"{device['device']:<9} {state}" + (f"; run: {device['install']}" if device["install"] else ""))
    for decoder in report["hwaccel"]:
        state = "works" if decoder["works"] else f"no: {decoder['reason']}"
        typer.echo(f"decoding  {decoder['device']} {state}")
    if not report["training"]:
        typer.echo("training  no: torch and its companions are missing; run: pip install 'videonst[train]'")
    for problem in report["problems"]:
        typer.echo(f"PROBLEM: {problem}")
