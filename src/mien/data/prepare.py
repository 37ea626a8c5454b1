"""From a manifest of pictures to a manifest of chips, all cut in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np

from mien.data.manifest import Manifest, Sample
from mien.errors import ConfigError, DataError, ImageError
from mien.faces import Face
from mien.spec import CropSpec
from mien.vision.align import crop, framed
from mien.vision.image import read_image

__all__ = ["Prepared", "chips", "prepare"]

Detect = Callable[[np.ndarray], list[Face]]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """chips: the manifest of chips.  missed: (id, reason) of every row that gave none."""

    chips: Manifest
    missed: list[tuple[str, str]]


def prepare(
    manifest: Manifest,
    spec: CropSpec,
    detector: Detect | None = None,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = lambda rows: rows,
) -> Prepared:
    """Cut every picture by `spec` and store the chips losslessly (PNG).

    Where the face is: for sources of cropped faces, the whole picture (and `spec` must frame faces as the source
    does); else the row's box and landmarks; else the largest face that `detector` finds. Rows without a face
    or with an unreadable picture are listed in `missed`. Raises ConfigError if the framing differs.
    """
    if manifest.header.framing is not None:
        _same_framing(manifest.header.framing, spec, manifest.header.source)
    kept, encoded, missed = [], [], []
    for row, sample in enumerate(progress(manifest)):
        try:
            image = read_image(sample.image)
            chip = crop(image, _face(image, sample, manifest, spec, detector), spec)
        except (ImageError, DataError) as error:
            missed.append((sample.id, str(error)))
            continue
        kept.append(row)
        encoded.append(_png(chip, spec))
    header = msgspec.structs.replace(manifest.header, crop=spec)
    return Prepared(manifest.take(kept).with_images(encoded, header), missed)


def _same_framing(framing: CropSpec, spec: CropSpec, source: str) -> None:
    for name in ("align", "points", "margin", "shift", "mask"):
        theirs, ours = getattr(framing, name), getattr(spec, name)
        if theirs != ours:
            raise ConfigError(
                f"crop.{name}: {source}'s pictures are already cropped, with {theirs}; the recipe says {ours}"
            )


def _face(image: np.ndarray, sample: Sample, manifest: Manifest, spec: CropSpec, detector: Detect | None) -> Face:
    if manifest.header.framing is not None:
        return framed(image.shape, spec)
    if sample.landmarks is not None and sample.box is not None and len(sample.landmarks) == 5:
        return Face(sample.box, landmarks=sample.landmarks)
    found = detector(image) if detector is not None else []
    if sample.box is not None:
        inside = [face for face in found if _overlap(face.box, sample.box) > 0.3]
        return max(inside, key=lambda face: _overlap(face.box, sample.box)) if inside else Face(sample.box)  # type: ignore[arg-type]
    if not found:
        raise DataError(f"{_where(sample)}: no face found")
    return max(found, key=lambda face: face.size)


def _where(sample: Sample) -> str:
    return str(sample.image) if isinstance(sample.image, Path) else sample.id


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / max(area - shared, 1e-9)


def _png(chip: np.ndarray, spec: CropSpec) -> bytes:
    stored = chip[..., ::-1] if spec.colour == "rgb" else chip[..., 0]
    return bytes(cv2.imencode(".png", stored)[1])


def chips(manifest: Manifest) -> np.ndarray:
    """The chips of a prepared manifest: (n, h, w, k) uint8 with the border, k = 1 for grey and lightness, else 3 (RGB).

    Raises DataError if the manifest was not prepared, or a chip has another size than the header says.
    """
    spec = manifest.header.crop
    if spec is None:
        raise DataError(f"{manifest.header.source}: pictures as they came, not chips; prepare them first")
    mode = cv2.IMREAD_COLOR if spec.colour == "rgb" else cv2.IMREAD_GRAYSCALE
    shape = (spec.height + 2 * spec.border, spec.width + 2 * spec.border)
    out = np.empty((len(manifest), *shape, 3 if spec.colour == "rgb" else 1), np.uint8)
    for row, item in enumerate(manifest.table["image"].to_pylist()):
        chip = cv2.imdecode(np.frombuffer(item["bytes"], np.uint8), mode)
        if chip is None or chip.shape[:2] != shape:
            raise DataError(f"{manifest.header.source}, row {row}: not a chip of {shape[1]}x{shape[0]} pixels")
        out[row] = chip[..., ::-1] if spec.colour == "rgb" else chip[..., None]
    return out
