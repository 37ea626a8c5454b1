"""mien show: what a recipe asks for. mien runs: what trainings came to."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from mien.recipe import Recipe


def show(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or YAML file; without one, their list.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, on top of the recipe.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Levels of layers to show.")] = 2,
) -> None:
    """Show a recipe: every section with what its words mean, and the table of layers."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mien.recipe import Recipe, load_recipe, recipe_names

    if recipe is None:
        table = Table("recipe", "about")
        for name in recipe_names():
            table.add_row(name, escape(load_recipe(name).about))
        Console().print(table)
        return
    chosen = load_recipe(recipe, settings or ())
    Console().print(f"[bold]{escape(chosen.name)}[/]: {escape(chosen.about)}", highlight=False)
    for name in chosen.__struct_fields__:
        section = getattr(chosen, name)
        if hasattr(section, "__struct_fields__"):
            _section(name, section)
    if isinstance(chosen, Recipe):
        _layers(chosen, depth)


def _section(name: str, section: Any) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"\n[bold]{name}[/]")
    for key in section.__struct_fields__:
        console.print(escape(f"  {key}: {getattr(section, key)}"))
    text = " ".join((type(section).__doc__ or "").split())
    console.print(f"  [dim]{escape(text)}[/]")


def _layers(recipe: Recipe, depth: int) -> None:
    from rich.console import Console
    from rich.table import Table

    try:
        from mien.models.summary import summarise
    except ModuleNotFoundError as error:
        raise MissingExtra.of("The table of layers needs PyTorch", "train") from error
    from mien.labels import label_set

    layers = summarise(recipe.network, label_set(recipe.data.labels), recipe.crop, depth)
    whole = layers[0]
    table = Table("layer", "kind", "output", "parameters", "million multiply-adds")
    for layer in layers[1:]:
        name = "  " * (layer.depth - 1) + layer.name.rpartition(".")[2]
        shape = "x".join(map(str, layer.shape))
        table.add_row(name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.mmacs:,.1f}")
    Console().print(table)
    print(
        f"{whole.parameters:,} parameters ({4 * whole.parameters / 1e6:,.1f} MB in float32), "
        f"{whole.mmacs:,.1f} million multiply-adds a chip"
    )


def runs(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")],
) -> None:
    """List and compare runs: epochs done, the last held-out figures, whether each is finished; of a search its trials."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = [run for folder in folders for run in _runs(folder)]
    if not found:
        raise DataError(f"{folders[0]}: no runs here; a run holds recipe.yaml")
    rows = [(run, _last(run / "metrics.csv")) for run in found]
    names = sorted({name for _, row in rows for name in row if name.startswith("val/") or name == "train/loss"})
    table = Table("run", "recipe", "epochs", *names, "finished")
    for run, row in rows:
        epochs = str(int(row["epoch"]) + 1) if row else "0"
        table.add_row(
            escape(str(run)), escape(_name(run)), epochs, *(row.get(name, "-") for name in names), _state(run)
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _runs(folder: Path) -> list[Path]:
    """The runs in a folder, or itself; of a search (mien tune) its trials, if it is named itself."""
    if _is_search(folder):
        return sorted(path.parent for path in folder.glob("trials/*/recipe.yaml"))
    if (folder / "recipe.yaml").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/recipe.yaml") if not _is_search(path.parent))


def _is_search(folder: Path) -> bool:
    return (folder / "study.db").is_file()


def _state(run: Path) -> str:
    if _is_search(run.parent.parent):
        return "trial"
    return "yes" if (run / "weights.safetensors").is_file() else "no"


def _name(run: Path) -> str:
    from mien.recipe import load_recipe

    return load_recipe(run / "recipe.yaml").name


def _last(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows[-1] if rows else {}
