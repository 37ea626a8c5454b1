"""Teachers: networks that answer while the student learns, and answers that were stored before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from mien.errors import ConfigError, DataError
from mien.evaluation.predictions import Predictions, projected
from mien.evaluation.tables import read_predictions
from mien.labels import LabelSet
from mien.models.network import ExportGraph
from mien.models.unfold import unfold
from mien.models.weights import load_weights, weights_file
from mien.recipe import Recipe
from mien.spec import CropSpec
from mien.training.origins import is_table

__all__ = ["Teachers", "read_teachers"]


@dataclass(frozen=True)
class Teachers:
    """networks: answer each training chip as the student sees it.  told: (n, t * c) probabilities of t tables, side by side, by
    row of the train side, NaN where a table does not know the row; None without tables.  beside: (n, u * a), of tables that answer
    the auxiliary labels."""

    networks: list[ExportGraph]
    told: Tensor | None
    beside: Tensor | None = None


def read_teachers(
    paths: Sequence[str | PathLike[str]],
    ids: Sequence[str],
    labels: LabelSet,
    recipe: Recipe,
    tell: Callable[[str], None] = lambda _: None,
    auxiliary: LabelSet | None = None,
) -> Teachers:
    """Runs, weights files, models (files or names), or tables of predictions (.csv, .parquet) of the train rows by id, from any model.

    ids: of the train rows.  auxiliary: labels of the second head, which the tables teach that answer these and not `labels`.
    Raises ConfigError, DataError, ModelError.
    """
    if paths and not recipe.network.expression:
        raise ConfigError("--teacher: teachers teach expressions, and network.expression is false; leave --teacher out")
    networks: list[ExportGraph] = []
    tables: list[np.ndarray] = []
    others: list[np.ndarray] = []
    for path in map(Path, paths):
        if is_table(path):
            stored = read_predictions(path)
            second = auxiliary is not None and set(stored.labels) == set(auxiliary) != set(labels)
            if second:
                tell(f"--teacher {path}: teaches the second head, whose labels it answers")
            (others if second else tables).append(
                _stored(path, stored, ids, auxiliary if second and auxiliary else labels, tell)
            )
        else:
            networks.append(_network(path, labels, recipe, auxiliary))
    return Teachers(networks, _side_by_side(tables), _side_by_side(others))


def _side_by_side(tables: list[np.ndarray]) -> Tensor | None:
    return torch.from_numpy(np.concatenate(tables, axis=1).astype(np.float32)) if tables else None


def _stored(
    path: Path, stored: Predictions, ids: Sequence[str], labels: LabelSet, tell: Callable[[str], None]
) -> np.ndarray:
    """(n, c) probabilities in the order of the ids, NaN where the table does not know one."""
    if np.isnan(stored.probabilities).all():
        raise ConfigError(
            f"--teacher {path}: answers valence and arousal alone; a teacher needs p_ columns of expressions"
        )
    strange = [name for name in labels if name not in stored.labels]
    if strange:
        raise ConfigError(
            f"--teacher {path}: says nothing of {', '.join(strange)}; it answers {', '.join(stored.labels)}; a teacher knows "
            "every label of the head that it teaches"
        )
    at = {name: row for row, name in enumerate(stored.ids)}
    rows = [(i, at[name]) for i, name in enumerate(ids) if name in at]
    if not rows:
        raise DataError(
            f"--teacher {path}: knows none of the {len(ids):,} training rows; its ids are like {stored.ids[:1]}, theirs "
            f"like {list(ids[:1])}; make it with `mien evaluate MODEL --split train --predictions {path.name}`"
        )
    here, there = (np.array(column) for column in zip(*rows, strict=True))
    only = Predictions(stored.labels, [ids[i] for i in here], stored.probabilities[there], stored.affect[there])
    out = np.full((len(ids), len(labels)), np.nan)
    out[here] = projected(only, labels).probabilities
    if len(rows) < len(ids):
        tell(f"--teacher {path}: knows {len(rows):,} of {len(ids):,} training rows; the others have their labels alone")
    return out


def _network(path: Path, labels: LabelSet, recipe: Recipe, auxiliary: LabelSet | None) -> ExportGraph:
    file = weights_file(path)[0]
    network, spec = unfold(file) if file.suffix.lower() == ".onnx" else load_weights(file)
    if not spec.expression:
        raise ConfigError(f"--teacher {path}: answers valence and arousal alone; a teacher needs an expression head")
    if auxiliary is not None and set(spec.labels) == set(auxiliary) != set(labels):
        raise ConfigError(
            f"--teacher {path}: answers the labels of the second head, which learns from tables alone; make one: `mien evaluate "
            f"{path} --data DATA --source {recipe.data.auxiliary} --split train --predictions told.parquet`"
        )
    if LabelSet(spec.labels) != labels or _plain(spec.crop) != _plain(recipe.crop):
        raise ConfigError(
            f"--teacher {path}: answers {', '.join(spec.labels)} on {spec.crop.width}x{spec.crop.height} chips; the recipe "
            f"has {', '.join(labels)} on {recipe.crop.width}x{recipe.crop.height}, framed {_plain(recipe.crop)}; a teacher "
            "of other chips can teach by its stored predictions"
        )
    return ExportGraph(network, spec)


def _plain(crop: CropSpec) -> CropSpec:
    return msgspec.structs.replace(crop, border=0)
