"""What a teacher says of composed scenes, cell by cell: the targets from which a small detector learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mien.data.scenes import Composer
from mien.files import whole_file

__all__ = ["SHARD", "STRIDES", "VALUES", "Pool", "cells", "teach", "write_pool"]

STRIDES = (8, 16, 32)
#: Numbers of a cell besides its score: dx, dy, log w, log h, and five landmarks; see mien.runtime.detect.decode.
VALUES = 14
#: Scenes in a file of a pool.
SHARD = 2000
_LEAST = 0.1


def cells(size: int) -> int:
    """Cells of a square scene over all strides."""
    return sum((size // stride) ** 2 for stride in STRIDES)


def teach(teacher: ort.InferenceSession, scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's scores (cells,) and values (cells, 14) on a scene (s, s) uint8, s a multiple of 64.

    The teacher is a network in YuNet's form, which does not know faces of more than about 300 pixels; so it also sees
    the scene at half its size, and where it is surer there, its answer stands at twice the stride.
    """
    near = _levels(teacher, scene)
    far = _levels(teacher, _halved(scene))
    score, values = near[2]
    for other in (far[1], _spread(far[2], scene.shape[0] // 64)):
        better = (other[0] > score) & (other[0] > 0.3)
        score, values = np.where(better, other[0], score), np.where(better[:, None], other[1], values)
    levels = [near[0], near[1], (score, values)]
    return np.concatenate([level[0] for level in levels]), np.concatenate([level[1] for level in levels])


def _levels(teacher: ort.InferenceSession, scene: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    names = [f"{part}_{stride}" for stride in STRIDES for part in ("cls", "obj", "bbox", "kps")]
    blob = np.broadcast_to(scene.astype(np.float32), (1, 3, *scene.shape))
    found = teacher.run(names, {teacher.get_inputs()[0].name: np.ascontiguousarray(blob)})
    levels = []
    for level in range(len(STRIDES)):
        cls, obj, box, points = (array[0] for array in found[4 * level : 4 * level + 4])
        score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        levels.append((score, np.concatenate([box, points], axis=1)))
    return levels


def _halved(scene: np.ndarray) -> np.ndarray:
    side = scene.shape[0] // 2
    return scene.reshape(side, 2, side, 2).mean(axis=(1, 3))


def _spread(level: tuple[np.ndarray, np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray]:
    """A level of side x side cells as one of twice as many: each cell's face is told by the cell of the four that holds
    its centre."""
    score, values = level
    double = np.zeros((2 * side, 2 * side), np.float32)
    told = np.zeros((2 * side, 2 * side, VALUES), np.float32)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)  # (column, row)
    points = (values.reshape(-1, 7, 2)[:, [0, 2, 3, 4, 5, 6]] + grid[:, None]) * 2
    cell = np.clip(np.floor(points[:, 0]), 0, 2 * side - 1).astype(int)
    points = points - cell[:, None]
    finer = np.concatenate([points[:, 0], values[:, 2:4] + np.log(2), points[:, 1:].reshape(-1, 10)], axis=1)
    for row in np.argsort(score):
        column, line = cell[row]
        double[line, column], told[line, column] = score[row], finer[row]
    return double.ravel(), told.reshape(-1, VALUES)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Scenes (n, s, s) uint8 in files of SHARD (read from disk as needed), and their targets.

    scores: (n, cells) float16.  rows, values: for scene i, `rows[starts[i]:starts[i+1]]` are the cells whose score is at
    least 0.1, with their (., 14) float16 values.
    """

    images: list[np.ndarray]
    scores: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def image(self, row: int) -> np.ndarray:
        """(s, s) uint8."""
        return self.images[row // SHARD][row % SHARD]

    @classmethod
    def read(cls, folder: Path) -> Pool:
        """A pool that `write_pool` wrote."""
        parts = [np.load(path) for path in sorted(folder.glob("*.targets.npz"))]
        images = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.images.npy"))]
        counts = np.concatenate([part["counts"] for part in parts])
        scores, rows, values = (np.concatenate([part[name] for part in parts]) for name in ("scores", "rows", "values"))
        return cls(images, scores, np.concatenate([[0], np.cumsum(counts)]), rows, values)


def write_pool(
    folder: Path,
    composer: Composer,
    teacher: ort.InferenceSession,
    seed: int,
    count: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda rows: rows,
) -> Pool:
    """Compose and teach `count` scenes into a folder; files that are there already are kept, so a killed one resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in progress(range(-(-count // SHARD))):
        done = folder / f"{shard:04d}.targets.npz"
        if done.is_file():
            continue
        images, found = [], []
        for index in range(shard * SHARD, min(count, (shard + 1) * SHARD)):
            images.append(composer.scene(seed, index))
            found.append(teach(teacher, images[-1]))
        kept = [np.flatnonzero(score >= _LEAST) for score, _ in found]
        with whole_file(folder / f"{shard:04d}.images.npy", overwrite=True) as part:
            np.save(part, np.stack(images))
        with whole_file(done, overwrite=True) as part:
            np.savez(
                part,
                scores=np.stack([score for score, _ in found]).astype(np.float16),
                counts=np.array([len(rows) for rows in kept]),
                rows=np.concatenate(kept).astype(np.int32),
                values=np.concatenate([v[rows] for rows, (_, v) in zip(kept, found, strict=True)]).astype(np.float16),
            )
    return Pool.read(folder)
