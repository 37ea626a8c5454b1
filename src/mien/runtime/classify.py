"""The classifier: faces in, the same faces with expressions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from mien.errors import ModelError
from mien.faces import Expression, Face
from mien.runtime.explain import heat_of_maps, occlusion
from mien.runtime.sessions import FullSession, Session
from mien.vision.align import crop

__all__ = ["Classifier"]


class Classifier:
    """Crops faces as the model's spec says, reads them in batches.

    explain: every expression gets its `heat`: from the model's own maps if its file has them, else by covering parts of
    the face (65 more answers a face).  features: every expression gets its `features`.
    Raises ModelError: the file gives no features; a model without expressions has nothing to explain.
    """

    def __init__(self, session: Session, batch: int = 64, explain: bool = False, features: bool = False) -> None:
        self.session, self.spec, self.batch = session, session.spec, batch
        self.explain, self.features = explain, features
        if explain and not self.spec.expression:
            raise ModelError(f"{self.spec.name}: answers valence and arousal alone; there is no label to explain")
        if features and not self._gives("features"):
            raise ModelError(
                f"{self.spec.name}: its file gives no features; make one that does: mien export --features"
            )
        self._crop = msgspec.structs.replace(session.spec.crop, border=0)

    def __call__(self, image: np.ndarray, faces: Sequence[Face]) -> list[Face]:
        """The same faces, in the same order, each with its expression."""
        expressions = self.read([self.chip(image, face) for face in faces])
        return [replace(face, expression=read) for face, read in zip(faces, expressions, strict=True)]

    def chip(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as the model sees it: uint8 (h, w, 3)."""
        return crop(image, face, self._crop)

    def _gives(self, output: str) -> bool:
        return output in self.spec.outputs and isinstance(self.session, FullSession)

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 chips (n, h, w, 3) -> (n, c) probabilities and (n, 2) affect. Raises ModelError if they are not
        numbers, or no probabilities, or of another shape."""
        probabilities, affect = self._run(chips, self.session.run)
        return probabilities, affect

    def _run(self, chips: np.ndarray, ask: Callable[[np.ndarray], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
        parts = [
            ask(np.ascontiguousarray(chips[start : start + self.batch].transpose(0, 3, 1, 2)).astype(np.float32))
            for start in range(0, len(chips), self.batch)
        ]
        if not parts:
            return np.zeros((0, len(self.spec.labels)), np.float32), np.zeros((0, 2), np.float32)
        result = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
        shapes = [answer.shape for answer in result[:2]]
        if shapes != [(len(chips), len(self.spec.labels)), (len(chips), 2)]:
            raise ModelError(
                f"{self.spec.name}: answered {len(chips)} chips with {shapes[0]} probabilities and {shapes[1]} affect; its spec "
                f"has {len(self.spec.labels)} labels, and affect is valence and arousal"
            )
        if self.spec.expression and not np.isfinite(result[0]).all():
            raise ModelError(
                f"{self.spec.name}: answered with probabilities that are not numbers; the file may be damaged"
            )
        if self.spec.expression and not np.allclose(result[0].sum(axis=1), 1, atol=0.01):
            raise ModelError(
                f"{self.spec.name}: its probabilities do not sum to one; a session gives probabilities, not logits"
            )
        return result

    def read(self, chips: Sequence[np.ndarray]) -> list[Expression]:
        """The expression of each chip, in order."""
        if not chips:
            return []
        stack, spec = np.stack(chips), self.spec
        more: dict[str, np.ndarray] = {}
        if self.features or (self.explain and self._gives("maps")):
            assert isinstance(self.session, FullSession)
            probabilities, affect, *rest = self._run(stack, self.session.run_all)
            more = dict(zip(spec.outputs, rest, strict=True))
        else:
            probabilities, affect = self.run(stack)
        heat = self._heat(stack, probabilities, more.get("maps")) if self.explain else [None] * len(stack)
        vectors = more["features"] if self.features else [None] * len(stack)
        return [
            Expression(spec.labels, p, float(v), float(a), spec.threshold, warm, vector)
            for p, (v, a), warm, vector in zip(probabilities, np.clip(affect, -1, 1), heat, vectors, strict=True)
        ]

    def _heat(self, chips: np.ndarray, probabilities: np.ndarray, maps: np.ndarray | None) -> Sequence[np.ndarray]:
        said = probabilities.argmax(axis=1)
        if maps is not None:
            return list(heat_of_maps(maps, said))
        return [occlusion(self.run, chip, int(label)) for chip, label in zip(chips, said, strict=True)]
