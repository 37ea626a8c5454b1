"""Cleaning: rules by name take rows out of a manifest, or relabel them, and every such row is logged with its reason.

Rules run in the order of RULES, however they are named, and each sees the rows that those before it left: the same
manifest and the same rules give the same result. A row of validation or test is dropped only for what is wrong in
its own split, never because of a copy in another; what stands on both sides is taken out of train.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import msgspec
import pyarrow as pa

from mien.data.audit import Audit, Flaw, Group, audit
from mien.data.manifest import Manifest
from mien.errors import ConfigError, DataError, near_miss
from mien.files import whole_file

__all__ = ["RULES", "Change", "Cleaned", "clean"]


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the log. action: 'dropped' or 'relabelled'.  label: the new one, of a relabelled row."""

    id: str
    action: str
    rule: str
    reason: str
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """manifest: the rows that are left, in the old order.  log: every dropped or relabelled row, rule by rule."""

    manifest: Manifest
    log: tuple[Change, ...]

    def write_log(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the log as CSV, whole or not at all. Raises OutputError."""
        with whole_file(path, overwrite) as part, part.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(("id", "action", "rule", "reason"))
            out.writerows((line.id, line.action, line.rule, line.reason) for line in self.log)


#: What a rule says of a row: its id, the reason, and a new label or None to drop it.
Verdict = tuple[str, str, str | None]


def undecodable(found: Audit) -> Iterator[Verdict]:
    """Drop rows whose picture is missing or cannot be read."""
    yield from _flawed(found, "missing", "undecodable")


def blank(found: Audit) -> Iterator[Verdict]:
    """Drop rows whose picture is black or almost one grey level."""
    yield from _flawed(found, "black", "blank")


def affect_range(found: Audit) -> Iterator[Verdict]:
    """Drop rows whose valence or arousal is outside [-1, 1] or half missing."""
    yield from _flawed(found, "affect-range")


def affect_label(found: Audit) -> Iterator[Verdict]:
    """Drop rows whose valence or arousal contradicts their label."""
    yield from _flawed(found, "affect-label")


def box_outside(found: Audit) -> Iterator[Verdict]:
    """Drop rows whose box is empty or lies wholly outside the picture."""
    yield from _flawed(found, "box-outside")


def no_majority(found: Audit) -> Iterator[Verdict]:
    """Drop rows whose target gives no label more than one half."""
    yield from _flawed(found, "no-majority")


def label_errors(found: Audit) -> Iterator[Verdict]:
    """Drop rows that confident learning takes for mislabelled; needs an audit with predictions."""
    if found.label_errors is None:
        raise DataError(
            "label-errors: needs what a model says of these rows: pass --model (in Python, audit(manifest, predictions))"
        )
    for row in found.label_errors:
        yield row.id, f"{row.given}, likely {row.likely} (the model gives {row.given} {row.confidence:.2f})", None


def majority_label(found: Audit) -> Iterator[Verdict]:
    """Relabel identical pictures (with the same box) of one split to the label that more than half of them have."""
    for part in _parts(found.conflicts):
        said = [row for row in part.rows if row.label]
        if len(part.labels) < 2:
            continue
        label, votes = Counter(row.label for row in said).most_common(1)[0]
        if votes > len(said) / 2:
            for row in said:
                if row.label != label:
                    yield row.id, f"{row.label}; {votes} of {len(said)} identical pictures are {label}", label


def conflicts(found: Audit) -> Iterator[Verdict]:
    """Drop identical pictures (with the same box) of one split whose labels differ, and train rows whose label differs from a copy elsewhere."""
    for group in found.conflicts:
        judged = {row.label for row in group.rows if row.split != "train" and row.label}
        for split in group.splits:
            part = group.of(split)
            for row in part.rows:
                if len(part.labels) > 1:
                    yield (
                        row.id,
                        f"{row.label}; identical pictures of {split} are also {_others(part, row.label)}",
                        None,
                    )
                elif split == "train" and row.label and judged - {row.label}:
                    yield row.id, f"{row.label}; identical pictures elsewhere are {_others(group, row.label)}", None


def leaks(found: Audit) -> Iterator[Verdict]:
    """Drop train rows that have an identical copy in validation or test."""
    yield from _leaking(found.identical, "identical to")


def duplicates(found: Audit) -> Iterator[Verdict]:
    """Drop all but the first of identical pictures (with the same box) within a split."""
    for part in _parts(found.same_faces):
        first = part.rows[0]
        yield from ((row.id, f"identical to {first.id} of {first.split}", None) for row in part.rows[1:])


def near_duplicates(found: Audit) -> Iterator[Verdict]:
    """Drop train rows with a near copy in validation or test, and all but the first (with all its boxes) of near copies within a split."""
    how, gone = "the same or nearly the same as", set()
    for verdict in _leaking(found.near, how):
        gone.add(verdict[0])
        yield verdict
    picture = {row.id: group.rows[0].id for group in found.identical for row in group.rows}
    for part in _parts(found.near):
        first, kept = part.rows[0], set[int]()
        for row in part.rows:
            if picture.get(row.id, row.id) == picture.get(first.id, first.id) and row.face not in kept:
                kept.add(row.face)
            elif row.id not in gone:
                yield row.id, f"{how} {first.id} of {first.split}", None


#: Every rule by name, in the order in which they run; a rule's docstring says what it does.
RULES: dict[str, Callable[[Audit], Iterator[Verdict]]] = {
    "undecodable": undecodable,
    "blank": blank,
    "affect-range": affect_range,
    "affect-label": affect_label,
    "box-outside": box_outside,
    "no-majority": no_majority,
    "label-errors": label_errors,
    "majority-label": majority_label,
    "conflicts": conflicts,
    "leaks": leaks,
    "duplicates": duplicates,
    "near-duplicates": near_duplicates,
}


def clean(manifest: Manifest, rules: Sequence[str], audit: Audit | None = None) -> Cleaned:
    """A new manifest by these rules, and the log; the header counts what each rule dropped.

    audit: of this very manifest, if there is one already. Raises ConfigError for an unknown rule or none, DataError if
    the audit is of other rows.
    """
    chosen = _chosen(rules)
    found = audit if audit is not None else _audit(manifest)
    if found.rows != len(manifest) or found.source != manifest.header.source:
        raise DataError(
            f"audit: of {found.rows:,} rows of {found.source}, but the manifest has {len(manifest):,} rows of "
            f"{manifest.header.source}; audit this manifest"
        )
    log: list[Change] = []
    for name in chosen:
        changes = [_change(name, verdict) for verdict in RULES[name](found)]
        log += changes
        found = _after(found, changes)
    return Cleaned(_apply(manifest, log), tuple(log))


_audit = audit  # the argument of clean() has the same name


def _chosen(rules: Sequence[str]) -> list[str]:
    for name in rules:
        if name not in RULES:
            raise ConfigError(f"rules: unknown rule {name!r}; {near_miss(name, RULES)}")
    if not rules:
        raise ConfigError(f"rules: none given; choose from: {', '.join(RULES)}")
    return [name for name in RULES if name in rules]


def _change(rule: str, verdict: Verdict) -> Change:
    name, reason, label = verdict
    return Change(name, "dropped" if label is None else "relabelled", rule, reason, label)


def _after(found: Audit, changes: Sequence[Change]) -> Audit:
    """The audit's findings without the rows that were dropped, and with the new labels."""
    if not changes:
        return found
    gone = {change.id for change in changes if change.label is None}
    labels = {change.id: change.label for change in changes if change.label is not None}
    told = None if found.label_errors is None else tuple(row for row in found.label_errors if row.id not in gone)
    return msgspec.structs.replace(
        found,
        flaws={kind: tuple(row for row in rows if row.id not in gone) for kind, rows in found.flaws.items()},
        identical=_regrouped(found.identical, gone, labels),
        near=_regrouped(found.near, gone, labels),
        label_errors=told,
    )


def _regrouped(groups: Sequence[Group], gone: set[str], labels: dict[str, str]) -> tuple[Group, ...]:
    kept = []
    for group in groups:
        rows = [row for row in group.rows if row.id not in gone]
        if len(rows) > 1:
            kept.append(Group(tuple(msgspec.structs.replace(r, label=labels.get(r.id, r.label)) for r in rows)))
    return tuple(kept)


def _apply(manifest: Manifest, log: Sequence[Change]) -> Manifest:
    gone = {change.id for change in log if change.label is None}
    labels = {change.id: change.label for change in log if change.label is not None}
    table, ids = manifest.table, manifest.ids
    if labels:
        targets = table["target"].to_pylist()
        for row, name in enumerate(ids):
            if (label := labels.get(name)) is not None:
                targets[row] = manifest.labels.onehot(label).tolist()
        index = table.schema.get_field_index("target")
        table = table.set_column(index, "target", pa.array(targets, table.schema.field("target").type))
    dropped = Counter(f"clean: {change.rule}" for change in log if change.label is None)
    left_out = dict(Counter(manifest.header.left_out) + dropped)
    header = msgspec.structs.replace(manifest.header, left_out=left_out)
    return Manifest(header, table, manifest.root).take([row for row, name in enumerate(ids) if name not in gone])


def _flawed(found: Audit, *kinds: str) -> Iterator[Verdict]:
    flaws: list[Flaw] = [flaw for kind in kinds for flaw in found.flaws.get(kind, ())]
    seen = set()
    for flaw in flaws:
        if flaw.id not in seen:
            seen.add(flaw.id)
            yield flaw.id, flaw.reason, None


def _parts(groups: Sequence[Group]) -> Iterator[Group]:
    """The rows of each split of each group, where there are two or more."""
    for group in groups:
        yield from (part for split in group.splits if len((part := group.of(split)).rows) > 1)


def _leaking(groups: Sequence[Group], how: str) -> Iterator[Verdict]:
    for group in groups:
        judging = next((row for row in group.rows if row.split != "train"), None)
        if judging is not None:
            yield from ((row.id, f"{how} {judging.id} of {judging.split}", None) for row in group.of("train").rows)


def _others(group: Group, label: str | None) -> str:
    return ", ".join(name for name in group.labels if name != label)
