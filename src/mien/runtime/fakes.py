"""Fakes of the seams, shipped so that users can test without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mien.faces import Face
from mien.labels import KNOWN_SETS
from mien.spec import CropSpec, ModelSpec

__all__ = ["FakeDetector", "FakeSession", "FakeTracker"]


class FakeDetector:
    """Finds the same faces in every image."""

    def __init__(self, faces: Sequence[Face]) -> None:
        self.faces = list(faces)

    def __call__(self, image: np.ndarray) -> list[Face]:  # noqa: ARG002
        return list(self.faces)


class FakeSession:
    """Answers every chip with the same label and affect; keeps the chips it was shown.

    answer: a function from chips (n, 3, h, w) to (probabilities, affect), to be used instead.
    """

    def __init__(
        self,
        label: str = "happiness",
        confidence: float = 0.9,
        spec: ModelSpec | None = None,
        answer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        self.spec = spec or ModelSpec(name="fake", labels=KNOWN_SETS["affectnet8"], crop=CropSpec(width=48, height=48))
        self.label, self.confidence, self._answer = label, confidence, answer
        self.seen: list[np.ndarray] = []

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See mien.runtime.sessions.Session."""
        self.seen.append(chips)
        if self._answer:
            return self._answer(chips)
        count = len(self.spec.labels)
        row = np.full(count, (1 - self.confidence) / (count - 1), np.float32)
        row[self.spec.labels.index(self.label)] = self.confidence
        return np.tile(row, (len(chips), 1)), np.tile(np.array([0.5, 0.1], np.float32), (len(chips), 1))


class FakeTracker:
    """Numbers the faces of every frame by their place: the first is 1. Keeps the times it was given."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, faces: Sequence[Face], seconds: float) -> list[Face]:
        """See mien.runtime.track.Tracker."""
        self.times.append(seconds)
        return [replace(face, track=number) for number, face in enumerate(faces, 1)]
