"""Rows of text files, checked: numbers, codes, landmarks. Every refusal names the file and the row.

In a file with a header, rows are counted from 0 below it; in a list without one, lines are counted from 1.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import DataError

__all__ = ["box", "code", "csv_header", "csv_rows", "lines", "number", "points"]

_WHOLE = re.compile(r"[+-]?[0-9]+")


def _fields(path: Path) -> Iterator[list[str]]:
    """The records of a CSV file that are not blank; semicolons or tabs part them where the first line has no comma, as Excel writes it
    in Europe. Raises DataError for what is no UTF-8 or no CSV."""
    read = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            sign = next((sign for sign in ",;\t" if sign in first), ",")
            for fields in csv.reader(file, delimiter=sign, skipinitialspace=True):
                if fields:
                    read += 1
                    yield fields
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, near line {read + 1}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}, near line {read + 1}: not CSV ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def csv_header(path: Path) -> list[str]:
    """The first record of a CSV file, stripped; empty if the file is empty."""
    return [name.strip() for name in next(_fields(path), [])]


def csv_rows(
    path: Path, needed: Sequence[str] = (), headless: Sequence[str] | None = None, what: str = "rows"
) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row as (where, {column: text}), one after another.

    needed: columns that must be there.  headless: the columns of a file whose header line is absent.
    what: the word for its rows, for the message about an empty file.
    Raises DataError: an empty file, a column that is not there or there twice, a row of another length.
    """
    records = _fields(path)
    columns = [name.strip() for name in next(records, [])] if headless is None else list(headless)
    missing = [name for name in needed if name not in columns]
    if missing:
        found = ",".join(columns) or "empty"
        raise DataError(f"{path}: the header is {found}; expected {','.join(needed)} (no {', '.join(missing)})")
    if len(set(columns)) != len(columns):
        raise DataError(f"{path}: the header names a column twice: {','.join(columns)}")
    at = -1
    for at, fields in enumerate(records):
        where = f"{path}, row {at}"
        if len(fields) != len(columns):
            raise DataError(f"{where}: {len(fields)} fields; expected {len(columns)}: {','.join(columns)}")
        yield where, {name: text.strip() for name, text in zip(columns, fields, strict=True)}
    if at < 0:
        raise DataError(f"{path}: no {what} here: the file ends after its header; is it cut off?")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line as (where, text), blank ones included, counted from 1. Raises DataError for what is no UTF-8."""
    at = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for at, line in enumerate(file, 1):
                yield f"{path}, line {at}", line.strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, near line {at + 1}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def number(value: Any, where: str, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high], from text or a number. Raises DataError."""
    try:
        if isinstance(value, str) and "_" in value:
            raise ValueError
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{where}: {name}: {value!r} is not a number")
    if not low <= found <= high:
        raise DataError(f"{where}: {name}: {value} is not between {low:g} and {high:g}")
    return found


def code(value: Any, where: str, name: str, low: int, high: int) -> int:
    """A whole number from low to high, from text or a number. Raises DataError."""
    text = str(value).strip()
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise DataError(f"{where}: {name} {value!r}; expected a code from {low} to {high}")
    return int(text)


def points(values: Sequence[Any], where: str, counts: Sequence[int] = (68,)) -> np.ndarray:
    """Landmarks from x, y, x, y ...: (n, 2) float32, n one of `counts`. Raises DataError."""
    expected = " or ".join(str(2 * count) for count in counts)
    if len(values) not in [2 * count for count in counts]:
        raise DataError(f"{where}: landmarks: {len(values)} numbers; expected {expected}")
    try:
        found = np.array(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: landmarks: not numbers ({error})") from error
    if not np.isfinite(found).all():
        raise DataError(f"{where}: landmarks: not all of them are finite numbers")
    return found.reshape(-1, 2)


def box(values: Sequence[Any], where: str) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 with x0 < x1 and y0 < y1. Raises DataError."""
    if len(values) != 4:
        raise DataError(f"{where}: box: {len(values)} numbers; expected x0,y0,x1,y1")
    x0, y0, x1, y1 = (number(value, where, "box") for value in values)
    if x0 >= x1 or y0 >= y1:
        raise DataError(f"{where}: box: {x0:g},{y0:g},{x1:g},{y1:g} is empty; expected x0 < x1 and y0 < y1")
    return x0, y0, x1, y1
