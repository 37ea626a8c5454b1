"""A table of faces with the vector that the model's heads see: for people's own statistics."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mien.errors import ConfigError, MissingExtra
from mien.faces import Face
from mien.files import whole_file

__all__ = ["FeatureTable"]

_COLUMNS = "image face x0 y0 x1 y1 score label confidence certain valence arousal".split()  # noqa: SIM905
_BLOCK = 4096


class FeatureTable:
    """A context manager; `write` takes the faces of one image. The file appears at the end, or not at all; Ctrl-C keeps the
    images that were read.

    Columns: image, face (its number in the image, the largest is 0), x0, y0, x1, y1 (pixels), score, label, confidence,
    certain (0 or 1), valence, arousal; then f0, f1, ... in a .csv, or one list column `features` (float32) in a .parquet.
    Raises ConfigError (another ending), MissingExtra (a .parquet without pyarrow), OutputError.
    """

    def __init__(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        self.path, self._overwrite = Path(path), overwrite
        self._form = self.path.suffix.lower()
        if self._form not in {".csv", ".parquet"}:
            raise ConfigError(f"{path}: features are written as .csv or .parquet")
        if self._form == ".parquet":
            _pyarrow()
        self._stack = ExitStack()
        self._rows: list[list[Any]] = []
        self._vectors: list[np.ndarray] = []
        self._out: Any = None

    def __enter__(self) -> FeatureTable:
        self._part = self._stack.enter_context(whole_file(self.path, self._overwrite))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            with self._stack:
                self._flush()
                self._finish()
            return
        with suppress(OSError):
            if self._out is not None:
                self._out.close()
        self._stack.__exit__(kind, error, trace)

    def write(self, image: str, faces: Sequence[Face]) -> None:
        """Take the faces of one image; each must have been read with its features."""
        for number, face in enumerate(faces):
            read = face.expression
            assert read is not None
            assert read.features is not None
            answer = [read.label, read.confidence, int(read.certain), read.valence, read.arousal]
            self._rows.append([image, number, *map(float, face.box), float(face.score), *answer])
            self._vectors.append(np.asarray(read.features, np.float32))
        if len(self._rows) >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            (self._flush_csv if self._form == ".csv" else self._flush_parquet)()
        self._rows, self._vectors = [], []

    def _flush_csv(self) -> None:
        first = self._out is None
        if first:
            self._out = self._part.open("w", newline="", encoding="utf-8")
        writer = csv.writer(self._out, lineterminator="\n")
        if first:
            writer.writerow([*_COLUMNS, *(f"f{number}" for number in range(len(self._vectors[0])))])
        for row, vector in zip(self._rows, self._vectors, strict=True):
            known = ["" if isinstance(value, float) and np.isnan(value) else _short(value) for value in row]
            writer.writerow([*known, *(f"{value:.6g}" for value in vector)])

    def _flush_parquet(self) -> None:
        pa, pq = _pyarrow()
        columns = dict(zip(_COLUMNS, zip(*self._rows, strict=True), strict=True))
        vectors = pa.array([vector.tolist() for vector in self._vectors], pa.list_(pa.float32()))
        table = pa.table({**{name: list(values) for name, values in columns.items()}, "features": vectors})
        if self._out is None:
            file = self._stack.enter_context(self._part.open("wb"))  # pyarrow opens no name that is not UTF-8
            self._out = pq.ParquetWriter(file, table.schema)
        self._out.write_table(table)

    def _finish(self) -> None:
        if self._out is not None:
            self._out.close()
        elif self._form == ".csv":
            self._part.write_text(",".join(_COLUMNS) + "\n", encoding="utf-8")
        else:
            pa, pq = _pyarrow()
            empty: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
            with self._part.open("wb") as file:
                pq.write_table(pa.table({**empty, "features": pa.array([], pa.list_(pa.float32()))}), file)


def _short(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtra.of("A .parquet table needs pyarrow (a .csv does not)", "data") from error
    return pa, pq
