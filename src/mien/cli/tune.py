"""mien tune: better settings for a recipe on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.errors import ConfigError, MissingExtra


def tune(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or YAML file.")],
    data: Annotated[list[Path], typer.Option(help="As for `mien train`.")],
    out: Annotated[Path, typer.Option(help="The folder of the search.")],
    trials: Annotated[
        int, typer.Option(min=1, help="Trials in all, those of an earlier part of the search included.")
    ] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(help="section.key=low..high or section.key=a,b,c; by default rate, decay, dropout and smoothing."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, on top of the recipe: fewer epochs, for one.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a search that was stopped, or make it longer.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
) -> None:
    """Search settings of a recipe: a sweep for the learning rate, then Optuna's trials; the best becomes a recipe."""
    from rich.table import Table

    from mien.cli.tables import print_table
    from mien.cli.train import tell, track, wanted_recipe
    from mien.recipe import DetectorRecipe

    chosen = wanted_recipe(recipe, settings or (), out if resume else None)
    if isinstance(chosen, DetectorRecipe):
        raise ConfigError(f"{chosen.name}: a detector's recipe; tune searches recipes of expressions")
    try:
        from mien.training.tune import tune as run
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Training needs PyTorch and Lightning", "train") from error
    done = run(chosen, data, out, trials, search or (), resume, threads, track, tell)
    names = list(dict.fromkeys(name for one in done for name in one.settings))
    table = Table("trial", "state", f"best val/{chosen.schedule.monitor}", *names)
    for one in sorted(
        done, key=lambda one: (one.state != "complete", one.value * (1 if _less(chosen.schedule.monitor) else -1))
    ):
        cells = [
            f"{one.settings[n]:.4g}" if isinstance(one.settings.get(n), float) else str(one.settings.get(n, ""))
            for n in names
        ]
        table.add_row(str(one.number), one.state, f"{one.value:.4f}" if one.value == one.value else "-", *cells)
    places = " ".join(f"--data {place}" for place in data)
    print_table(table)
    print(f"best: {out / 'best.yaml'}\nnext: mien train {out / 'best.yaml'} {places} --out runs/{chosen.name}-tuned")


def _less(monitor: str) -> bool:
    from mien.sections import LEAST

    return monitor in LEAST
