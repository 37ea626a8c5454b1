"""What a picture looks like, as one number a row: size, brightness, contrast, sharpness, roll, turn."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from mien.data.manifest import Manifest, Sample
from mien.data.prepare import five_of
from mien.errors import DataError, ImageError
from mien.vision.image import read_image

__all__ = ["MEASURED", "UNITS", "measured"]

#: The side to which a face is brought before its sharpness is measured, so that small and large faces compare.
_SIDE = 48


def measured(manifest: Manifest, name: str) -> np.ndarray:
    """(n,) one of MEASURED for each row; NaN where it cannot be known. Raises DataError if it is known for no row."""
    values = np.array([_of(sample, name) for sample in manifest])
    if np.isnan(values).all():
        why = "no row has landmarks" if name in ("roll", "turn") else "no picture can be read"
        raise DataError(f"{manifest.header.source}: {name} cannot be measured: {why}")
    return values


def _of(sample: Sample, name: str) -> float:
    if name in ("roll", "turn"):
        return math.nan if sample.landmarks is None else _POSES[name](five_of(sample.landmarks).astype(np.float64))
    try:
        face = _face(sample)
    except ImageError:
        return math.nan
    return MEASURED[name](face)


def _face(sample: Sample) -> np.ndarray:
    """The grey face: the part of the picture inside the box, or the whole picture."""
    grey = cv2.cvtColor(read_image(sample.image), cv2.COLOR_RGB2GRAY)
    if sample.box is None or not np.isfinite(sample.box).all():
        return grey
    x0, y0, x1, y1 = (max(0, round(edge)) for edge in sample.box)
    part = grey[y0:y1, x0:x1]
    return part if part.size else grey


def _size(face: np.ndarray) -> float:
    return float(min(face.shape))


def _brightness(face: np.ndarray) -> float:
    return float(face.mean())


def _contrast(face: np.ndarray) -> float:
    return float(face.std())


def _sharpness(face: np.ndarray) -> float:
    """Standard deviation of the Laplacian at 48 pixels (after J. L. Pech-Pacheco et al., ICPR 2000, who take its variance)."""
    small = cv2.resize(face, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(small.astype(np.float64), cv2.CV_64F).std())


def _roll(points: np.ndarray) -> float:
    """How far the line of the eyes leans, in degrees; positive is clockwise as one looks at the picture."""
    across = points[1] - points[0]
    return math.degrees(math.atan2(across[1], across[0]))


def _turn(points: np.ndarray) -> float:
    """How far the nose lies beside the middle of the eyes, along their line, in eye distances: 0 for a face seen from the front."""
    across = points[1] - points[0]
    length = float(across @ across)
    return float((points[2] - points[:2].mean(axis=0)) @ across) / length if length > 0 else math.nan


_POSES: dict[str, Callable[[np.ndarray], float]] = {"roll": _roll, "turn": _turn}
#: What can be measured; roll and turn from landmarks, the others from the grey face.
MEASURED: dict[str, Callable[[np.ndarray], float]] = {
    "size": _size,
    "brightness": _brightness,
    "contrast": _contrast,
    "sharpness": _sharpness,
    **_POSES,
}
UNITS: dict[str, str] = {
    "size": "shorter side of the face (or picture), pixels",
    "brightness": "mean grey level of the face, 0 to 255",
    "contrast": "standard deviation of the face's grey levels",
    "sharpness": "standard deviation of the Laplacian of the face at 48 pixels",
    "roll": "lean of the line of the eyes, degrees",
    "turn": "nose beside the middle of the eyes, eye distances",
}
