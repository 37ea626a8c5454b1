"""Rows of Parquet files in the Hugging Face image layout, read in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mien.data.sources.folders import Listed
from mien.errors import DataError

__all__ = ["class_names", "columns", "image", "parquets", "rows", "schema", "within"]

_BATCH = 512


def parquets(root: Path) -> list[Path]:
    """The Parquet files of a folder (or of its `data` folder), sorted; or the one file."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".parquet" else []
    return [path for folder in (root, root / "data") for path in within(folder)]


def within(folder: Path) -> list[Path]:
    """The Parquet files of a folder, sorted; none where no folder is."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() == ".parquet")


def schema(path: Path) -> pa.Schema:
    """The schema of a Parquet file. Raises DataError if it cannot be read."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def columns(path: Path) -> list[str]:
    """The names of the columns."""
    return list(schema(path).names)


def class_names(path: Path, column: str = "label") -> list[str]:
    """The names that a Hugging Face ClassLabel column gives its integers; empty if it gives none."""
    text = (schema(path).metadata or {}).get(b"huggingface")
    try:
        feature = json.loads(text)["info"]["features"][column] if text else {}
        names = feature.get("names", [])
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names]


def rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row as (where, {column: value}). Raises DataError: a column that is not there, a file without rows."""
    missing = [name for name in wanted if name not in columns(path)]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(columns(path))}")
    at = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, columns=list(wanted)):
                for row in batch.to_pylist():
                    yield f"{path}, row {at}", row
                    at += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}, near row {at}: not a readable Parquet file ({error})") from error
    if not at:
        raise DataError(f"{path}: no rows; is the file cut off?")


def image(value: Any, where: str, listed: Listed | None = None) -> bytes | Path:
    """The encoded picture of an image struct, or its path where the layout keeps pictures beside the file."""
    if isinstance(value, dict) and value.get("bytes"):
        return bytes(value["bytes"])
    if isinstance(value, dict) and value.get("path") and listed:
        return listed(value["path"], where)
    raise DataError(f"{where}: the image column holds no picture")
