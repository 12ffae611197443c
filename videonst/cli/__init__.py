"""The command line: one module per verb. Verbs parse, call the library and print; heavy imports wait inside them."""

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from videonst import __version__
from videonst.cli import bench, convert, demo, doctor, export, learn, live, models, serve, styles, train
from videonst.cli.console import complain, watch_for_interrupt
from videonst.errors import VideoNSTError
from videonst.memory import keep_freed_memory

app = typer.Typer(
    name="videonst",
    help="Repaint moving pictures in the style of a painting.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (convert, live, serve, learn, models, demo, doctor, train, export):
    app.command(verb.__name__.rpartition(".")[2])(verb.command)

app.add_typer(styles.app, name="styles")
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"videonst {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and detailed messages.")] = False,
) -> None:
    """Options before the verb."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    if debug:
        os.environ[DEBUG] = "1"


DEBUG = "VIDEONST_DEBUG"
"""Set: failures show their traceback."""

INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed on the way, 2 bad input or usage, 130 interrupted by Ctrl-C."""
    watch_for_interrupt()
    keep_freed_memory()
    try:
        app(prog_name="videonst")
    except VideoNSTError as error:
        if DEBUG in os.environ:
            raise
        complain(str(error))
        sys.exit(error.exit_code)
    except ImportError as error:
        if DEBUG in os.environ or "lib" not in str(error):
            raise
        complain(f"{error}; on Debian or Ubuntu run: apt-get install libgl1 libglib2.0-0")
        sys.exit(VideoNSTError.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
