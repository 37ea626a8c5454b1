"""mien train: from a recipe and a data folder to a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.errors import MissingExtra


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: Annotated[Path, typer.Option(help="The folder of the recipe's data.")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, on top of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with an unfinished run.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores by default.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="For a detector's recipe: the ONNX file to learn from; YuNet by default.")
    ] = None,
) -> None:
    """Train a recipe. The run folder keeps the resolved recipe, checkpoints, metrics and weights."""
    from mien.errors import ConfigError
    from mien.recipe import DetectorRecipe, load_recipe

    chosen = load_recipe(recipe, settings or ())
    try:
        from mien.training.face import fit_detector
        from mien.training.fit import fit
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Training needs PyTorch and Lightning", "train") from error
    bar = sys.stderr.isatty()
    if isinstance(chosen, DetectorRecipe):
        from mien.runtime.store import ENTRIES, fetch

        teacher = teacher or fetch(ENTRIES["yunet"])
        weights = fit_detector(chosen, data, out, teacher, resume, threads, _track, bar)
    elif teacher:
        raise ConfigError(f"--teacher: {chosen.name} learns from labels; only detectors' recipes take a teacher")
    else:
        weights = fit(chosen, data, out, resume, threads, _track, bar)
    print(f"weights: {weights}\nnext: mien export {out} --out {chosen.name}.onnx")


def _track(rows: Iterable[Any]) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    total = len(rows) if isinstance(rows, Sized) else None
    return track(rows, "preparing", total=total, console=Console(stderr=True), disable=not sys.stderr.isatty())
