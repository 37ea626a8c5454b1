"""The values that flow from a picture to an answer, and their one JSON form.

Boxes and landmarks are in pixels of the image they were found in. Pixel i covers [i, i + 1], so the
edges of a 640-wide image are 0 and 640; a box or a landmark may lie outside the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import numpy as np

__all__ = [
    "NOT_CERTAIN",
    "Box",
    "Expression",
    "ExpressionRecord",
    "Face",
    "FaceRecord",
    "Frame",
    "ImageRecord",
    "face_record",
    "in_words",
]

#: x0, y0, x1, y1 in pixels: edges, not centres of pixels.
Box = tuple[float, float, float, float]
#: What stands beside a label whose confidence does not reach the model's threshold.
NOT_CERTAIN = "not certain"


def in_words(label: str, certain: bool) -> str:
    """A label as people are shown it.

    >>> in_words("fear", certain=False)
    'fear (not certain)'
    """
    return label if certain else f"{label} ({NOT_CERTAIN})"


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """What a face shows, as far as a model can tell: an apparent expression, not a feeling.

    labels: the names, in the order of `probabilities`.
    probabilities: (c,) float32, each in [0, 1], sum 1 (softmax with the model's temperature applied); all NaN from a model
        that answers valence and arousal alone: then the label is 'unknown' and nothing is certain.
    valence, arousal: in [-1, 1]; NaN if the model does not know.
    threshold: the confidence from which the model's makers call an answer certain.
    heat: (h', w') float32 over the chip, if asked for: above 0 where the face speaks for the label (see mien.runtime.explain).
    features: (d,) float32, if asked for: the vector that the model's heads see.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    valence: float = math.nan
    arousal: float = math.nan
    threshold: float = 0.0
    heat: np.ndarray | None = field(default=None, repr=False)
    features: np.ndarray | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The most probable label, or 'unknown'."""
        if np.isnan(self.probabilities).any():
            return "unknown"
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def confidence(self) -> float:
        """The probability of `label`; NaN if it is unknown."""
        return float(np.max(self.probabilities))

    @property
    def certain(self) -> bool:
        """Whether the confidence reaches the model's threshold."""
        return self.confidence >= self.threshold

    @property
    def words(self) -> str:
        """The label as people are shown it: 'fear', or 'fear (not certain)'."""
        return in_words(self.label, self.certain or self.label == "unknown")

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k most probable (label, probability) pairs, most probable first."""
        if np.isnan(self.probabilities).any():
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.labels[i], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face in one image.

    box: edges in pixels.  score: the detector's, in [0, 1].
    landmarks: (5, 2) float32 pixels: the eye at the image's left, the eye at its right, the nose tip,
        the mouth corner at the image's left, the one at its right; None if the detector gives none.
    expression: what was read, or None before reading.
    track: a number that stays with a person across frames, or None.
    """

    box: Box
    score: float = 1.0
    landmarks: np.ndarray | None = None
    expression: Expression | None = None
    track: int | None = None

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture in time: RGB uint8 (h, w, 3), its number from 0 and its true time in seconds from the start."""

    image: np.ndarray = field(repr=False)
    index: int = 0
    seconds: float = 0.0


class ExpressionRecord(msgspec.Struct, frozen=True):
    """The JSON form of an Expression; `null` stands for what the model does not know."""

    label: str
    confidence: float | None
    certain: bool
    probabilities: dict[str, float]
    valence: float | None
    arousal: float | None


class FaceRecord(msgspec.Struct, frozen=True):
    """The JSON form of a Face."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[tuple[float, float], ...] | None
    track: int | None
    expression: ExpressionRecord | None


class ImageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON form of an image's or a frame's faces: one line of JSON lines. Frames add `index` and `seconds`; an image that
    could not be read says why in `error` and has no faces."""

    image: str | None
    faces: tuple[FaceRecord, ...]
    index: int | None = None
    seconds: float | None = None
    error: str | None = None


def face_record(face: Face) -> FaceRecord:
    """The JSON form of a face: pixels to 2 decimals, probabilities and affect to 4."""
    points = (
        None if face.landmarks is None else tuple((round(float(x), 2), round(float(y), 2)) for x, y in face.landmarks)
    )
    x0, y0, x1, y1 = (round(float(edge), 2) for edge in face.box)
    expression = None if face.expression is None else _expression_record(face.expression)
    return FaceRecord((x0, y0, x1, y1), round(float(face.score), 4), points, face.track, expression)


def _expression_record(expression: Expression) -> ExpressionRecord:
    return ExpressionRecord(
        label=expression.label,
        confidence=_known(expression.confidence),
        certain=expression.certain,
        probabilities={name: round(share, 4) for name, share in _in_order(expression)},
        valence=_known(expression.valence),
        arousal=_known(expression.arousal),
    )


def _in_order(expression: Expression) -> list[tuple[str, float]]:
    pairs = zip(expression.labels, expression.probabilities, strict=True)
    return [(name, float(share)) for name, share in pairs if not math.isnan(share)]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
