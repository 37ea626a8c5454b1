"""The audit: what a dataset holds, and what in it spoils results, found in one pass over the rows.

What counts as what:

identical      the same decoded RGB pixels (and size), whatever the file's form. The same face: identical pictures with the same
               box (without a box, the same landmarks; without those, the picture). Copies and conflicts within a split are
               of faces, since rows with boxes of their own are different people; copies across splits are of pictures.
near copies    other pixels, but perceptual hashes (signs of the 63 lowest DCT coefficients of a 16x16 grey thumbnail) that
               differ in at most 5 bits, and thumbnails that correlate at 0.98 or more; plain or mirrored. Groups are
               those pairs and what hangs together through them. So re-encoded, resized, brightened and mirrored copies
               are found; other crops are not. Chips with a mask are compared inside it (mien.data.near).
blank          grey levels with a standard deviation below 3 of 255; black: no level above 0.
conflict       rows of the same face whose labels (the target's largest entry) differ.
no majority    the largest share of the target is one half or less.
affect-label   valence beyond 0.2 on the other side of zero than its label's mean in AffectNet, for labels with a mean of at
               least 0.4 (happiness, sadness, disgust, anger, contempt); arousal below -0.2 for surprise and fear.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import msgspec
import numpy as np
from PIL import Image

from mien.data.doubt import LabelError, Told, given_labels, label_errors
from mien.data.manifest import SPLITS, Manifest, Sample
from mien.data.near import join_near, thumb_side
from mien.errors import ImageError
from mien.labels import AFFECT_MEANS, LabelSet
from mien.vision.image import read_image

__all__ = ["FLAWS", "Audit", "Flaw", "Group", "Member", "audit"]

_FLAT = 3.0
_PART = 512

#: Every kind of flaw of a single row, and what it means.
FLAWS: dict[str, str] = {
    "missing": "the file is not there",
    "undecodable": "the file is no picture, or is damaged",
    "black": "every pixel is black",
    "blank": "almost one grey level",
    "box-outside": "the box lies outside the picture, or is empty",
    "box-leaves": "the box leaves the picture",
    "landmarks-outside": "landmarks lie outside the picture",
    "no-majority": "no label has more than half of the votes",
    "affect-range": "valence or arousal is outside [-1, 1], or one of the two is missing",
    "affect-label": "valence or arousal contradicts the label",
}


class Flaw(msgspec.Struct, frozen=True):
    """A row with something wrong, and what."""

    id: str
    reason: str


class Member(msgspec.Struct, frozen=True):
    """A row of a group. label: by the target's largest entry; None if unlabelled.  face: the number of the first row of the same face."""

    id: str
    split: str
    label: str | None
    face: int


class Group(msgspec.Struct, frozen=True):
    """Rows with identical or nearly the same pictures, in row order."""

    rows: tuple[Member, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids."""
        return tuple(row.id for row in self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the group touches, train first."""
        return tuple(name for name in SPLITS if any(row.split == name for row in self.rows))

    @property
    def labels(self) -> tuple[str, ...]:
        """The different labels of the group, in order of appearance."""
        return tuple(dict.fromkeys(row.label for row in self.rows if row.label is not None))

    @property
    def faces(self) -> tuple[Group, ...]:
        """The rows of each face, in order of appearance; of a picture without boxes that is the group itself."""
        found: dict[int, list[Member]] = defaultdict(list)
        for row in self.rows:
            found[row.face].append(row)
        return tuple(Group(tuple(rows)) for rows in found.values())

    def of(self, split: str) -> Group:
        """The rows of one split."""
        return Group(tuple(row for row in self.rows if row.split == split))


class Entropy(msgspec.Struct, frozen=True):
    """Entropy of the targets in bits: mean, and rows in equal bins from 0 to log2 of the number of labels."""

    mean: float
    most: float
    bins: tuple[int, ...]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; `msgspec.json.encode` writes it.

    counts: rows by split and label.  imbalance: largest over smallest class that has rows; None if nothing is labelled.
    sizes, modes: pictures by size ('48x48') and by form and mode ('PNG L'), the most frequent first.
    flaws: rows by kind (see FLAWS), kinds without rows left out.
    identical, near: groups over all splits (near: all rows of at least two different pictures).
    repeated: rows of a split whose face another row of that split has too.  leaked: 'validation in train': rows of validation
    with an identical picture in train.  conflicting: rows of a split that share a face within it but not the label.
    near_leaked: as leaked, by near copies only.  entropy: None if every target is hard.
    label_errors: None if no predictions were given.
    """

    source: str
    labels: tuple[str, ...]
    rows: int
    counts: dict[str, dict[str, int]]
    unlabelled: dict[str, int]
    imbalance: float | None
    sizes: dict[str, int]
    modes: dict[str, int]
    flaws: dict[str, tuple[Flaw, ...]]
    identical: tuple[Group, ...]
    near: tuple[Group, ...]
    repeated: dict[str, int]
    leaked: dict[str, int]
    near_leaked: dict[str, int]
    conflicting: dict[str, int]
    entropy: Entropy | None = None
    label_errors: tuple[LabelError, ...] | None = None

    @property
    def same_faces(self) -> tuple[Group, ...]:
        """The groups of two rows or more of the same face, within a split or across."""
        return tuple(face for group in self.identical for face in group.faces if len(face.rows) > 1)

    @property
    def conflicts(self) -> tuple[Group, ...]:
        """Rows of the same face whose labels differ, within a split or across."""
        return tuple(face for face in self.same_faces if len(face.labels) > 1)

    @property
    def near_groups(self) -> tuple[tuple[str, ...], ...]:
        """The ids of each group of near copies."""
        return tuple(group.ids for group in self.near)

    def summary(self) -> list[tuple[str, str]]:
        """(what, found) lines for people."""
        splits = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in self.counts.items())
        lines = [("rows", f"{self.rows:,}"), ("labelled rows by split", splits or "none")]
        lines += [(f"unlabelled in {name}", f"{n:,}") for name, n in self.unlabelled.items()]
        absent = [name for name in self.labels if not any(counts[name] for counts in self.counts.values())]
        lines += [("classes without rows", ", ".join(absent))] if absent else []
        lines += [("largest over smallest class", f"{self.imbalance:.1f}")] if self.imbalance else []
        lines += [("picture sizes", _most(self.sizes)), ("picture forms", _most(self.modes))]
        lines += [(FLAWS[kind], _rows(len(rows))) for kind, rows in self.flaws.items()]
        lines += [(f"identical pictures within {name}", _rows(n)) for name, n in self.repeated.items()]
        lines += [(f"identical copies of {name}", _rows(n)) for name, n in self.leaked.items()]
        lines += [
            (f"identical pictures, different labels within {name}", _rows(n)) for name, n in self.conflicting.items()
        ]
        lines += [("groups of near copies", f"{len(self.near):,} ({_rows(sum(len(g.rows) for g in self.near))})")]
        lines += [(f"near copies of {name}", _rows(n)) for name, n in self.near_leaked.items()]
        lines += [("entropy of the votes", f"{self.entropy.mean:.2f} bits on average")] if self.entropy else []
        lines += [("likely label errors", _rows(len(self.label_errors)))] if self.label_errors is not None else []
        return lines


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _most(counts: dict[str, int], show: int = 3) -> str:
    parts = [f"{name} ({count:,})" for name, count in list(counts.items())[:show]]
    return ", ".join(parts) + (f" and {len(counts) - show:,} more" if len(counts) > show else "") or "none"


def audit(
    manifest: Manifest,
    predictions: Told | None = None,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = lambda rows: rows,
    workers: int = 2,
) -> Audit:
    """Everything that the module's docstring names, in one pass; pictures are decoded by `workers` threads and let go.

    predictions: of a model that did not train on these rows (else it has learned their errors); rows without one are
    passed over. Raises DataError if predictions name a row that is not there, or no label in common.
    """
    masked = any(cut is not None and cut.mask != "none" for cut in (manifest.header.crop, manifest.header.framing))
    seen = _look(manifest, progress, workers, thumb_side(masked))
    labels, splits = given_labels(manifest), manifest.splits()
    faces = _identical(seen.faces).tolist()
    members = [Member(*row) for row in zip(manifest.ids, splits, labels, faces, strict=True)]
    heads = _identical(seen.digests)
    near_heads = join_near(seen.thumbs, seen.plain, heads, masked)
    identical = _groups(members, heads)
    near = tuple(g for g in _groups(members, near_heads) if len({heads[r] for r in g[1]}) > 1)
    same = [face for group, _ in identical for face in group.faces]
    counts = _counts(manifest.labels, labels, splits)
    return Audit(
        source=manifest.header.source,
        labels=manifest.labels.names,
        rows=len(manifest),
        counts=counts,
        unlabelled=_present(Counter(s for s, name in zip(splits, labels, strict=True) if name is None)),
        imbalance=_imbalance(counts),
        sizes=_ordered(seen.sizes),
        modes=_ordered(seen.modes),
        flaws=_flaws(manifest, seen, labels),
        identical=tuple(group for group, _ in identical),
        near=tuple(group for group, _ in near),
        repeated=_within(same),
        leaked=_leaked((group for group, _ in identical)),
        near_leaked=_near_leaked(near, heads),
        conflicting=_within(same, conflicts=True),
        entropy=_entropy(manifest.targets()),
        label_errors=None if predictions is None else label_errors(manifest, predictions),
    )


@dataclass(slots=True, eq=False)
class _Seen:
    """Small facts of each row, and counts: all that is kept of the pictures."""

    digests: list[bytes]
    faces: list[bytes]
    thumbs: np.ndarray
    plain: np.ndarray
    flaws: dict[str, list[Flaw]]
    sizes: Counter[str]
    modes: Counter[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    digest: bytes
    thumb: np.ndarray
    size: tuple[int, int]
    mode: str
    spread: float
    brightest: int


def _look(
    manifest: Manifest, progress: Callable[[Iterable[Sample]], Iterable[Sample]], workers: int, side: int
) -> _Seen:
    count = len(manifest)
    thumbs, plain = np.zeros((count, side, side), np.uint8), np.zeros(count, bool)
    seen = _Seen([], [], thumbs, plain, defaultdict(list), Counter(), Counter())
    rows = iter(progress(manifest))
    with ThreadPoolExecutor(workers) as pool:
        while part := list(islice(rows, _PART)):
            for sample, found in zip(part, pool.map(partial(_open, side=side), part), strict=True):
                _note(seen, sample, found)
    return seen


def _open(sample: Sample, side: int) -> _Picture | tuple[str, str]:
    """The facts of a picture, or the kind of flaw and the reason why there are none."""
    if isinstance(sample.image, Path) and not sample.image.is_file():
        return "missing", f"{sample.image}: no such file"
    try:
        data = sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()
        pixels = read_image(data)
    except (ImageError, OSError) as error:
        where = "" if isinstance(sample.image, bytes) else f"{sample.image}: "
        return "undecodable", f"{where}{error}"
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    digest = hashlib.blake2b(str(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
    thumb = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    height, width = grey.shape
    return _Picture(digest, thumb, (width, height), _mode(data, pixels), float(grey.std()), int(pixels.max()))


def _mode(data: bytes, pixels: np.ndarray) -> str:
    with Image.open(io.BytesIO(data)) as picture:
        name = f"{picture.format} {picture.mode}"
    grey = (
        "RGB" in name
        and np.array_equal(pixels[..., 0], pixels[..., 1])
        and np.array_equal(pixels[..., 1], pixels[..., 2])
    )
    return f"{name}, three equal channels" if grey else name


def _note(seen: _Seen, sample: Sample, found: _Picture | tuple[str, str]) -> None:
    row = len(seen.digests)
    if not isinstance(found, _Picture):
        seen.flaws[found[0]].append(Flaw(sample.id, found[1]))
        seen.digests.append(b"")
        seen.faces.append(b"")
        return
    seen.digests.append(found.digest)
    seen.faces.append(found.digest + _place(sample))
    seen.sizes["{}x{}".format(*found.size)] += 1
    seen.modes[found.mode] += 1
    seen.thumbs[row] = found.thumb
    if found.brightest == 0:
        seen.flaws["black"].append(Flaw(sample.id, "every pixel is 0"))
    elif found.spread < _FLAT:
        seen.flaws["blank"].append(Flaw(sample.id, f"grey levels spread by {found.spread:.1f} of 255"))
    else:
        seen.plain[row] = True
    for kind, reason in _misplaced(sample, *found.size):
        seen.flaws[kind].append(Flaw(sample.id, reason))


def _place(sample: Sample) -> bytes:
    """Which face of its picture a row is: a hash of its box or else its landmarks; nothing where it has neither."""
    if sample.box is None and sample.landmarks is None:
        return b""
    where = np.asarray(sample.landmarks if sample.box is None else sample.box, np.float32)
    return hashlib.blake2b(where.tobytes(), digest_size=16).digest()


def _misplaced(sample: Sample, width: int, height: int) -> Iterator[tuple[str, str]]:
    """What is wrong with the box and the landmarks in a picture of this size."""
    if sample.box is not None:
        x0, y0, x1, y1 = sample.box
        where = f"box {x0:g}, {y0:g}, {x1:g}, {y1:g} in {width}x{height} pixels"
        if not (x1 > x0 and y1 > y0 and math.isfinite(sum(sample.box))):
            yield "box-outside", f"{where}: empty or no numbers"
        elif x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            yield "box-outside", f"{where}: outside"
        elif x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            yield "box-leaves", where
    if sample.landmarks is not None:
        inside = np.asarray(((sample.landmarks >= 0) & (sample.landmarks <= (width, height))).all(axis=1))
        if not inside.all():
            yield (
                "landmarks-outside",
                f"{int((~inside).sum())} of {len(sample.landmarks)} points in {width}x{height} pixels",
            )


def _counts(labels: LabelSet, given: list[str | None], splits: np.ndarray) -> dict[str, dict[str, int]]:
    found = Counter(zip(splits, given, strict=True))
    return {split: {name: found[split, name] for name in labels} for split in SPLITS if split in set(splits)}


def _imbalance(counts: dict[str, dict[str, int]]) -> float | None:
    total: Counter[str] = Counter()
    for split in counts.values():
        total.update(split)
    there = [count for count in total.values() if count]
    return max(there) / min(there) if there else None


def _present(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in SPLITS if counts[name]}


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _flaws(manifest: Manifest, seen: _Seen, labels: list[str | None]) -> dict[str, tuple[Flaw, ...]]:
    found = dict(seen.flaws)
    ids, targets, affect = manifest.ids, manifest.targets(), manifest.affect()
    best = np.nan_to_num(targets, nan=1.0).max(axis=1)
    found["no-majority"] = [Flaw(ids[i], f"the largest share is {best[i]:.2f}") for i in np.flatnonzero(best <= 0.5)]
    wrong = (np.abs(affect) > 1).any(axis=1) | (np.isnan(affect).sum(axis=1) == 1)
    found["affect-range"] = [Flaw(ids[i], _affect_words(affect[i])) for i in np.flatnonzero(wrong)]
    sides = np.array([_sides(name) for name in labels], np.float32).reshape(-1, 2)
    against = ((affect * sides) < -0.2).any(axis=1) & ~wrong
    found["affect-label"] = [
        Flaw(ids[i], f"{labels[i]} with {_affect_words(affect[i])}") for i in np.flatnonzero(against)
    ]
    return {kind: tuple(found[kind]) for kind in FLAWS if found.get(kind)}


def _affect_words(affect: np.ndarray) -> str:
    return f"valence {affect[0]:.2f}, arousal {affect[1]:.2f}"


def _sides(label: str | None) -> tuple[float, float]:
    """On which side of zero a label's valence and arousal must lie (+1, -1); 0 where it may be either."""
    valence, arousal = AFFECT_MEANS.get(label or "", (0.0, 0.0))
    return math.copysign(abs(valence) >= 0.4, valence), math.copysign(abs(arousal) >= 0.7, arousal)


def _entropy(targets: np.ndarray, bins: int = 24) -> Entropy | None:
    shares = targets[~np.isnan(targets).any(axis=1)].astype(np.float64)
    if not len(shares) or (shares.max(axis=1) > 0.999).all():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -np.where(shares > 0, shares * np.log2(shares), 0).sum(axis=1)
    most = math.log2(shares.shape[1])
    counts = np.histogram(np.clip(bits, 0, most), bins, (0, most))[0]
    return Entropy(float(bits.mean()), most, tuple(int(count) for count in counts))


def _identical(digests: Sequence[bytes]) -> np.ndarray:
    """(n,) the first row with the same digest; unreadable pictures, which have none, stand alone."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, row) if digest else row for row, digest in enumerate(digests)], np.int64)


def _groups(members: list[Member], heads: np.ndarray) -> list[tuple[Group, list[int]]]:
    """Groups of two rows or more that share a head, with their row numbers, in row order."""
    order = np.argsort(heads, kind="stable")
    starts = np.flatnonzero(np.diff(heads[order], prepend=-1))
    parts = np.split(order, starts[1:]) if len(order) else []
    return [(Group(tuple(members[r] for r in part)), part.tolist()) for part in parts if len(part) > 1]


def _within(groups: Iterable[Group], conflicts: bool = False) -> dict[str, int]:
    """Rows by split in groups of two rows or more of that split (whose labels differ)."""
    counts: Counter[str] = Counter()
    for part in (group.of(split) for group in groups for split in group.splits):
        if len(part.rows) > 1 and (not conflicts or len(part.labels) > 1):
            counts[part.rows[0].split] += len(part.rows)
    return _present(counts)


def _leaked(groups: Iterable[Group]) -> dict[str, int]:
    """Rows of a later split that have a copy in an earlier one, as 'validation in train'."""
    counts: Counter[str] = Counter()
    for group in groups:
        for i, earlier in enumerate(group.splits):
            for later in group.splits[i + 1 :]:
                counts[f"{later} in {earlier}"] += len(group.of(later).rows)
    return dict(sorted(counts.items()))


def _near_leaked(near: Sequence[tuple[Group, list[int]]], heads: np.ndarray) -> dict[str, int]:
    """As _leaked, but without rows that have an identical copy there."""
    counts: Counter[str] = Counter()
    for group, rows in near:
        for i, earlier in enumerate(group.splits):
            copies = {heads[row] for row, member in zip(rows, group.rows, strict=True) if member.split == earlier}
            for row, member in zip(rows, group.rows, strict=True):
                if member.split in group.splits[i + 1 :] and heads[row] not in copies:
                    counts[f"{member.split} in {earlier}"] += 1
    return dict(sorted(counts.items()))
