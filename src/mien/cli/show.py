"""mien show: what a recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import MissingExtra

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

    from mien.cli.tables import print_table
    from mien.recipe import Recipe, load_recipe, recipe_names

    if recipe is None:
        table = Table("recipe", "about")
        for name in recipe_names():
            table.add_row(name, escape(load_recipe(name).about))
        print_table(table)
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
    from rich.table import Table

    from mien.cli.tables import print_table

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
    print_table(table)
    print(
        f"{whole.parameters:,} parameters ({4 * whole.parameters / 1e6:,.1f} MB in float32), "
        f"{whole.mmacs:,.1f} million multiply-adds a chip"
    )
