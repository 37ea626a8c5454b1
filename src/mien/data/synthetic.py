"""Drawn faces with known expression, valence and arousal: a dataset for tests, examples and first runs.

They are cartoons. A network learns them in a minute; what it learned says nothing about people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from mien.data.manifest import Header, Manifest, Sample, make_manifest
from mien.errors import ConfigError, near_miss
from mien.labels import AFFECT_MEANS, LabelSet, label_set
from mien.spec import CropSpec

__all__ = ["FRAMING", "draw_face", "synthetic"]

#: (mouth bend, mouth opening, brow tilt, brow height, eye opening, lip skew): what each expression does to a drawing,
#: loosely after the action units of FACS (Ekman and Friesen 1978). Bend up and brows down at the nose are positive.
_SHAPES: dict[str, tuple[float, float, float, float, float, float]] = {
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "happiness": (1.0, 0.35, 0.0, 0.1, -0.3, 0.0),
    "sadness": (-0.8, 0.0, -0.9, 0.1, -0.4, 0.0),
    "surprise": (0.0, 1.0, 0.0, 1.0, 1.0, 0.0),
    "fear": (-0.4, 0.5, -0.8, 0.8, 0.9, 0.0),
    "disgust": (-0.6, 0.25, 0.5, -0.5, -0.8, 0.4),
    "anger": (-0.6, 0.1, 1.0, -0.6, 0.4, 0.0),
    "contempt": (0.3, 0.0, 0.2, 0.0, -0.3, 1.0),
}
_SIDE = 64
#: How the drawings sit in their pictures.
FRAMING = CropSpec(
    width=_SIDE,
    height=_SIDE,
    align="five",
    points=((0.32, 0.4), (0.68, 0.4), (0.5, 0.58), (0.36, 0.75), (0.64, 0.75)),
)


def synthetic(
    count: int = 800, seed: int = 0, labels: str | tuple[str, ...] = "affectnet8", side: int = _SIDE, plain: bool = True
) -> Manifest:
    """`count` drawn faces, the classes in turn; of five, three train, one validates, one tests; each is its own subject.

    labels: a subset of mien's eight expressions.  side: of a picture, in pixels.  Affect is the class mean of
    AffectNet (mien.labels.AFFECT_MEANS) times the drawn intensity.
    plain: the pictures are cropped faces as FRAMING says; if not, each stands in a picture of three times the side, with
    its box and landmarks.
    """
    chosen = label_set(labels)
    for name in chosen:
        if name not in _SHAPES:
            raise ConfigError(f"labels: no drawing of {name!r}; {near_miss(name, _SHAPES)}")
    framing = FRAMING if plain else None
    header = Header(source="synthetic", labels=chosen.names, licence="none needed: drawn by mien", framing=framing)
    return make_manifest(_samples(count, seed, chosen, side, plain), header)


def _samples(count: int, seed: int, labels: LabelSet, side: int, plain: bool) -> Iterator[Sample]:
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        name = labels.names[number % len(labels)]
        strength = float(rng.uniform(0.6, 1.0))
        picture = draw_face(name, strength, side, rng)
        box, marks = None, None
        if not plain:
            picture, box, marks = _placed(picture, rng)
        yield Sample(
            f"synthetic:{number}",
            bytes(cv2.imencode(".png", picture[..., ::-1])[1]),
            labels.onehot(name),
            ("train", "train", "train", "validation", "test")[number // len(labels) % 5],
            box,
            marks,
            strength * AFFECT_MEANS[name][0],
            strength * AFFECT_MEANS[name][1],
            f"drawing {number}",
        )


def _placed(
    picture: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float, float, float], np.ndarray]:
    side = len(picture)
    canvas = rng.integers(60, 120, (3 * side, 3 * side, 3)).astype(np.uint8)
    x, y = (int(v) for v in rng.integers(0, 2 * side, 2))
    canvas[y : y + side, x : x + side] = picture
    assert FRAMING.points is not None
    marks = np.array(FRAMING.points, np.float32) * side + (x, y)
    return canvas, (float(x), float(y), float(x + side), float(y + side)), marks


def draw_face(expression: str, strength: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """RGB uint8 (side, side, 3): an expression at a strength in [0, 1]; skin, hair, pose and light by `rng`."""
    big = 4 * 64  # drawn large, then shrunk: smooth edges
    shape = np.array(_SHAPES[expression]) * strength + rng.normal(0, 0.07, 6)
    skin = rng.uniform(75, 240) * np.array([1.0, rng.uniform(0.72, 0.85), rng.uniform(0.55, 0.75)])
    dark = tuple(float(v) for v in skin * rng.uniform(0.15, 0.4))
    image = np.full((big, big, 3), rng.uniform(30, 200, 3))
    cv2.ellipse(image, (128, 120), (104, 122), 0, 0, 360, dark, -1)  # hair
    cv2.ellipse(image, (128, 138), (92, 114), 0, 0, 360, tuple(map(float, skin)), -1)
    _eyes(image, shape, dark)
    cv2.line(image, (128, 112), (122, 152), tuple(map(float, skin * 0.75)), 4)
    _mouth(image, shape, dark)
    turn = cv2.getRotationMatrix2D((128, 128), float(rng.normal(0, 5)), float(rng.uniform(0.94, 1.06)))
    image = cv2.warpAffine(image, turn, (big, big), borderMode=cv2.BORDER_REPLICATE)
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    light = rng.uniform(0.6, 1.15) * np.linspace(rng.uniform(0.75, 1), rng.uniform(0.75, 1), side)[None, :, None]
    return np.clip(image * light + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _eyes(image: np.ndarray, shape: np.ndarray, dark: tuple[float, ...]) -> None:
    _, _, tilt, height, opening, _ = shape
    for x, side in ((82, 1), (174, -1)):
        half = max(2, int(11 + 7 * opening))
        cv2.ellipse(image, (x, 102), (20, half), 0, 0, 360, (245.0, 245.0, 245.0), -1)
        cv2.circle(image, (x, 102), min(9, half), (30.0, 30.0, 40.0), -1)
        inner, outer = int(80 - 16 * height + 14 * tilt), int(80 - 16 * height - 10 * tilt)
        cv2.line(image, (x - 24 * side, outer), (x + 24 * side, inner), dark, 9)


def _mouth(image: np.ndarray, shape: np.ndarray, dark: tuple[float, ...]) -> None:
    bend, opening, _, _, _, skew = shape
    xs = np.linspace(-1, 1, 25)
    middle = 192 - 26 * bend * (xs**2 - 0.4) - 26 * skew * np.maximum(xs, 0) ** 2
    gap = max(0.0, 34 * opening) * np.sqrt(np.maximum(0, 1 - xs**2)) / 2
    wide = 44 - 12 * max(0.0, opening - 0.5) * math.sqrt(2)
    upper = np.stack([128 + wide * xs, middle - gap], axis=1)
    lower = np.stack([128 + wide * xs, middle + gap], axis=1)
    outline = np.concatenate([upper, lower[::-1]]).astype(np.int32)
    cv2.fillPoly(image, [outline], (110.0, 30.0, 40.0))
    cv2.polylines(image, [outline], True, dark, 6)
