"""The command line: one verb, one file. Heavy imports happen inside the verb."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import mien
from mien.cli import (
    calibrate,
    compare,
    data,
    ensemble,
    evaluate,
    export,
    models,
    page,
    predict,
    report,
    serve,
    show,
    train,
    tune,
    watch,
)
from mien.errors import MienError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Reads faces: expression, valence and arousal; and trains such models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(predict.predict)
app.command()(watch.watch)
app.command()(report.report)
app.command()(serve.serve)
app.command()(page.page)
app.command()(train.train)
app.command()(tune.tune)
app.command()(show.show)
app.command()(show.runs)
app.command()(export.export)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(ensemble.ensemble)
app.command()(calibrate.calibrate)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mien {mien.__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


def main() -> None:
    """The entry point: a MienError is one line and exit code 2; a bug keeps its traceback."""
    try:
        app()
    except MienError as error:
        print(f"mien: error: {error}", file=sys.stderr)
        sys.exit(2)
