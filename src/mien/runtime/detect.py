"""Detectors: an image in, faces out."""

from __future__ import annotations

import math
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from mien.errors import ConfigError, ModelError, near_miss
from mien.faces import Face
from mien.runtime import store
from mien.runtime.choice import Choice
from mien.runtime.sessions import open_onnx
from mien.spec import CropSpec, DetectorSpec, decode_spec
from mien.vision.align import framed

__all__ = [
    "DETECTORS",
    "YUNET",
    "Detector",
    "GridDetector",
    "WholeImage",
    "as_faces",
    "check_min_size",
    "decode",
    "detector_path",
    "open_detector",
]

DETECTORS = ("auto", "mien-face", "yunet", "whole")
_STRIDES = (8, 16, 32)


class Detector(Protocol):
    """Anything that finds faces: RGB uint8 (h, w, 3) -> faces, the largest first; none is an empty list."""

    def __call__(self, image: np.ndarray) -> list[Face]: ...


#: For YuNet's own files, which carry no spec. Faces of 12 pixels are found in 82 of 100 cases, of 24 in 97 (measured).
YUNET = DetectorSpec(name="yunet", threshold=0.7, overlap=0.3, smallest=12, largest=300, licence="Apache-2.0")


class GridDetector:
    """A face detector in YuNet's form on ONNX Runtime (ours or YuNet itself): boxes, scores and five landmarks.

    W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", MIR 2023. Such a network answers for every cell
    of three grids and sees faces of some sizes only, which its spec states; so the image is looked at with its long side
    at most `long_side` (a panorama, thrice as long as high: with as many pixels as a 2:1 picture of 640 pixels or that length), and, where a face could be
    larger than the network sees, once more, small and with a border.

    long_side: in pixels; the spec's by default.
    min_size: the smallest face to find, in pixels of the image: one more look, enlarged at most twice, so that such a face
        has 24 pixels; it answers for those that have fewer than 48 in the first look. It costs time and memory by its
        pixels, of which it has 12.6 million at most.
    threshold: least score; the spec's by default.  device: cpu, or a card that ONNX Runtime knows (cuda, cuda:1).
    Raises ModelNotFound, ModelError for a file that is not in YuNet's form or has a fixed size, and ConfigError for a
    `min_size` that is no size.
    """

    _SMALL, _BORDER, _SURE, _LONGEST, _PIXELS, _PANORAMA = 160, 32, 24, 16_384, 4096 * 3072, 640

    def __init__(
        self,
        path: str | PathLike[str],
        threads: int | None = None,
        long_side: int | None = None,
        min_size: float | None = None,
        threshold: float | None = None,
        device: str = "cpu",
    ) -> None:
        check_min_size(min_size)
        self._session = open_onnx(path, threads, Choice("onnx", device, "as the model"))
        self._outputs = [f"{part}_{stride}" for stride in _STRIDES for part in ("cls", "obj", "bbox", "kps")]
        if not set(self._outputs) <= {item.name for item in self._session.get_outputs()}:
            raise ModelError(f"{path}: not a detector in YuNet's form")
        given = self._session.get_inputs()[0]
        if any(isinstance(side, int) for side in given.shape[2:]):
            raise ModelError(
                f"{path}: takes pictures of one size only; use YuNet's file for any size (yunet_n_dynamic)"
            )
        text = self._session.get_modelmeta().custom_metadata_map.get("mien")
        self.spec = YUNET if text is None else decode_spec(text, str(path), DetectorSpec)
        self._input = given.name
        self.long_side, self.min_size = long_side or self.spec.long_side, min_size
        self.threshold, self.overlap = threshold or self.spec.threshold, self.spec.overlap

    def __call__(self, image: np.ndarray) -> list[Face]:
        plain, wanted = self._scales(image.shape)
        near = _resized(image, plain)
        looks = [self._look(near, 0, image.shape)]
        if wanted > plain:
            close = self._look(_resized(image, wanted), 0, image.shape)
            small = (close[0][:, 2:] - close[0][:, :2]).max(axis=1, initial=0) * plain < 2 * self._SURE
            looks.append((close[0][small], close[1][small], close[2][small]))
        if max(near.shape[:2]) > self.spec.largest:
            far = _resized(near, min(1.0, self._SMALL / max(near.shape[:2])))
            looks.append(self._look(far, self._BORDER, image.shape))
        boxes, points, scores = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        return _faces(boxes, points, scores, self.overlap)

    def _scales(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """The scale of the first look, and the one at which faces of `min_size` are found; the same where that is enough."""
        longest, pixels = max(shape[:2]), shape[0] * shape[1]
        side = max(self.long_side, self._PANORAMA) if longest > 3 * min(shape[:2]) else self.long_side
        scale = min(1.0, max(self.long_side / longest, side / math.sqrt(2 * pixels)))
        wanted = scale if self.min_size is None else max(scale, min(2.0, self._SURE / self.min_size))
        most = min(self._LONGEST / longest, math.sqrt(self._PIXELS / pixels))
        return min(scale, most), min(wanted, most)

    def _look(self, seen: np.ndarray, border: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), landmarks (n, 5, 2) and scores (n,), in pixels of the image of this shape, of which `seen` is a
        resized copy."""
        height, width = seen.shape[:2]
        right, below = (-(width + 2 * border)) % 32, (-(height + 2 * border)) % 32
        canvas = seen
        if border or right or below:
            edges = (border, border + below, border, border + right)
            canvas = cv2.copyMakeBorder(seen, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        blob = cv2.dnn.blobFromImage(canvas, swapRB=True)  # (1, 3, h, w) float32, BGR
        found = self._session.run(self._outputs, {self._input: blob})
        boxes, points, scores = decode(found, canvas.shape[1], self.threshold)
        step = np.array([shape[1] / width, shape[0] / height], np.float32)
        points = (points - border) * step
        boxes = (boxes.reshape(-1, 2, 2) - border) * step
        return boxes.reshape(-1, 4), points, scores


def check_min_size(size: float | None, name: str = "auto") -> None:
    """Raises ConfigError for what is no size of a face, NaN and infinity too, and for any where the detector of this name looks for
    none; None asks for none."""
    if size is not None and name == "whole":
        raise ConfigError("min_size: 'whole' looks for no faces, so none is too small; leave one of the two out")
    if size is not None and not isinstance(size, Real):
        raise ConfigError(f"min_size: {size!r} is no number; give pixels from 1 on, such as 20")
    if size is not None and not 1 <= size < math.inf:
        raise ConfigError(f"min_size: {size:g} is no size of a face; give pixels from 1 on, such as 20")


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    """The image at a scale, by area when it shrinks to a half or less (bilinear is as good above that, and five times as
    fast); sides of at least one pixel."""
    if scale == 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR)


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


def as_faces(scores: np.ndarray, values: np.ndarray, size: int, threshold: float, overlap: float = 0.3) -> list[Face]:
    """The faces of a square picture from scores (cells,) and values (cells, 14), the cells of stride 8 first."""
    ends = np.cumsum([(size // stride) ** 2 for stride in _STRIDES])[:-1]
    outputs: list[np.ndarray] = []
    for score, value in zip(np.split(scores, ends), np.split(values, ends), strict=True):
        outputs += [score[None, :, None], score[None, :, None], value[None, :, :4], value[None, :, 4:]]
    return _faces(*decode(outputs, size, threshold), overlap)


def _faces(boxes: np.ndarray, points: np.ndarray, scores: np.ndarray, overlap: float) -> list[Face]:
    """Detections as faces, one each, the largest first."""
    keep = _suppress(boxes, scores, overlap)
    faces = [Face(tuple(map(float, boxes[i])), float(scores[i]), points[i]) for i in keep]  # type: ignore[arg-type]
    return sorted(faces, key=lambda face: -face.size)


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


def open_detector(
    name: str,
    spec: CropSpec,
    threads: int | None = None,
    file: str | PathLike[str] | None = None,
    min_size: float | None = None,
    device: str = "cpu",
) -> Detector:
    """A detector by name; 'auto' is 'mien-face', which lies inside the package; 'yunet' is fetched once.

    file: a local detector file in YuNet's form, taken as it is.  device: see GridDetector.  Raises ConfigError, ModelNotFound, ModelError.
    """
    path = detector_path(name, file)
    check_min_size(min_size, name)
    return WholeImage(spec) if path is None else GridDetector(path, threads, min_size=min_size, device=device)


def detector_path(name: str, file: str | PathLike[str] | None = None) -> Path | None:
    """The detector's file, fetched if need be; None for 'whole', which has none. Raises ConfigError, ModelNotFound, ModelError."""
    if name not in DETECTORS:
        move = "give a file as detector_file (--detector-file)" if Path(name).is_file() else near_miss(name, DETECTORS)
        raise ConfigError(f"detector: unknown detector {name!r}; {move}")
    if name == "whole":
        if file is not None:
            raise ConfigError("detector: 'whole' looks for no faces, so it takes no file; leave one of the two out")
        return None
    return Path(file) if file else store.fetch(store.ENTRIES["mien-face" if name == "auto" else name])
