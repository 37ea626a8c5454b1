"""How well a detector finds faces: found faces against wanted ones, matched by overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from mien.faces import Face

__all__ = ["DetectionScores", "Matches", "highest_threshold", "match", "on_disc", "overlaps", "score_detection"]


class Matches(msgspec.Struct, frozen=True):
    """Of one picture: pairs (index of the found face, index of the wanted one), one to one."""

    pairs: tuple[tuple[int, int], ...]
    found: int
    wanted: int


class DetectionScores(msgspec.Struct, frozen=True):
    """recall: share of the sure wanted faces that were found.  precision: share of the found faces that match any wanted
    one.  landmarks: mean distance of matched landmarks over the eye distance (NaN without a match)."""

    pictures: int
    sure: int
    found: int
    recall: float
    precision: float
    landmarks: float


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of boxes (n, 4) and (m, 4)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def match(found: Sequence[Face], wanted: Sequence[Face], least: float = 0.5) -> Matches:
    """Pair found and wanted faces, the largest overlap first, each at most once, down to intersection over union `least`."""
    pairs: list[tuple[int, int]] = []
    if found and wanted:
        table = overlaps(*(np.array([face.box for face in faces], float) for faces in (found, wanted)))
        while table.max() >= least:
            i, j = (int(k) for k in np.unravel_index(int(table.argmax()), table.shape))
            pairs.append((i, j))
            table[i, :], table[:, j] = -1, -1
    return Matches(tuple(pairs), len(found), len(wanted))


def on_disc(face: Face, discs: Sequence[tuple[float, float, float]]) -> bool:
    """Whether a face is one of the heads on some discs (x, y, radius; the face is 1.5 radii high): the middle of its box lies
    within half a radius of the disc's, and it is half to twice as high."""
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return any(math.hypot(x - a, y - b) < r / 2 and 0.5 < face.size / (1.5 * r) < 2 for a, b, r in discs)


def score_detection(
    found: Sequence[Sequence[Face]],
    wanted: Sequence[Sequence[Face]],
    sure: float = 0.8,
    smallest: float = 20.0,
    least: float = 0.5,
) -> DetectionScores:
    """Judge a detector against the faces that a reference found, picture by picture.

    Recall counts reference faces with a score of at least `sure` and a height of at least `smallest` pixels; any reference
    face makes a found one right. Where nothing is wanted recall is NaN; where nothing is found, precision.
    """
    hit = total = right = count = 0
    distances: list[float] = []
    for ours, theirs in zip(found, wanted, strict=True):
        pairs = match(ours, theirs, least).pairs
        matched = {j for _, j in pairs}
        must = {j for j, face in enumerate(theirs) if face.score >= sure and face.size >= smallest}
        hit, total = hit + len(must & matched), total + len(must)
        right, count = right + len(pairs), count + len(ours)
        distances += [d for i, j in pairs if (d := _distance(ours[i], theirs[j])) is not None]
    return DetectionScores(
        pictures=len(found),
        sure=total,
        found=count,
        recall=hit / total if total else float("nan"),
        precision=right / count if count else float("nan"),
        landmarks=float(np.mean(distances)) if distances else float("nan"),
    )


def _distance(ours: Face, theirs: Face) -> float | None:
    """Mean distance of five landmarks over the eye distance of the second face."""
    if ours.landmarks is None or theirs.landmarks is None:
        return None
    eyes = float(np.linalg.norm(theirs.landmarks[0] - theirs.landmarks[1]))
    return float(np.linalg.norm(ours.landmarks - theirs.landmarks, axis=1).mean()) / max(eyes, 1e-9)


def highest_threshold(
    found: Sequence[Sequence[Face]], wanted: Sequence[Sequence[Face]], choices: Sequence[float], recall: float
) -> float:
    """The highest of some thresholds at which this share of the sure wanted faces is found; else the lowest.

    found: faces with any score above the least choice; those below a threshold are left out for it.
    """
    for choice in sorted(choices, reverse=True):
        kept = [[face for face in faces if face.score >= choice] for faces in found]
        if score_detection(kept, wanted).recall >= recall:
            return choice
    return min(choices)
