"""Detectors: an image in, faces out."""

from __future__ import annotations

import math
import sys
from os import PathLike
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from mien.errors import ConfigError, MienError, ModelError, near_miss
from mien.faces import Face
from mien.runtime import store
from mien.runtime.sessions import open_onnx
from mien.spec import CropSpec
from mien.vision.align import framed

__all__ = ["DETECTORS", "Detector", "Haar", "WholeImage", "YuNet", "open_detector"]

DETECTORS = ("auto", "yunet", "haar", "whole")
_STRIDES = (8, 16, 32)
_CASCADE = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"


class Detector(Protocol):
    """Anything that finds faces: RGB uint8 (h, w, 3) -> faces, the largest first; none is an empty list."""

    def __call__(self, image: np.ndarray) -> list[Face]: ...


class YuNet:
    """YuNet on ONNX Runtime: boxes, scores and five landmarks.

    W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", MIR 2023. The network sees faces of about 12
    to 300 pixels (measured on photographs: 82 % of those of 12 pixels, 92 % of 20, 97 % of 24), so the image is looked
    at twice: with its long side at most `long_side` (a panorama: with as many pixels as a 2:1 picture of that length),
    and once small, with a border, for faces that fill it.

    min_size: the smallest face to find, in pixels of the image: the first look is enlarged, at most twice, so that such
        a face has 24 pixels. It costs time and memory by its pixels, of which it has 12.6 million at most.
    threshold: least score.  overlap: intersection over union from which two boxes are one face.
    Raises ModelNotFound, and ModelError for a file that is not in YuNet's form or has a fixed size.
    """

    _SMALL, _BORDER, _SURE, _LONGEST, _PIXELS = 160, 32, 24, 16_384, 4096 * 3072

    def __init__(
        self,
        path: str | PathLike[str],
        threads: int | None = None,
        long_side: int = 640,
        min_size: float | None = None,
        threshold: float = 0.7,
        overlap: float = 0.3,
    ) -> None:
        self._session = open_onnx(path, threads)
        self._outputs = [f"{part}_{stride}" for stride in _STRIDES for part in ("cls", "obj", "bbox", "kps")]
        if not set(self._outputs) <= {item.name for item in self._session.get_outputs()}:
            raise ModelError(f"{path}: not a detector in YuNet's form")
        given = self._session.get_inputs()[0]
        if any(isinstance(side, int) for side in given.shape[2:]):
            raise ModelError(
                f"{path}: takes pictures of one size only; use YuNet's file for any size (yunet_n_dynamic)"
            )
        self._input = given.name
        self.long_side, self.min_size, self.threshold, self.overlap = long_side, min_size, threshold, overlap

    def __call__(self, image: np.ndarray) -> list[Face]:
        near = _resized(image, self._scale(image.shape))
        far = _resized(near, min(1.0, self._SMALL / max(near.shape[:2])))
        looks = [self._look(near, 0, image.shape), self._look(far, self._BORDER, image.shape)]
        boxes, points, scores = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        keep = _suppress(boxes, scores, self.overlap)
        faces = [Face(tuple(map(float, boxes[i])), float(scores[i]), points[i]) for i in keep]  # type: ignore[arg-type]
        return sorted(faces, key=lambda face: -face.size)

    def _scale(self, shape: tuple[int, ...]) -> float:
        """The scale of the first look."""
        longest, pixels = max(shape[:2]), shape[0] * shape[1]
        scale = min(1.0, max(self.long_side / longest, self.long_side / math.sqrt(2 * pixels)))
        if self.min_size is not None:
            scale = max(scale, min(2.0, self._SURE / self.min_size))
        return min(scale, self._LONGEST / longest, math.sqrt(self._PIXELS / pixels))

    def _look(self, seen: np.ndarray, border: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), landmarks (n, 5, 2) and scores (n,), in pixels of the image of this shape, of which `seen` is a
        resized copy."""
        height, width = seen.shape[:2]
        right, below = (-(width + 2 * border)) % 32, (-(height + 2 * border)) % 32
        canvas = cv2.copyMakeBorder(
            seen, border, border + below, border, border + right, cv2.BORDER_CONSTANT, value=(0, 0, 0)
        )
        blob = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None], np.float32)
        found = self._session.run(self._outputs, {self._input: blob})
        boxes, points, scores = decode(found, canvas.shape[1], self.threshold)
        step = np.array([shape[1] / width, shape[0] / height], np.float32)
        points = (points - border) * step
        boxes = (boxes.reshape(-1, 2, 2) - border) * step
        return boxes.reshape(-1, 4), points, scores


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    """The image at a scale, by area when it shrinks; sides of at least one pixel."""
    if scale == 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def decode(outputs: list[np.ndarray], width: int, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """YuNet's twelve tensors (cls, obj, bbox, kps at strides 8, 16, 32; one image `width` pixels wide) to detections.

    The score is sqrt(cls * obj); a cell at (row, column) puts the box centre at (column + dx, row + dy) * stride, its
    sides at exp(.) * stride, and each landmark like a centre. Returns (n, 4), (n, 5, 2), (n,) float32.
    """
    boxes, points, scores = [], [], []
    for level, stride in enumerate(_STRIDES):
        cls, obj, box, kps = (array[0] for array in outputs[4 * level : 4 * level + 4])
        score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        cells = np.flatnonzero(score >= threshold)
        grid = np.stack([cells % (width // stride), cells // (width // stride)], axis=1).astype(np.float32)
        centre, half = (grid + box[cells, :2]) * stride, np.exp(box[cells, 2:]) * stride / 2
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        points.append((kps[cells].reshape(-1, 5, 2) + grid[:, None]) * stride)
        scores.append(score[cells])
    return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)


def _suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    """Indices of the detections to keep, best first (greedy non-maximum suppression; also drops a box that lies
    mostly inside a better one of the same face)."""
    order, keep = list(np.argsort(-scores, kind="stable")[:5000]), []
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    rest = np.array(order, int)
    while len(rest):
        best, rest = rest[0], rest[1:]
        keep.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union = area[best] + area[rest] - shared
        inside = shared / np.maximum(np.minimum(area[best], area[rest]), 1e-9)
        rest = rest[(shared / np.maximum(union, 1e-9) < overlap) & (inside < 0.7)]
    return keep


class WholeImage:
    """For images that already are faces, framed as the model wants them: one face, the whole image."""

    def __init__(self, spec: CropSpec) -> None:
        self._spec = spec

    def __call__(self, image: np.ndarray) -> list[Face]:
        return [framed(image.shape, self._spec)]


class Haar:
    """OpenCV's own frontal-face cascade: the offline fallback. Upright faces only, no landmarks, no true score."""

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(str(_CASCADE))

    def __call__(self, image: np.ndarray) -> list[Face]:
        scale = min(1.0, 800 / max(image.shape[:2]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = self._cascade.detectMultiScale(grey, 1.1, 6, minSize=(18, 18))
        faces = [self._face(*(float(v) / scale for v in square)) for square in found]
        return sorted(faces, key=lambda face: -face.size)

    @staticmethod
    def _face(x: float, y: float, w: float, h: float) -> Face:
        """The cascade's square as a tight box: narrower, and down to the chin."""
        return Face((x + 0.13 * w, y + 0.06 * h, x + 0.87 * w, y + 1.04 * h))


def open_detector(
    name: str,
    spec: CropSpec,
    threads: int | None = None,
    file: str | PathLike[str] | None = None,
    min_size: float | None = None,
) -> Detector:
    """A detector by name: 'auto' is YuNet where its file is there or can be fetched, else the cascade (said once).

    file: a local YuNet file, taken as it is.  Raises ConfigError, ModelNotFound, ModelError.
    """
    if name not in DETECTORS:
        raise ConfigError(f"detector: unknown detector {name!r}; {near_miss(name, DETECTORS)}")
    if name == "whole":
        return WholeImage(spec)
    if name == "haar":
        return Haar()
    try:
        path = Path(file) if file else store.fetch(store.ENTRIES["yunet"], again=name == "yunet")
        return YuNet(path, threads, min_size=min_size)
    except MienError as error:
        if name == "yunet" or file or (isinstance(error, ModelError) and not isinstance(error, FileNotFoundError)):
            raise
        _say_once(str(error))
        return Haar()


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if "haar" not in _said:
        _said.add("haar")
        print(f"mien: using OpenCV's cascade, which misses tilted and small faces: {reason}", file=sys.stderr)
