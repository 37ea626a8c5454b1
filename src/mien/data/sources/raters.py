"""Several raters of the same faces: their rows become one row a face, with votes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mien.data.manifest import Sample
from mien.data.sources.notes import Notes
from mien.errors import DataError

__all__ = ["by_face"]


def by_face(rated: Iterable[tuple[str, Sample]], rule: str, notes: Notes) -> Iterator[Sample]:
    """One sample a face, a picture with its box, in the order in which they come first, from one a rater and face.

    rated: each with where it stands; a rater's target is one-hot, or None where no label was given.
    rule: how votes become the target.  majority: the label that more than half of a face's votes name; faces without one are left
        out.  plain: the label with the most votes, the first of the label set at a tie.  distribution: the share of each label.
    Valence and arousal are the means of those given; facts that raters say otherwise are unknown. Raises DataError: raters who
    say another split or subject of one face.
    """
    faces: dict[tuple[object, object], list[tuple[str, Sample]]] = {}
    for where, sample in rated:
        faces.setdefault((sample.image, sample.box), []).append((where, sample))
    for rows in faces.values():
        found = _joined(rows, rule)
        if found is None:
            notes.leave("no label has more than half of the votes (rule 'majority')")
        else:
            yield found


def _joined(rows: Sequence[tuple[str, Sample]], rule: str) -> Sample | None:
    (first_where, first), samples = rows[0], [sample for _, sample in rows]
    for where, sample in rows:
        for name in ("split", "subject"):
            if getattr(sample, name) != getattr(first, name):
                said = f"{name} {getattr(sample, name)!r}, but {getattr(first, name)!r} in {first_where}"
                raise DataError(f"{where}: {said}, of the same face; give one of them to all its rows")
    given = [sample.target for sample in samples if sample.target is not None]
    votes = np.sum(given, axis=0).astype(np.int64) if given else None
    target = None if votes is None else _target(votes, rule)
    if votes is not None and target is None:
        return None
    facts = {name: told if all(sample.facts[name] == told for sample in samples) else None for name, told in first.facts.items()}  # fmt: skip
    return Sample(
        first.id, first.image, target, first.split, first.box, first.landmarks, _mean([s.valence for s in samples]),
        _mean([s.arousal for s in samples]), first.subject, votes, facts,
    )  # fmt: skip


def _target(votes: np.ndarray, rule: str) -> np.ndarray | None:
    """(c,) float32 from (c,) votes; None: the rule gives none.

    >>> _target(np.array([3, 1]), "distribution").tolist(), _target(np.array([1, 1]), "majority")
    ([0.75, 0.25], None)
    """
    if rule == "distribution":
        return (votes / votes.sum()).astype(np.float32)
    if rule != "plain" and 2 * votes.max() <= votes.sum():
        return None
    return np.eye(len(votes), dtype=np.float32)[votes.argmax()]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")
