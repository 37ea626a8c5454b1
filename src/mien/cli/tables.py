"""How verbs print tables: every word and figure whole, however narrow the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

#: Columns of a pipe or a file, where `COLUMNS` does not say.
PIPE = 160


def print_table(table: Table) -> None:
    """Print a table as narrow as the terminal: columns wrap between words; only a row's name of more than a third of the width within one.

    Where that is not narrow enough each row is told in words instead, every value after its column's name.
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE, highlight=False)
    table.box, table.padding, table.pad_edge, table.show_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False, False
    table.title_justify = table.caption_justify = "left"
    heads = [str(column.header) for column in table.columns]
    columns = [[head, *map(str, column.cells)] for head, column in zip(heads, table.columns, strict=True)]
    sizes = [[console.measure(cell) for cell in cells] for cells in columns]
    least = [max(size.minimum for size in column) for column in sizes]
    least[0], table.columns[0].overflow = min(least[0], console.width // 3), "fold"
    widths = _fit(
        least,
        [max(size.maximum for size in column) for column in sizes],
        console.width - 2 * (len(columns) - 1),
    )
    if widths:
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        console.print(table)
        return
    if table.title:
        console.print(table.title, style="italic")
    for name, *values in list(zip(*columns, strict=True))[1:]:
        words = spoken(heads[1:], values)
        if console.measure(line := f"{name}; {words}").maximum + 2 <= console.width:
            console.print(Padding(line, (0, 0, 0, 2)))
        else:
            console.print(Padding(name, (0, 0, 0, 2)), Padding(words, (0, 0, 0, 4)))


def spoken(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Cells in words: each after its column's name, intervals in brackets, nothing of an empty one.

    >>> spoken(["accuracy", "95 % interval", "ECE"], ["88 %", "87 to 89 %", ""])
    'accuracy 88 % (87 to 89 %)'
    """
    words = ""
    for name, cell in zip(heads, cells, strict=True):
        if cell:
            words += f" ({cell})" if "95 %" in name else f"; {name} {cell}" if name else f"; {cell}"
    return words.removeprefix("; ").strip()


def _fit(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Widths of columns that together take `room`, the widest made narrower first, none below its longest word; empty: there are none."""
    widths = list(most)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            return []
        widths[widest] -= 1
    return widths
