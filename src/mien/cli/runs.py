"""mien runs: what trainings came to."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mien.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mien.recipe import DetectorRecipe, Recipe


class _Run(NamedTuple):
    """epochs: how many are done.  kept: the number, from 1, of the one whose weights are kept, and whose are the `figures`.

    Both are 0 before the first epoch ends.
    """

    folder: Path
    recipe: Recipe | DetectorRecipe
    epochs: int
    kept: int
    figures: dict[str, str]

    @property
    def state(self) -> str:
        if _is_search(self.folder.parent.parent):
            return "trial"
        return "yes" if (self.folder / "weights.safetensors").is_file() else "no"


def runs(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")],
) -> None:
    """List and compare runs: epochs done, held-out figures of the one that is kept, whether each is finished, means across folds;
    of a search its trials."""
    from rich.markup import escape
    from rich.table import Table

    from mien.cli.tables import print_table

    places = [run for folder in folders for run in _places(folder)]
    if not places:
        raise DataError(f"{folders[0]}: no runs here; a run holds recipe.yaml")
    found, failed = [], 0
    for place in places:
        try:
            found.append(_read(place))
        except ConfigError as error:
            print(f"mien: left out: {error}", file=sys.stderr)
            failed = 1
    names = sorted({name for run in found for name in run.figures if name.startswith("val/") or name == "train/loss"})
    table = Table("run", "recipe", "epochs", "kept", *names, "finished")
    for run in found:
        figures = [run.figures.get(name, "-") for name in names]
        numbers = str(run.epochs), str(run.kept) if run.kept else "-"
        table.add_row(escape(str(run.folder)), escape(run.recipe.name), *numbers, *figures, run.state)
    if found:
        print_table(table)
    groups = _folds(found)
    if groups:
        heads = map(escape, groups)
        across = Table("held-out rows", *heads, title="across folds: mean ± standard deviation (n - 1)")
        for name in (name for name in names if name.startswith("val/")):
            across.add_row(name, *(_spread(group, name) for group in groups.values()))
        print_table(across)
    if failed:
        raise typer.Exit(1)


def _places(folder: Path) -> list[Path]:
    """The runs in a folder, or itself; of a search (mien tune) its trials, if it is named itself."""
    if _is_search(folder):
        return sorted(path.parent for path in folder.glob("trials/*/recipe.yaml"))
    if (folder / "recipe.yaml").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/recipe.yaml") if not _is_search(path.parent))


def _is_search(folder: Path) -> bool:
    return (folder / "study.db").is_file()


def _read(folder: Path) -> _Run:
    """Raises ConfigError: its recipe is none that this mien knows."""
    from mien.recipe import kept_epoch, load_recipe

    recipe, path = load_recipe(folder / "recipe.yaml"), folder / "metrics.csv"
    lines: list[dict[str, str]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    if not lines:
        return _Run(folder, recipe, 0, 0, {})
    kept = lines[kept_epoch(recipe, lines)]
    return _Run(folder, recipe, int(lines[-1]["epoch"]) + 1, int(kept["epoch"]) + 1, kept)


def _folds(found: list[_Run]) -> dict[str, list[_Run]]:
    """Finished runs that differ by `data.fold` alone, by what names them; of one fold the first counts.

    They have the same recipe and seed, the same start, and chips in files of one size (a digest of many chips takes minutes).
    """
    from mien.recipe import Recipe

    groups: dict[tuple[bytes, str, int], dict[int, _Run]] = {}
    for run in found:
        if run.state == "yes" and isinstance(run.recipe, Recipe):
            try:
                groups.setdefault(_alike(run), {}).setdefault(run.recipe.data.fold, run)
            except ConfigError as error:
                print(f"mien: {error}; the run is left out of means across folds", file=sys.stderr)
    named: dict[str, list[_Run]] = {}
    for group in groups.values():
        if len(group) > 1:
            first = next(iter(group.values()))
            name = f"{first.recipe.name}, seed {first.recipe.seed}, folds {', '.join(map(str, sorted(group)))}"
            named[name if name not in named else f"{name} ({first.folder}, ...)"] = list(group.values())
    return named


def _alike(run: _Run) -> tuple[bytes, str, int]:
    """What runs that differ by their fold alone have in common. Raises ConfigError: what the run started from cannot be read."""
    import msgspec

    from mien.recipe import run_facts

    recipe = msgspec.to_builtins(run.recipe)
    recipe["data"]["fold"], recipe["about"] = 0, ""
    facts, chips = run_facts(run.folder), run.folder / "chips.parquet"
    hashes = [fact["sha256"] for fact in (facts.get("init"), *facts.get("teachers", [])) if fact]
    return msgspec.json.encode(recipe), " ".join(hashes), chips.stat().st_size if chips.is_file() else 0


def _spread(group: list[_Run], name: str) -> str:
    """Mean and deviation of a figure; '-' where a run has none."""
    told = [run.figures.get(name) for run in group]
    if not all(told):
        return "-"
    values = [float(value) for value in told if value]
    return f"{mean(values):.5f} ± {stdev(values):.5f}"
