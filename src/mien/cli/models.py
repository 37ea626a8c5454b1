"""mien models: the model files known by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mien.errors import ModelError, ModelNotFound, near_miss

if TYPE_CHECKING:
    from mien.runtime.store import Entry

app = typer.Typer(help="The model files known by name: list, pull, where.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="A name from `mien models list`.")]


@app.command("list")
def list_() -> None:
    """Every known model file, and whether it is here."""
    from rich.table import Table

    from mien.cli.tables import print_table
    from mien.runtime.store import ENTRIES

    table = Table("name", "kind", "here", "licence", "about")
    for entry in ENTRIES.values():
        table.add_row(entry.name, entry.kind, _here(entry), entry.licence, entry.about)
    print_table(table)


@app.command()
def pull(name: _Name) -> None:
    """Fetch a model file into the cache."""
    from mien.runtime.store import fetch

    print(fetch(_entry(name)))


@app.command()
def where(name: _Name) -> None:
    """Print where a model file lies."""
    from mien.runtime.store import locate

    entry = _entry(name)
    path = locate(entry)
    if path is None:
        raise ModelNotFound(f"{name}: not here yet; fetch it with: mien models pull {name}")
    print(path)


def _here(entry: Entry) -> str:
    from mien.runtime.store import locate

    try:
        return "yes" if locate(entry) else "no"
    except ModelError as error:
        return str(error)


def _entry(name: str) -> Entry:
    from mien.runtime.store import ENTRIES

    if name not in ENTRIES:
        raise ModelNotFound(f"{name}: no model of that name; {near_miss(name, ENTRIES)}")
    return ENTRIES[name]
