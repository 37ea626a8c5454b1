"""mien train: from a recipe and a data folder to a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import MissingExtra

if TYPE_CHECKING:
    from mien.recipe import DetectorRecipe, Recipe


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="The place of the recipe's data: one for each of its sources, in their order, or a manifest; then that of data.auxiliary, if it is another."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, on top of the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with an unfinished run; a recipe's name alone takes the run's own settings.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="A run, a weights file or a model to start from, of the same layers; a narrower one is widened."
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            help="A run, or a table of predictions of the training rows, to learn from (several allowed); for a detector's "
            "recipe an ONNX file, YuNet by default."
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard's log into the run folder.")] = False,
    wandb: Annotated[
        bool,
        typer.Option(help="Log to Weights & Biases, offline into the run folder unless WANDB_MODE says otherwise."),
    ] = False,
) -> None:
    """Train a recipe. The run folder keeps the resolved recipe, checkpoints, metrics and weights."""
    from mien.errors import ConfigError
    from mien.recipe import DetectorRecipe

    chosen = wanted_recipe(recipe, settings or (), out if resume else None)
    try:
        from mien.training.face import fit_detector
        from mien.training.fit import fit
        from mien.training.folder import rank_here
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Training needs PyTorch and Lightning", "train") from error
    bar = sys.stderr.isatty()
    if isinstance(chosen, DetectorRecipe):
        from mien.runtime.store import ENTRIES, fetch

        if len(teacher or ()) > 1 or len(data) > 1:
            raise ConfigError(f"{chosen.name}: a detector's recipe takes one --teacher and one --data")
        source = teacher[0] if teacher else fetch(ENTRIES["yunet"])
        weights = fit_detector(chosen, data[0], out, source, resume, threads, track, bar, init, tell)
    else:
        loggers = _loggers(out, chosen.name, tensorboard, wandb)
        weights = fit(chosen, data, out, resume, threads, track, bar, init, teacher or (), loggers=loggers, tell=tell)
    if rank_here(chosen.trainer) == 0:
        report = f"\nreport: {out / 'report.html'}" if (out / "report.html").is_file() else ""
        second = out / "auxiliary.safetensors"
        other = f"\nsecond head: {second}" if second.is_file() else ""
        print(f"weights: {weights}{other}{report}\nnext: mien export {out} --out {chosen.name}.onnx")


def wanted_recipe(name: str, settings: Sequence[str], resumed: Path | None = None) -> Recipe | DetectorRecipe:
    """The recipe as asked for; that of the resumed run, where nothing but its recipe's name in the package is given."""
    from mien.recipe import load_recipe, recipe_names

    written = None if resumed is None else resumed / "recipe.yaml"
    if written is not None and not settings and name in recipe_names() and written.is_file():
        begun = load_recipe(written)
        if begun.name == name:
            return begun
    return load_recipe(name, settings)


def tell(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)  # above Lightning's bar, where there is one


def _loggers(out: Path, name: str, tensorboard: bool, wandb: bool) -> list[Any]:
    loggers: list[Any] = []
    try:
        if tensorboard:
            from lightning.pytorch.loggers import TensorBoardLogger

            loggers.append(TensorBoardLogger(out, name="tensorboard", version=""))
        if wandb:
            from lightning.pytorch.loggers import WandbLogger

            os.environ.setdefault("WANDB_MODE", "offline")
            loggers.append(WandbLogger(name=name, project="mien", save_dir=out))
    except ModuleNotFoundError as error:
        raise MissingExtra.of("These logs need tensorboard or wandb", "logs") from error
    return loggers


def track(rows: Iterable[Any]) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    total = len(rows) if isinstance(rows, Sized) else None
    return track(rows, "preparing", total=total, console=Console(stderr=True), disable=not sys.stderr.isatty())
