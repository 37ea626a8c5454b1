"""Another tool's answers: a CSV or Parquet table becomes Predictions, whatever it calls the expressions."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mien.data.sources.folders import expression, ordered
from mien.errors import ConfigError, DataError
from mien.evaluation.predictions import Predictions
from mien.labels import KNOWN_SETS, LabelSet

__all__ = ["read_predictions"]

_LABEL_COLUMNS = ("label", "expression", "emotion")
_AFFECT = ("valence", "arousal")
#: Ids are words: 007 is not 7.
_WORDS = pa_csv.ConvertOptions(column_types={"id": pa.string()})


def read_predictions(path: str | PathLike[str], labels: LabelSet | None = None) -> Predictions:
    """Read a table with `id` and a column p_LABEL for each label, or one column `label`; or valence and arousal, alone or too.

    labels: of the data that judges. Where the table has the same ones, or says some of these alone, they and their order are
    taken; else the order is that of the columns. Words for the eight expressions ('happy', 'Angry') become mien's names; columns
    that are called by such words alone, without p_, are taken too. A `label` alone counts as certain: calibration then
    says nothing, and unsaid labels have probability 0. With valence and arousal alone the probabilities are NaN.
    Raises DataError: file, column, row.
    """
    path = Path(path)
    table = _table(path)
    columns = table.column_names
    if "id" not in columns:
        raise DataError(f"{path}: no column id; it has {', '.join(columns)}")
    if not table.num_rows:
        raise DataError(f"{path}: no rows")
    ids = _ids(table, path)
    found, probabilities = _answers(table, path, labels)
    if labels is not None and set(found) == set(labels):
        found, probabilities = labels, probabilities[:, [found.index(name) for name in labels]]
    affect = [_affect(table, name, path, ids) for name in _AFFECT]
    try:
        return Predictions(found, ids, probabilities.astype(np.float64), np.stack(affect, axis=1))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _table(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: no such table of predictions")
    try:
        parquet = path.suffix.lower() == ".parquet"
        table = pq.read_table(path) if parquet else pa_csv.read_csv(path, convert_options=_WORDS)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable table of predictions ({error})") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]}")
    return table


def _ids(table: pa.Table, path: Path) -> list[str]:
    ids = table["id"].to_pylist()
    if None in ids or "" in ids:
        row = next(i for i, name in enumerate(ids) if name in (None, ""))
        raise DataError(f"{path}, row {row}: no id")
    return [str(name) for name in ids]


def _answers(table: pa.Table, path: Path, wanted: LabelSet | None) -> tuple[LabelSet, np.ndarray]:
    columns = table.column_names
    named = [name for name in columns if name.startswith("p_")] or [name for name in columns if expression(name)]
    said = next((name for name in _LABEL_COLUMNS if name in columns), None)
    if len(named) > 1:
        labels = _labels([name.removeprefix("p_") for name in named], path)
        return labels, np.stack([_numbers(table, name, path) for name in named], axis=1)
    if said is not None:
        return _certain(table[said].to_pylist(), said, path, wanted)
    if all(name in columns for name in _AFFECT):
        there = wanted or LabelSet(KNOWN_SETS["affectnet8"])
        return there, np.full((table.num_rows, len(there)), np.nan)
    raise DataError(
        f"{path}: no columns p_LABEL and no column label; it has {', '.join(columns)}; give id, p_neutral, p_happiness, ..."
    )


def _labels(words: Sequence[str], path: Path) -> LabelSet:
    """mien's names for these words, in their order. Raises DataError: two words for one label, a code instead of a name."""
    names = [_name(word, path) for word in words]
    for i, name in enumerate(names):
        if name in names[:i]:
            first = words[names.index(name)]
            raise DataError(f"{path}: the columns {first} and {words[i]} both mean {name}; keep one")
    try:
        return LabelSet(tuple(names))
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def _name(word: str, path: Path) -> str:
    if word.strip().lstrip("+-").isdigit():
        raise DataError(
            f"{path}: the label {word!r} is a code, and codes differ from dataset to dataset; give its name"
        )
    return expression(word) or word


def _certain(said: Sequence[object], column: str, path: Path, wanted: LabelSet | None) -> tuple[LabelSet, np.ndarray]:
    if None in said or "" in said:
        row = next(i for i, word in enumerate(said) if word in (None, ""))
        raise DataError(f"{path}, row {row}: no {column}")
    names = [_name(str(word), path) for word in said]
    there = ordered(names)
    labels = LabelSet(there if len(there) > 1 else KNOWN_SETS["affectnet8"])
    if wanted is not None and set(names) <= set(wanted):
        labels = wanted
    if names[0] not in labels:
        raise DataError(f"{path}: only one label, {names[0]!r}; give p_LABEL columns so that the others are known too")
    return labels, np.stack([labels.onehot(name) for name in names])


def _numbers(table: pa.Table, column: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(table[column].to_numpy(zero_copy_only=False), np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}, column {column}: not numbers ({error})") from error


def _affect(table: pa.Table, column: str, path: Path, ids: list[str]) -> np.ndarray:
    if column not in table.column_names:
        return np.full(len(ids), np.nan)
    values = _numbers(table, column, path)
    wrong = np.flatnonzero(np.abs(values) > 1 + 1e-6)
    if len(wrong):
        raise DataError(f"{path}: {column} of {ids[wrong[0]]} is {values[wrong[0]]:g}; expected -1 to 1")
    return values
