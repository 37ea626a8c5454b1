"""Between two detections faces are followed by the motion of the picture; and cuts are noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from mien.faces import Face
from mien.runtime.detect import Detector

__all__ = ["Finder", "Follower", "is_cut", "thumbnail"]

_SIDE = 320
_GRID = np.stack(np.meshgrid(np.linspace(0.25, 0.75, 4), np.linspace(0.3, 0.85, 4)), axis=-1).reshape(-1, 2)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Grey float32 (24, 32) of a picture, to tell a cut from a movement."""
    return cv2.cvtColor(cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(
        np.float32
    )


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two thumbnails show different scenes: little in common once brightness and contrast are taken off.

    A pan or a flash keeps a correlation; a cut does not, and changes many grey levels. A cut that keeps the background is missed.
    """
    a, b = before - before.mean(), after - after.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    alike = float((a * b).sum()) / scale if scale > 1e-6 else float(np.allclose(a, b, atol=1.0))
    return alike < 0.4 and float(np.abs(before - after).mean()) > 12


class Follower:
    """Moves faces from one frame to the next by sparse optical flow (J.-Y. Bouguet's pyramidal Lucas-Kanade in OpenCV).

    Twenty-one points of each face are followed there and back; those that return give a similarity that moves box and
    landmarks. Answers None as soon as a face cannot be followed well: then look for faces again.
    """

    def __init__(self) -> None:
        self._grey: np.ndarray | None = None
        self._faces: list[Face] = []

    def start(self, image: np.ndarray, faces: Sequence[Face]) -> None:
        """Faces as found in this image."""
        self._grey, self._faces = _small(image)[0], list(faces)

    def __call__(self, image: np.ndarray) -> list[Face] | None:
        """The same faces in the next image, in the same order, or None."""
        before, (grey, scale) = self._grey, _small(image)
        if before is None or before.shape != grey.shape:
            return None
        moved = []
        for face in self._faces:
            found = _moved(before, grey, face, scale)
            if found is None:
                return None
            moved.append(found)
        self._grey, self._faces = grey, moved
        return moved


def _small(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Grey, its long side at most 320 pixels, and its scale."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(image, size, interpolation=way), cv2.COLOR_RGB2GRAY), scale


def _moved(before: np.ndarray, after: np.ndarray, face: Face, scale: float) -> Face | None:
    x0, y0, x1, y1 = face.box
    points = _GRID * (x1 - x0, y1 - y0) + (x0, y0)
    if face.landmarks is not None:
        points = np.concatenate([face.landmarks, points])
    start = (points * scale).astype(np.float32)
    flow: Any = cv2.calcOpticalFlowPyrLK
    there, ok, _ = flow(before, after, start, None, winSize=(13, 13), maxLevel=2)
    back, ok_back, _ = flow(after, before, there, None, winSize=(13, 13), maxLevel=2)
    good = (ok.ravel() > 0) & (ok_back.ravel() > 0) & (np.abs(back - start).max(axis=1) < 0.7)
    if good.sum() < 0.6 * len(points):
        return None
    matrix, inside = cv2.estimateAffinePartial2D(start[good], there[good], ransacReprojThreshold=1.5)
    if matrix is None or inside.sum() < 0.5 * len(points):
        return None
    matrix[:, 2] /= scale
    growth = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0.85 < growth < 1.18:
        return None
    x, y = matrix[:, :2] @ ((x0 + x1) / 2, (y0 + y1) / 2) + matrix[:, 2]
    w, h = growth * (x1 - x0) / 2, growth * (y1 - y0) / 2
    marks = face.landmarks
    if marks is not None:
        marks = (marks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return replace(face, box=(float(x - w), float(y - h), float(x + w), float(y + h)), landmarks=marks)


class Finder:
    """The faces of each frame: looked for at least every `gap` seconds, at cuts and at the start of every `part` seconds;
    followed in between. With a gap of 0 they are looked for in every frame.

    A followed face keeps the score with which it was found; a face that newly appears is seen at the next look.
    part: seconds; a grid in time at which nothing depends on the frames before, so that a stopped reading can go on there.
    """

    def __init__(self, detector: Detector, gap: float = 0.0, part: float = 10.0) -> None:
        self.detector, self.gap, self.part = detector, gap, part
        self.looks = 0
        self._follower = Follower()
        self._looked = self._frame = -np.inf
        self._seen: np.ndarray | None = None

    def prime(self, image: np.ndarray) -> None:
        """The frame before the first: it only tells whether a cut lies between them."""
        self._seen = thumbnail(image)

    def __call__(self, image: np.ndarray, seconds: float) -> tuple[list[Face], bool]:
        """The faces, and whether a cut lies before this frame."""
        before, self._seen = self._seen, thumbnail(image)
        cut = before is not None and is_cut(before, self._seen)
        fresh = seconds // self.part != self._frame // self.part
        due = self.gap <= 0 or seconds - self._looked >= self.gap - 1e-6
        self._frame = seconds
        faces = None if cut or fresh or due else self._follower(image)
        if faces is None:
            faces = self.detector(image)
            self.looks, self._looked = self.looks + 1, seconds
            if self.gap > 0:
                self._follower.start(image, faces)
        return faces, cut
