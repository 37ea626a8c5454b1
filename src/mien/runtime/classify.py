"""The classifier: faces in, the same faces with expressions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from mien.errors import ModelError
from mien.faces import Expression, Face
from mien.runtime.sessions import Session
from mien.vision.align import crop

__all__ = ["Classifier"]


class Classifier:
    """Crops faces as the model's spec says, reads them in batches."""

    def __init__(self, session: Session, batch: int = 64) -> None:
        self.session, self.spec, self.batch = session, session.spec, batch
        self._crop = msgspec.structs.replace(session.spec.crop, border=0)

    def __call__(self, image: np.ndarray, faces: Sequence[Face]) -> list[Face]:
        """The same faces, in the same order, each with its expression."""
        expressions = self.read([self.chip(image, face) for face in faces])
        return [replace(face, expression=read) for face, read in zip(faces, expressions, strict=True)]

    def chip(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as the model sees it: uint8 (h, w, 3)."""
        return crop(image, face, self._crop)

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 chips (n, h, w, 3) -> (n, c) probabilities and (n, 2) affect. Raises ModelError if they are not numbers."""
        probabilities, affect = [], []
        for start in range(0, len(chips), self.batch):
            part = np.ascontiguousarray(chips[start : start + self.batch].transpose(0, 3, 1, 2), np.float32)
            p, a = self.session.run(part)
            probabilities.append(p)
            affect.append(a)
        if not probabilities:
            return np.zeros((0, len(self.spec.labels)), np.float32), np.zeros((0, 2), np.float32)
        result = np.concatenate(probabilities), np.concatenate(affect)
        if self.spec.expression and not np.isfinite(result[0]).all():
            raise ModelError(
                f"{self.spec.name}: answered with probabilities that are not numbers; the file may be damaged"
            )
        return result

    def read(self, chips: Sequence[np.ndarray]) -> list[Expression]:
        """The expression of each chip, in order."""
        if not chips:
            return []
        probabilities, affect = self.run(np.stack(chips))
        spec = self.spec
        return [
            Expression(spec.labels, p, float(v), float(a), spec.threshold)
            for p, (v, a) in zip(probabilities, np.clip(affect, -1, 1), strict=True)
        ]
