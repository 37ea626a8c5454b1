"""What a training starts from: weights and teachers, by path and hash, remembered by the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from mien.data.manifest import Manifest
from mien.errors import ConfigError, DataError
from mien.files import digest
from mien.models.weights import weights_file, weights_spec
from mien.recipe import Recipe, load_recipe, run_facts
from mien.training.chips import two_sides

__all__ = ["Learned", "Origins", "forget", "is_table", "learned_rows", "lineage", "origin", "origins", "remembered"]


@dataclass(frozen=True)
class Origins:
    """init: a run or weights file, or None.  teachers: runs, weights files, tables.  facts: paths and hashes of all."""

    init: Path | None
    teachers: list[Path]
    facts: dict[str, Any]


def is_table(path: Path) -> bool:
    """Whether a teacher is a table of predictions."""
    return path.suffix.lower() in {".csv", ".parquet"}


def origin(path: Path) -> dict[str, str]:
    """Path and sha256 of a run's weights, a weights file or a table. Raises ModelNotFound, DataError."""
    if not is_table(path):
        return weights_file(path)[1]
    if not path.is_file():
        raise DataError(f"--teacher {path}: no such table of predictions")
    return {"path": str(path), "sha256": digest(path)}


def origins(init: str | PathLike[str] | None, teachers: Sequence[str | PathLike[str]]) -> Origins:
    """What is there to start from, before anything is done. Raises ModelNotFound, DataError."""
    first, others = None if init is None else Path(init), [Path(path) for path in teachers]
    facts: dict[str, Any] = {} if first is None else {"init": weights_file(first)[1]}
    return Origins(first, others, {**facts, "teachers": [origin(path) for path in others]})


def remembered(folder: Path, init: str | PathLike[str] | None, teachers: Sequence[str | PathLike[str]]) -> Origins:
    """What a run started from, the paths as given now or as it remembers them. Raises ConfigError: other files, or its memory is damaged."""
    path, facts = folder / "environment.json", run_facts(folder)
    before = [fact for fact in [facts.get("init")] if fact], facts.get("teachers", [])
    given = origins(
        init if init is not None or not before[0] else before[0][0]["path"],
        teachers or [fact["path"] for fact in before[1]],
    )
    now = [fact for fact in [given.facts.get("init")] if fact], given.facts["teachers"]
    for option, old, new in zip(("--init", "--teacher"), before, now, strict=True):
        if path.is_file() and [fact["sha256"] for fact in old] != [fact["sha256"] for fact in new]:
            names = ", ".join(fact["path"] for fact in old) or f"no {option}"
            raise ConfigError(f"{option}: the run started from {names}, not from these files; resume it with its own")
    return given


def forget(folder: Path) -> None:
    """Takes away what a start made that failed before anything was learned, so that the next one can begin."""
    for name in ("chips.parquet", "auxiliary.parquet", "missed.csv", "train.npy", "held.npy", "environment.json"):
        (folder / name).unlink(missing_ok=True)


def lineage(facts: dict[str, Any]) -> list[str]:
    """What a run's environment says of the weights and teachers that it learned from, for the spec: names and hashes."""
    init, teachers = facts.get("init"), facts.get("teachers", [])
    said = [("began with", init)] if init else []
    said += [("taught by", teacher) for teacher in teachers]
    return [f"{verb} {Path(fact['path']).name}, sha256 {fact['sha256'][:16]}" for verb, fact in said]


@dataclass(frozen=True)
class Learned:
    """rows: ids that are known to have taught a start or what it began with.  unknown: those among these of which nobody can say."""

    rows: frozenset[str]
    unknown: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """What the unknown ones mean for held-out rows; empty where there are none."""
        if not self.unknown:
            return ""
        return (
            f"nobody knows which rows {', '.join(self.unknown)} learned from: where the held-out ones are among them, figures on "
            "these flatter and the temperature comes out too low; judge on rows that were never trained on"
        )


def learned_rows(*starts: Path) -> Learned:
    """What finished runs, and those that they began with, learned from.

    Nobody can say of a model file, of a run without its chips, or of one whose rows are not those that its recipe gives today.
    """
    found = [_learned(start) for start in starts]
    unknown = dict.fromkeys(name for one in found for name in one.unknown)
    return Learned(frozenset().union(*(one.rows for one in found)), tuple(unknown))


def _learned(start: Path) -> Learned:
    file = start / "weights.safetensors" if start.is_dir() else start
    beside = [file.with_name(name) for name in ("chips.parquet", "recipe.yaml", "environment.json")]
    if file.name not in {"weights.safetensors", "auxiliary.safetensors"} or not all(p.is_file() for p in beside):
        return Learned(frozenset(), (f"{start} (no run with its chips)",))
    try:
        first = run_facts(file.parent).get("init")
    except ConfigError:
        return Learned(frozenset(), (f"{start} (its environment.json is damaged)",))
    before = _learned(Path(first["path"])) if first else Learned(frozenset())
    rows = _own_rows(file, beside[0], beside[1])
    if rows is None:
        return Learned(before.rows, (f"{start} (its chips are not those of its recipe)", *before.unknown))
    return Learned(before.rows | rows, before.unknown)


def _own_rows(weights: Path, chips: Path, recipe: Path) -> frozenset[str] | None:
    """The ids that a run's recipe gives today, if these are the rows that its weights name."""
    try:
        told = load_recipe(recipe)
        if not isinstance(told, Recipe):
            return None
        rows = two_sides(Manifest.read(chips), told)[0]
    except (ConfigError, DataError):
        return None
    known = any(rows.fingerprint()[:16] in line for line in weights_spec(weights).trained_on)
    return frozenset(rows.ids) if known else None
