"""Splitting a manifest so that no picture and no person stands on both sides; and choosing rows and labels."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from mien.data.manifest import SPLITS, Manifest
from mien.errors import DataError, ImageError, near_miss
from mien.labels import LabelSet, label_set
from mien.vision.image import read_image

__all__ = ["cap", "check_shares", "groups_of", "hold_out", "merge", "project", "split"]


def hold_out(manifest: Manifest, share: float, fold: int = 0) -> tuple[Manifest, Manifest]:
    """(rest, held out): about `share` of the rows, chosen by pictures and subjects alone; different folds share no row.

    Rows with identical pictures, or of one subject, stay on one side, and so do those that hang together through others.
    The choice depends on each picture's bytes (so on the crop, where they are chips) or its path from the manifest's root,
    and on each subject's name; not on the order of rows, nor on where the dataset lies. Raises DataError if a side would be empty.
    """
    places = _places(manifest)
    held = (fold * share <= places) & (places < (fold + 1) * share)
    if not held.any() or held.all():
        raise DataError(
            f"{manifest.header.source}: {len(manifest)} rows ({len(set(places))} where a subject, or identical pictures, count "
            f"once) are too few to hold out {share:.1%} of them; see data.validation"
        )
    return manifest.take(np.flatnonzero(~held)), manifest.take(np.flatnonzero(held))


def _places(manifest: Manifest) -> np.ndarray:
    """(n,) numbers from 0 to 1, the same throughout a group: from the subject, or else the picture, of one of its rows."""
    keys = [_keys(sample.subject, sample.image) for sample in manifest.rootless()]
    heads = _joined(len(keys), _alike(keys))
    chosen: dict[int, bytes] = {}
    for head, own in zip(heads, keys, strict=True):
        # The least by its last bytes, which say nothing of the first ones: these stay even from 0 to 1.
        chosen[head] = min(chosen.get(head, own[0]), own[0], key=lambda key: key[::-1])
    return np.array([int.from_bytes(chosen[head][:6], "big") / 2**48 for head in heads])


def _keys(subject: str | None, image: bytes | Path) -> list[bytes]:
    """What rows of one group share: the hash of the subject, where there is one, then that of the picture (or its stored path)."""
    picture = image if isinstance(image, bytes) else image.as_posix().encode()
    return [hashlib.sha256(bytes(8) + what).digest() for what in ([subject.encode()] if subject else []) + [picture]]


def groups_of(manifest: Manifest, near: Sequence[Sequence[str]] = ()) -> np.ndarray:
    """(n,) group numbers: rows share one if they share a subject or identical pixels, or stand in one of `near`'s groups
    of ids (near copies that an audit found), directly or through others. Raises DataError if a picture cannot be read:
    nobody knows what it is a copy of.
    """
    subjects = manifest.table["subject"].to_pylist()
    keys = [[name, pixels] if name else [pixels] for name, pixels in zip(subjects, _pixels(manifest), strict=True)]
    at = {name: row for row, name in enumerate(manifest.ids)} if near else {}
    rows = [[at[name] for name in group if name in at] for group in near]
    close = ((row, group[0]) for group in rows for row in group[1:])
    return _joined(len(keys), chain(_alike(keys), close))


def _alike(keys: Iterable[Iterable[Hashable]]) -> Iterator[tuple[int, int]]:
    """(row, the first row that has this key too) for every key of every row."""
    first: dict[Hashable, int] = {}
    for row, own in enumerate(keys):
        for key in own:
            yield row, first.setdefault(key, row)


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """(count,) for each row one row that stands for its group: those of a pair are of one group."""
    heads = list(range(count))

    def head(row: int) -> int:
        while heads[row] != row:
            heads[row] = heads[heads[row]]
            row = heads[row]
        return row

    for row, other in pairs:
        heads[head(row)] = head(other)
    return np.array([head(row) for row in range(count)], np.int64)


def _pixels(manifest: Manifest) -> list[bytes]:
    """A hash of each row's decoded picture. Raises DataError if any cannot be read."""
    hashes, unreadable = [], []
    for sample in manifest:
        try:
            picture = read_image(sample.image)
        except ImageError as error:
            unreadable.append(f"{sample.id}: {error}")
            continue
        hashes.append(hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).digest())
    if unreadable:
        raise DataError(
            f"{manifest.header.source}: {len(unreadable):,} of {len(manifest):,} pictures cannot be read, so nobody knows "
            f"which are copies; the first: {unreadable[0]}; put the pictures back or read the dataset again, or drop such "
            "rows: mien data clean --rules undecodable"
        )
    return hashes


def split(manifest: Manifest, shares: Mapping[str, float], seed: int, near: Sequence[Sequence[str]] = ()) -> Manifest:
    """The same rows with new splits: seeded, stratified by label, and no subject, picture or near copy on two sides.

    shares: of the rows, for some of train, validation, test; they sum to 1.  near: see groups_of.
    Whole groups are dealt out, the largest first, each to the split that lacks the group's labels most, so shares are met
    as closely as groups allow. Raises DataError: unknown split, shares that do not sum to 1, a split that stays empty, a
    picture that cannot be read.
    """
    check_shares(shares)
    groups = groups_of(manifest, near)
    labels = _strata(manifest)
    rng = np.random.default_rng(seed)
    order, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(order), labels.max(initial=0) + 1))
    np.add.at(counts, (members, labels), 1)
    names = [name for name in SPLITS if shares.get(name)]
    lacking = np.outer([shares[name] for name in names], counts.sum(axis=0))
    wanted = np.maximum(lacking.copy(), 1e-9)
    dealt = np.zeros(len(order), int)
    for group in sorted(rng.permutation(len(order)), key=lambda g: -counts[g].sum()):
        need = (lacking / wanted) @ counts[group]
        dealt[group] = int(np.argmax(need))
        lacking[dealt[group]] -= counts[group]
    chosen = np.array(names, object)[dealt[members]]
    empty = [name for name in names if name not in set(chosen)]
    if empty:
        raise DataError(
            f"{manifest.header.source}: {len(order)} groups of rows are too few for a split {', '.join(empty)}"
        )
    left = Counter[str]()
    for why, rows in manifest.header.left_out.items():
        left[re.sub(r"no chip \(\w+\)$", "no chip", why)] += rows  # nobody knows where these would be now
    header = msgspec.structs.replace(manifest.header, left_out=dict(left))
    index = manifest.table.schema.get_field_index("split")
    dealt_out = manifest.table.set_column(index, "split", pa.array(chosen.tolist(), pa.string()))
    return Manifest(header, dealt_out, manifest.root)


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises DataError: no split of ours, or no numbers that sum to 1."""
    for name in shares:
        if name not in SPLITS:
            raise DataError(f"{name}: unknown split; {near_miss(name, SPLITS)}")
    if not shares or min(shares.values()) < 0 or not abs(sum(shares.values()) - 1) <= 1e-6:
        raise DataError(f"shares: expected numbers that sum to 1, got {dict(shares)}")


def _strata(manifest: Manifest) -> np.ndarray:
    """(n,) the label by the target's largest entry; unlabelled rows are a stratum of their own."""
    targets = manifest.targets()
    known = ~np.isnan(targets).any(axis=1)
    return np.where(known, np.nan_to_num(targets).argmax(axis=1), len(manifest.labels))


def project(manifest: Manifest, labels: str | Sequence[str]) -> Manifest:
    """The rows of other labels, their targets moved onto these (a subset, another order, more names).

    A row is left out, and counted in the header, unless a wanted label has the largest entry of its target, alone or with
    others: the rest of its votes would make another expression of it. Unlabelled rows stay.
    Raises DataError if the two sets share no label.
    """
    onto = label_set(labels)
    shared = [name for name in onto if name in manifest.labels]
    if not shared:
        raise DataError(
            f"{manifest.header.source}: has {', '.join(manifest.labels)}; none of them is in {', '.join(onto)}"
        )
    targets = manifest.targets()
    known = ~np.isnan(targets).any(axis=1)
    moved = manifest.labels.project(targets, onto)
    wanted = [manifest.labels.index(name) for name in shared]
    keep = ~known | ((targets[:, wanted].max(axis=1) >= targets.max(axis=1)) & ~np.isnan(moved).any(axis=1))
    left = dict(manifest.header.left_out)
    if (~keep).any():
        left[f"labels outside {', '.join(onto)}"] = int((~keep).sum())
    header = msgspec.structs.replace(manifest.header, labels=onto.names, left_out=left)
    rows = np.flatnonzero(keep)
    columns = [None if not known[row] else moved[row].tolist() for row in rows]
    table = manifest.take(rows).table
    index = table.schema.get_field_index("target")
    table = table.set_column(index, "target", pa.array(columns, table.schema.field("target").type))
    return Manifest(header, _moved_votes(table, manifest.labels, onto), manifest.root)


def _moved_votes(table: pa.Table, labels: LabelSet, onto: LabelSet) -> pa.Table:
    """The votes under other labels; those for labels that are gone are dropped."""
    index = table.schema.get_field_index("votes")
    if index < 0:
        return table
    places = [labels.index(name) if name in labels else None for name in onto]
    moved = [
        None if row is None else [0 if at is None else row[at] for at in places] for row in table["votes"].to_pylist()
    ]
    return table.set_column(index, "votes", pa.array(moved, table.schema.field("votes").type))


def cap(manifest: Manifest, per_class: int, seed: int) -> Manifest:
    """At most this many rows of each class in each split, chosen by seed; in the old order. Unlabelled rows stay."""
    labels, splits = _strata(manifest), manifest.splits()
    rng, keep = np.random.default_rng(seed), []
    for name in SPLITS:
        for label in range(len(manifest.labels) + 1):
            rows = np.flatnonzero((splits == name) & (labels == label))
            if label < len(manifest.labels) and len(rows) > per_class:
                rows = rng.choice(rows, per_class, replace=False)
            keep.append(rows)
    return manifest.take(np.sort(np.concatenate(keep)))


def merge(manifests: Sequence[Manifest], labels: str | Sequence[str] | None = None) -> Manifest:
    """The rows of several manifests under one label set, one after another.

    labels: by default all labels that any of them has, mien's own first. A fact `source` says where each row is from. Ids are prefixed with the source's name where two
    manifests share one. Paths become absolute where the rows have pictures in files.
    Raises DataError: chips that were cut in different ways, nothing to merge.
    """
    if not manifests:
        raise DataError("merge: nothing to merge")
    crops = {manifest.header.crop for manifest in manifests}
    framings = {manifest.header.framing for manifest in manifests}
    if len(crops) > 1 or (crops == {None} and len(framings) > 1):
        raise DataError("merge: the pictures are cropped in different ways; prepare them with one crop first")
    onto = label_set(labels) if labels is not None else _all_labels(manifests)
    parts = [project(manifest, onto.names) for manifest in manifests]
    ids = [name for part in parts for name in part.ids]
    tables = [_renamed(part, i) if len(set(ids)) < len(ids) else part.table for i, part in enumerate(parts)]
    tables = [_sourced(_absolute(table, part), part) for table, part in zip(tables, parts, strict=True)]
    first = parts[0].header
    header = msgspec.structs.replace(
        first,
        source=" + ".join(part.header.source for part in parts),
        rule=" + ".join(dict.fromkeys(part.header.rule for part in parts if part.header.rule)),
        framing=first.framing if len(framings) == 1 else None,
        licence="; ".join(dict.fromkeys(part.header.licence for part in parts if part.header.licence)),
        left_out=dict(_left_out(parts)),
        warnings=tuple(word for part in parts for word in part.header.warnings),
    )
    return Manifest(header, pa.concat_tables(tables, promote_options="default"), None)


def _left_out(parts: Sequence[Manifest]) -> Counter[str]:
    """Rows that are not there by source and reason, summed where two parts are of one source."""
    found: Counter[str] = Counter()
    for part in parts:
        found.update({f"{part.header.source}: {why}": rows for why, rows in part.header.left_out.items()})
    return found


def _all_labels(manifests: Sequence[Manifest]) -> LabelSet:
    known = label_set("affectnet8")
    there = list(dict.fromkeys(name for manifest in manifests for name in manifest.labels))
    return LabelSet(tuple(name for name in known if name in there) + tuple(n for n in there if n not in known))


def _renamed(manifest: Manifest, number: int) -> pa.Table:
    ids = pa.array([f"{manifest.header.source}/{number}/{name}" for name in manifest.ids], pa.string())
    return manifest.table.set_column(manifest.table.schema.get_field_index("id"), "id", ids)


def _sourced(table: pa.Table, manifest: Manifest) -> pa.Table:
    """With the source of each row as a fact, unless the rows know it already."""
    if "source" in table.column_names:
        return table
    return table.append_column("source", pa.array([manifest.header.source] * len(table), pa.string()))


def _absolute(table: pa.Table, manifest: Manifest) -> pa.Table:
    """Paths that stand on their own: the merged rows have no common root."""
    images = table["image"].to_pylist()
    if manifest.root is None or all(item["bytes"] is not None for item in images):
        return table
    root = manifest.root.resolve()
    for item in images:
        item["path"] = None if item["path"] is None else (root / item["path"]).as_posix()
    index = table.schema.get_field_index("image")
    return table.set_column(index, "image", pa.array(images, table.schema.field("image").type))
