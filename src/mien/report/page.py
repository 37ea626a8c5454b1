"""Pages: one self-contained HTML file, with its pictures inside and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from mien import __version__
from mien.data.audit import FLAWS, Audit, Group, Member
from mien.data.doubt import given_labels
from mien.data.manifest import Manifest, Sample
from mien.errors import DataError, ImageError
from mien.report.figures import data_uri, histogram, label_colour, montage, plane, tile
from mien.vision.image import read_image

__all__ = ["Album", "audit_page", "page"]

_SAMPLE, _COLUMNS, _SIDE = 24, 8, 72
_GROUPS, _MEMBERS, _ODD = 24, 6, 12

#: The next move for each kind of flaw, and the rule of `mien data clean` that makes it.
_MOVES: dict[str, tuple[str, str | None]] = {
    "missing": ("Fetch the files again, or drop the rows.", "undecodable"),
    "undecodable": ("Fetch the files again, or drop the rows.", "undecodable"),
    "black": ("Drop them.", "blank"),
    "blank": ("Look at them; drop them.", "blank"),
    "box-outside": ("Check the order and unit of the box's numbers; drop what stays wrong.", "box-outside"),
    "box-leaves": ("Usually harmless at the picture's edge; many of them point at a wrong unit.", None),
    "landmarks-outside": ("Usually harmless at the picture's edge; many points outside: wrong order or unit.", None),
    "no-majority": ("Train on the distribution, or drop them.", "no-majority"),
    "affect-range": ("Check the unit; -2 often stands for 'not annotated'. Drop them.", "affect-range"),
    "affect-label": ("Look at them: label or affect is wrong.", "affect-label"),
}

_TERMS = (
    (
        "identical",
        "the same decoded pixels and size, whatever the file's form; within a split also the same box (without boxes, the "
        "same landmarks), where the rows have one: another box is another face",
    ),
    (
        "near copies",
        "other pixels, but 64-bit perceptual hashes that differ in at most 5 bits and 16x16 thumbnails that correlate at "
        "0.98 or more, plain or mirrored; with all that hangs together through such pairs. Re-encoded, resized, "
        "brightened and mirrored copies are found; other crops are not. Of chips with a mask, 32x32 thumbnails are compared "
        "inside it, from 0.97 on",
    ),
    ("almost one grey level", "grey levels with a standard deviation below 3 of 255"),
    ("different labels", "the targets' largest entries differ"),
    ("no majority", "the largest share of the target is one half or less"),
    (
        "affect contradicts the label",
        "valence beyond 0.2 on the other side of zero than the label's mean in AffectNet (happiness; sadness, disgust, "
        "anger, contempt); arousal below -0.2 for surprise and fear",
    ),
)


def page(template: str, title: str, facts: Mapping[str, Any]) -> str:
    """A page from a template of this room; templates extend page.html, and everything put into them is escaped."""
    loader = PackageLoader("mien.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shared = {"title": title, "made_by": f"Made by mien {__version__}", "colour": label_colour}
    return environment.get_template(template).render({**shared, **facts})


def audit_page(audit: Audit, manifest: Manifest, seed: int = 0) -> str:
    """The audit as one self-contained HTML page, with samples of the pictures. Raises DataError if it is of other rows."""
    if audit.rows != len(manifest) or audit.source != manifest.header.source:
        raise DataError(
            f"audit: of {audit.rows:,} rows of {audit.source}, not of this manifest ({len(manifest):,} rows of "
            f"{manifest.header.source}); audit this manifest"
        )
    album = Album(manifest)
    labels = given_labels(manifest)
    facts: dict[str, Any] = {
        "audit": audit,
        "rule": manifest.header.rule,
        "licence": manifest.header.licence,
        "warnings": manifest.header.warnings,
        "left_out": manifest.header.left_out,
        "facts": _facts(audit),
        "problems": _problems(audit),
        "classes": _classes(audit),
        "sheets": _sheets(album, manifest, labels, seed),
        "sample": _SAMPLE,
        "seed": seed,
        "copies": _copies(audit, album),
        "odd": _odd(audit, album),
        "plane": _plane(manifest, labels),
        "entropy": _entropy(audit),
        "pictures_of": [*list(audit.sizes.items())[:12], *audit.modes.items()],
        "terms": _TERMS,
    }
    return page("audit.html", f"Audit of {audit.source}", {**facts, "sections": _sections(facts)})


def _sections(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = (
        ("problems", "What to do", True),
        ("classes", "Classes", True),
        ("faces", "Faces of each class", facts["sheets"]),
        ("copies", "Copies", facts["copies"]),
        ("odd", "Rows to look at", facts["odd"]),
        ("affect", "Valence and arousal", facts["plane"]),
        ("votes", "Agreement of the votes", facts["entropy"]),
        ("pictures", "Pictures", True),
        ("words", "What counts as what", True),
    )
    return [(name, words) for name, words, there in parts if there]


class Album:
    """Tiles of a manifest's pictures by id, read when they are asked for, each once."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._rows = {name: row for row, name in enumerate(manifest.ids)}
        self._tiles: dict[str, np.ndarray | None] = {}

    def tile(self, name: str) -> np.ndarray | None:
        """The picture as a small square, or None if it cannot be read."""
        if name not in self._tiles:
            sample = next(iter(self._manifest.take([self._rows[name]])))
            self._tiles[name] = _tile(sample)
        return self._tiles[name]

    def uri(self, name: str) -> str | None:
        """The picture as a data URI, or None."""
        found = self.tile(name)
        return None if found is None else data_uri(found)


def _tile(sample: Sample) -> np.ndarray | None:
    try:
        return tile(read_image(sample.image), _SIDE, sample.box)
    except ImageError:
        return None


def _facts(audit: Audit) -> list[dict[str, str]]:
    """The numbers at the top of the page."""
    flawed = len({flaw.id for rows in audit.flaws.values() for flaw in rows})
    imbalance = "none" if audit.imbalance is None else f"{audit.imbalance:.1f}"
    found = [
        ("rows", audit.rows, None),
        ("rows repeated within a split", sum(audit.repeated.values()), True),
        ("rows with an identical copy in an earlier split", sum(audit.leaked.values()), True),
        ("identical pictures, different labels", sum(len(group.rows) for group in audit.conflicts), True),
        ("groups of near copies", len(audit.near), True),
        ("rows with a flaw of their own", flawed, True),
    ]
    cards = [
        {"words": words, "number": f"{number:,}", "tone": "" if bad is None else "bad" if number else "good"}
        for words, number, bad in found
    ]
    cards.insert(1, {"words": "largest over smallest class", "number": imbalance, "tone": ""})
    if audit.label_errors is not None:
        cards.append({"words": "likely label errors", "number": f"{len(audit.label_errors):,}", "tone": "bad"})
    return cards


def _problems(audit: Audit) -> list[dict[str, Any]]:
    """What needs a hand: leaks and conflicts first, then copies, then flaws of single rows."""
    found = [
        _problem(
            n, f"{name}: identical pictures", *_leak(name, "leaks"), _pairs(audit.identical, tuple(name.split(" in ")))
        )
        for name, n in audit.leaked.items()
    ]
    found += [
        _problem(n, f"identical pictures with different labels within {name}", "At most one is right. Drop or relabel.",
                 "conflicts", _pairs(g.of(name) for g in audit.conflicts if len(g.of(name).labels) > 1))
        for name, n in audit.conflicting.items()
    ]  # fmt: skip
    found += [
        _problem(
            n, f"{name}: near copies", *_leak(name, "near-duplicates"), _pairs(audit.near, tuple(name.split(" in ")))
        )
        for name, n in audit.near_leaked.items()
    ]
    found += [
        _problem(n, f"identical pictures within {name}", "They count more than others. Keep one of each.", "duplicates",
                 _pairs(g.of(name) for g in audit.same_faces))
        for name, n in audit.repeated.items()
    ]  # fmt: skip
    if audit.near:
        rows = sum(len(group.rows) for group in audit.near)
        found.append(_problem(rows, "near copies", "Split so that groups stay together, or keep one of each.",
                              "near-duplicates", _pairs(audit.near)))  # fmt: skip
    found += [_problem(len(rows), FLAWS[kind], *_MOVES[kind], rows[:2]) for kind, rows in audit.flaws.items()]
    if audit.label_errors:
        first = [{"id": row.id, "reason": f"{row.given}, likely {row.likely}"} for row in audit.label_errors[:2]]
        found.append(_problem(len(audit.label_errors), "labels that are likely wrong", "Look at them; a model may be "
                              "wrong too.", "label-errors", first))  # fmt: skip
    absent = [name for name in audit.labels if not any(counts[name] for counts in audit.counts.values())]
    if absent:
        found.append(_problem(0, f"classes without rows: {', '.join(absent)}", "Choose labels without them.", None, ()))
    return found


def _problem(rows: int, what: str, move: str, rule: str | None, examples: Sequence[Any]) -> dict[str, Any]:
    return {"rows": rows, "what": what, "move": move, "rule": rule, "examples": examples}


def _leak(name: str, rule: str) -> tuple[str, str | None]:
    """The next move for 'validation in train': only train rows are dropped, so other leaks need another split."""
    if name.endswith(" in train"):
        return "Scores there flatter. Drop the train rows.", rule
    return "Scores on the two are not independent. Split anew with `mien data split`.", None


def _pairs(groups: Iterable[Group], splits: tuple[str, ...] = (), count: int = 2) -> list[dict[str, str]]:
    """The first groups as examples: their first two ids, or the first of each of these splits."""
    found = []
    for group in groups:
        rows = [part.rows[0] for split in splits if (part := group.of(split)).rows] if splits else group.rows[:2]
        if len(rows) == 2:
            found.append({"id": ", ".join(row.id for row in rows), "reason": ""})
        if len(found) == count:
            break
    return found


def _classes(audit: Audit) -> list[dict[str, Any]]:
    """The table of classes: for each label and split the count, its share, and the bar's width."""
    return [
        {"label": label, "cells": [_cell(counts, label) for counts in audit.counts.values()]} for label in audit.labels
    ]


def _cell(counts: Mapping[str, int], label: str) -> dict[str, float]:
    total, most = max(1, sum(counts.values())), max(1, *counts.values())
    return {"count": counts[label], "share": 100 * counts[label] / total, "width": 60 * counts[label] / most}


def _sheets(album: Album, manifest: Manifest, labels: list[str | None], seed: int) -> list[dict[str, Any]]:
    """One sheet of faces for each class that has rows."""
    rng, ids, given = np.random.default_rng(seed), manifest.ids, np.array(labels, object)
    sheets = []
    for label in manifest.labels:
        rows = np.flatnonzero(given == label)
        chosen = rng.permutation(rows)[:_SAMPLE]
        tiles = [found for row in chosen if (found := album.tile(ids[row])) is not None]
        if tiles:
            picture = data_uri(montage(tiles, _COLUMNS))
            sheets.append({"label": label, "rows": len(rows), "shown": len(tiles), "picture": picture})
    return sheets


def _copies(audit: Audit, album: Album) -> list[dict[str, Any]]:
    """The groups of copies, side by side."""
    plain = [group for group in audit.identical if all(len(face.labels) < 2 for face in group.faces)]
    across = [group for group in plain if len(group.splits) > 1]
    within = [face for group in plain if len(group.splits) == 1 for face in group.faces if len(face.rows) > 1]
    parts = (
        ("Identical pictures, different labels", "At most one label of each group is right.", audit.conflicts),
        ("Identical pictures across splits", "What is learned in one split is asked in another.", across),
        ("Identical pictures within a split", "The largest groups first.", within),
        ("Near copies", "Nearly the same picture: re-encoded, marked, mirrored.", audit.near),
    )
    return [
        {"heading": heading, "words": words, "total": len(groups), "groups": _shown(groups, album)}
        for heading, words, groups in parts
        if groups
    ]


def _shown(groups: Sequence[Group], album: Album) -> list[dict[str, Any]]:
    """The groups that touch most splits and labels, then the largest."""
    first = sorted(groups, key=lambda group: (-len(group.splits), -len(group.labels), -len(group.rows)))[:_GROUPS]
    return [
        {"faces": [_face(row, album) for row in _spread(group)], "more": max(0, len(group.rows) - _MEMBERS)}
        for group in first
    ]


def _spread(group: Group) -> list[Member]:
    """Some rows of a group, such that every split and label is among them where there is room."""
    seen: set[tuple[str, str | None]] = set()
    first: list[Member] = []
    rest: list[Member] = []
    for row in group.rows:
        (rest if (row.split, row.label) in seen else first).append(row)
        seen.add((row.split, row.label))
    return (first + rest)[:_MEMBERS]


def _face(row: Member, album: Album) -> dict[str, Any]:
    return {"row": row, "picture": album.uri(row.id)}


def _odd(audit: Audit, album: Album) -> list[dict[str, Any]]:
    """Pictures of rows with a flaw of their own, and of likely label errors."""
    kinds = [(FLAWS[kind], [(flaw.id, flaw.reason) for flaw in rows]) for kind, rows in audit.flaws.items()]
    if audit.label_errors:
        told = [(row.id, f"{row.given}, likely {row.likely}") for row in audit.label_errors]
        kinds.insert(0, ("labels that are likely wrong", told))
    sheets = []
    for what, rows in kinds:
        faces = [
            {"id": name, "reason": reason, "picture": picture}
            for name, reason in rows[:_ODD]
            if (picture := album.uri(name)) is not None
        ]
        if faces:
            sheets.append({"what": what, "rows": len(rows), "shown": len(faces), "faces": faces})
    return sheets


def _plane(manifest: Manifest, labels: list[str | None]) -> dict[str, Any] | None:
    affect = manifest.affect()
    inside = (np.abs(affect) <= 1).all(axis=1)
    if not inside.any():
        return None
    there = {label for label, shown in zip(labels, inside, strict=True) if shown}
    names = [label for label in (*manifest.labels, None) if label in there]
    title = f"Valence and arousal of {int(inside.sum()):,} rows, coloured by label"
    return {"rows": int(inside.sum()), "svg": plane(affect, labels, title), "labels": names}


def _entropy(audit: Audit) -> Any:
    if audit.entropy is None:
        return None
    return histogram(audit.entropy.bins, 0.0, audit.entropy.most, "bits", "Rows by the entropy of their votes, in bits")
