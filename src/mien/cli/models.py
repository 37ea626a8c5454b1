"""mien models: the model files known by name."""

from __future__ import annotations

from typing import Annotated

import typer

from mien.errors import ModelNotFound, near_miss

app = typer.Typer(help="The model files known by name: list, pull, where.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="A name from `mien models list`.")]


@app.command("list")
def list_() -> None:
    """Every known model file, and whether it is here."""
    from rich.console import Console
    from rich.table import Table

    from mien.runtime.store import ENTRIES, locate

    table = Table("name", "kind", "here", "licence", "about")
    for entry in ENTRIES.values():
        table.add_row(entry.name, entry.kind, "yes" if locate(entry) else "no", entry.licence, entry.about)
    Console().print(table)


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


def _entry(name: str):  # type: ignore[no-untyped-def]
    from mien.runtime.store import ENTRIES

    if name not in ENTRIES:
        raise ModelNotFound(f"{name}: no model of that name; {near_miss(name, ENTRIES)}")
    return ENTRIES[name]
