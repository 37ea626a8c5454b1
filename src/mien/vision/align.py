"""The one crop: a face in an image -> a chip, as a CropSpec says. Training and looking both use it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from mien.errors import ImageError
from mien.faces import Face
from mien.spec import CropSpec

__all__ = ["TYPICAL_LANDMARKS", "crop", "crop_matrix", "framed", "similarity"]

#: Where the five landmarks of an upright face sit in a tight box (forehead to chin), as fractions of its sides.
#: For faces whose detector gives no landmarks.
TYPICAL_LANDMARKS = np.array([(0.265, 0.38), (0.735, 0.38), (0.5, 0.581), (0.3, 0.734), (0.7, 0.734)], np.float64)


def crop(image: np.ndarray, face: Face, spec: CropSpec) -> np.ndarray:
    """The chip of a face: uint8 (height + 2 border, width + 2 border, 3), RGB (three equal channels if not 'rgb').

    A face larger than its chip is first shrunk by area, then warped once, bilinearly; what lies outside the
    image repeats its edge. Raises ImageError if the face's box or landmarks span nothing.
    """
    matrix = crop_matrix(face, spec)
    matrix[:, 2] += spec.border
    size = (spec.width + 2 * spec.border, spec.height + 2 * spec.border)
    image = _masked(image, face) if spec.mask == "hull" else image
    return _recolour(_warp(image, matrix, size), spec.colour)


def crop_matrix(face: Face, spec: CropSpec) -> np.ndarray:
    """The (2, 3) float64 map from image to chip (without border), in the edge convention: pixel i covers [i, i+1]."""
    size = np.array([spec.width, spec.height], np.float64)
    if spec.align == "box":
        return _box_matrix(face, spec, size)
    points = _landmarks(face)
    wanted = (np.array(spec.points) - 0.5) / (1 + 2 * spec.margin) * size + size / 2
    count = 2 if spec.align == "eyes" else 5
    return similarity(points[:count], wanted[:count])


def _box_matrix(face: Face, spec: CropSpec, size: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = face.box
    ratio = size[0] / size[1]
    height = max(y1 - y0, (x1 - x0) / ratio)
    if not height > 0:
        raise ImageError(f"the face's box {face.box} spans nothing")
    sides = np.array([height * ratio, height])
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + sides * np.array(spec.shift)
    scale = size[1] / (height * (1 + 2 * spec.margin))
    return np.array([[scale, 0, size[0] / 2 - scale * centre[0]], [0, scale, size[1] / 2 - scale * centre[1]]])


def _landmarks(face: Face) -> np.ndarray:
    if face.landmarks is not None:
        return np.asarray(face.landmarks, np.float64)
    x0, y0, x1, y1 = face.box
    return TYPICAL_LANDMARKS * (x1 - x0, y1 - y0) + (x0, y0)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (2, 3) similarity (turn, scale, shift) that takes (k, 2) source points closest to the target points.

    Least squares in closed form: S. Umeyama, IEEE TPAMI 13(4), 1991, in the plane and without reflection.
    Raises ImageError if the source points coincide.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle, target - aim
    spread = (a**2).sum()
    if not spread > 1e-9:
        raise ImageError("the face's landmarks coincide or are not numbers")
    cos = (a * b).sum() / spread
    sin = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / spread
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.hstack([turn, (aim - turn @ middle)[:, None]])


def framed(shape: tuple[int, ...], spec: CropSpec) -> Face:
    """The face whose crop is exactly the whole image of this shape: for images that already are faces."""
    height, width = shape[:2]
    sides = np.array([width, height], np.float64)
    inner = sides / (1 + 2 * spec.margin)
    start = (sides - inner) / 2
    if spec.align == "box":
        start = start - inner * np.array(spec.shift)
    x0, y0 = start
    x1, y1 = start + inner
    landmarks = None
    if spec.points is not None:
        landmarks = ((np.array(spec.points) - 0.5) / (1 + 2 * spec.margin) + 0.5) * sides
    return Face((float(x0), float(y0), float(x1), float(y1)), landmarks=landmarks)


def _warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp by an edge-convention matrix, after shrinking the region around the face by area if it is larger."""
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    image, offset = _region(image, matrix, size, scale)
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ offset
    factor = scale
    if factor < 1:
        height, width = image.shape[:2]
        small = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix[:, :2] = matrix[:, :2] @ np.diag([width / small[0], height / small[1]])
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # to OpenCV's convention: pixel i is the point i
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _region(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the chip sees, with a margin, and where it begins (x, y)."""
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([(0, 0), (size[0], 0), (0, size[1]), size]) @ inverse[:, :2].T + inverse[:, 2]
    pad = 2 + 2 / max(scale, 1e-6)
    limit = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(corners.min(axis=0) - pad), 0, limit - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + pad), low + 1, limit).astype(int)
    return image[low[1] : high[1], low[0] : high[0]], low.astype(np.float64)


def _recolour(chip: np.ndarray, colour: str) -> np.ndarray:
    if colour == "rgb":
        return chip
    if colour == "grey":
        return cv2.cvtColor(cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.repeat(cv2.cvtColor(chip, cv2.COLOR_RGB2LAB)[..., :1], 3, axis=2)


def _masked(image: np.ndarray, face: Face) -> np.ndarray:
    hull = cv2.convexHull(_landmarks(face).astype(np.float32)).round().astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros(image.shape[:2], np.uint8), hull, 1)
    return image * mask[..., None]
