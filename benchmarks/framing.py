"""How FER2013's crop sits on a face: YuNet's landmarks in enlarged Training pictures, as fractions of the side.

    python benchmarks/framing.py --data FER2013 --detector-file yunet_n_dynamic.onnx [--picture docs/images/framing.jpg --photos DIR]

Prints the template (mirror-symmetric medians) that mien.data.sources.fer2013.FRAMING records, and how well each way of
aligning predicts the true crop. With --photos it draws chips of photographs: only pictures free to show belong in docs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mien.data.sources import read_source
from mien.data.sources.fer2013 import FRAMING
from mien.runtime.detect import GridDetector
from mien.vision.align import crop, similarity
from mien.vision.image import read_image, write_image

CORNERS = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float)


def measure(data: Path, detector: GridDetector, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5, 2) landmarks and (n, 4) boxes (x, y, w, h), as fractions of the picture's side."""
    train = read_source("fer2013", data).split("train")
    rows = np.random.default_rng(seed).choice(len(train), min(count, len(train)), replace=False)
    points, boxes = [], []
    for sample in train.take(np.sort(rows)):
        big = cv2.resize(read_image(sample.image), (192, 192), interpolation=cv2.INTER_CUBIC)
        faces = detector(cv2.copyMakeBorder(big, 64, 64, 64, 64, cv2.BORDER_REPLICATE))
        if not faces or faces[0].score < 0.8:
            continue
        x0, y0, x1, y1 = ((edge - 64) / 192 for edge in faces[0].box)
        points.append((faces[0].landmarks - 64) / 192)
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    return np.array(points, float), np.array(boxes)


def template(points: np.ndarray) -> np.ndarray:
    """The median landmarks, made mirror-symmetric."""
    middle = np.median(points, axis=0)
    for a, b in ((0, 1), (3, 4)):
        half, y = (middle[b, 0] - middle[a, 0]) / 2, (middle[a, 1] + middle[b, 1]) / 2
        middle[a], middle[b] = (0.5 - half, y), (0.5 + half, y)
    middle[2, 0] = 0.5
    return middle


def corner_error(matrix: np.ndarray) -> float:
    """How far the predicted crop's corners lie from the true ones, root mean square, in sides."""
    return float(np.sqrt((((CORNERS @ matrix[:, :2].T + matrix[:, 2]) - CORNERS) ** 2).sum(axis=1).mean()))


def upright(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The similarity without its turn."""
    matrix = similarity(points, wanted)
    scale = np.eye(2) * np.hypot(matrix[0, 0], matrix[1, 0])
    return np.hstack([scale, (wanted.mean(axis=0) - scale @ points.mean(axis=0))[:, None]])


def by_box(boxes: np.ndarray) -> list[float]:
    """Corner errors of a square around the box's centre, with the best fixed scale and shift."""
    size, centre = np.sqrt(boxes[:, 2] * boxes[:, 3]), boxes[:, :2] + boxes[:, 2:] / 2
    factor, shift = np.median(1 / size), np.median((0.5 - centre) / size[:, None], axis=0)
    side, middle = factor * size, centre + shift * size[:, None]
    return [
        corner_error(np.array([[1 / s, 0, 0.5 - m[0] / s], [0, 1 / s, 0.5 - m[1] / s]]))
        for s, m in zip(side, middle, strict=True)
    ]


def sheet(data: Path, photos: list[Path], detector: GridDetector) -> np.ndarray:
    """Chips of the photographs, enlarged, beside the average Training picture."""
    train = read_source("fer2013", data).split("train")
    mean = np.mean([read_image(s.image) for s in train.take(range(0, len(train), 20))], axis=0).astype(np.uint8)
    chips = [mean]
    for path in photos:
        image = read_image(path)
        chips += [crop(image, face, FRAMING) for face in detector(image)]
    return np.hstack([cv2.resize(chip, (192, 192), interpolation=cv2.INTER_CUBIC) for chip in chips])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detector-file", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    detector = GridDetector(args.detector_file, threads=1)
    points, boxes = measure(args.data, detector, args.count, args.seed)
    wanted = template(points)
    print(f"{len(points)} of {args.count} faces found with score >= 0.8")
    print("template", wanted.round(4).tolist())
    errors = {
        "five, turned": [corner_error(similarity(p, wanted)) for p in points],
        "five, upright": [corner_error(upright(p, wanted)) for p in points],
        "eyes, turned": [corner_error(similarity(p[:2], wanted[:2])) for p in points],
        "box": by_box(boxes),
    }
    for name, values in errors.items():
        print(f"{name:14} median {np.median(values):.3f}  90 % {np.percentile(values, 90):.3f} of the side")
    roll = np.degrees(np.arctan2(*(points[:, 1] - points[:, 0]).T[::-1]))
    print("roll, degrees, 5 to 95 %:", np.percentile(roll, [5, 25, 50, 75, 95]).round(1).tolist())
    if args.picture:
        write_image(args.picture, sheet(args.data, args.photos, detector), overwrite=True)


if __name__ == "__main__":
    main()
