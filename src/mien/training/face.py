"""Training a face detector by distillation: composed scenes and a teacher's answers to weights, in a run folder.

RUN/recipe.yaml           the resolved recipe
RUN/scenes/, RUN/held/    composed scenes and what the teacher says of them (some gigabytes; may be deleted afterwards)
RUN/last.ckpt             for resuming, after every epoch
RUN/metrics.csv           one line an epoch
RUN/weights.safetensors   the network and its spec; there only when training ended
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, cast

import lightning
import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

import mien
from mien.data.distil import STRIDES, VALUES, Pool, write_pool
from mien.data.scenes import Composer, Side, read_grounds, read_heads
from mien.errors import MienError
from mien.evaluation.detection import highest_threshold
from mien.faces import Face
from mien.models.face import FaceNetwork
from mien.models.weights import save_weights, start_from
from mien.recipe import DetectorRecipe
from mien.runtime.detect import GridDetector, as_faces
from mien.runtime.sessions import open_onnx
from mien.sections import AugmentSection
from mien.spec import DetectorSpec
from mien.training.augment import spoil
from mien.training.folder import open_run, write_environment
from mien.training.loop import Learner, run_loop
from mien.training.origins import forget, lineage, origins, remembered
from mien.training.stop import Order

__all__ = ["FaceLearner", "detection_loss", "fit_detector", "fit_threshold", "flipped"]

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
_MIRROR = [1, 0, 2, 4, 3]  # the landmarks of a mirrored face: eyes and mouth corners change places


def fit_detector(
    recipe: DetectorRecipe,
    data: str | PathLike[str],
    run: str | PathLike[str],
    teacher: str | PathLike[str],
    resume: bool = False,
    threads: int | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda rows: rows,
    bar: bool = True,
    init: str | PathLike[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train, and return the path of the weights.

    data: a folder with heads.parquet and backgrounds.parquet.  teacher: an ONNX file in YuNet's form.
    run: the run folder, made here; with `resume` an unfinished one, which remembers `init`.  threads: as for `mien.training.fit.fit`.
    init: a run, weights or a model (its file or name) to start from; tensors of the same name and shape are taken over.  tell: gets a line an epoch.
    Raises OutputError, DataError, ModelError, ConfigError, TrainingError.
    """
    weights = Path(run) / "weights.safetensors"
    with open_run(Path(run), recipe, resume) as folder:
        if weights.exists():
            return weights
        torch.set_num_threads(threads or torch.get_num_threads())
        lightning.seed_everything(recipe.seed, workers=True, verbose=False)
        start = remembered(folder, init, [teacher]) if resume else origins(init, [teacher])
        network = FaceNetwork(recipe.network)
        if start.init is not None:
            start_from(network, start.init, part="")  # what does not fit says so before scenes are composed
        facts = dict(start.facts)
        write_environment(folder, facts)
        sides: tuple[Side, Side] = ("train", "validation")
        try:
            pools = [_pool(recipe, Path(data), Path(teacher), folder, side, progress) for side in sides]
        except MienError:
            if not resume:
                forget(folder)
            raise
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start.init is not None:
            facts["init"] = start_from(network, start.init, part="", chips=_some(pools[0]))
            tell(f"--init {start.init}: begins afresh: {', '.join(facts['init']['fresh'][:6]) or 'nothing'}")
            write_environment(folder, facts)
        learner = FaceLearner(network, recipe, len(pools[0]))
        shown = Order(_HardSampler(learner, recipe.seed, recipe.scenes.hard))
        batch = recipe.trainer.batch
        train = DataLoader(SceneDataset(pools[0]), batch, sampler=shown, drop_last=True, collate_fn=_as_is)
        held = DataLoader(SceneDataset(pools[1]), batch, collate_fn=_as_is)
        run_loop(learner, train, held, folder, bar, tell=tell)
        kept = cast(FaceNetwork, learner.kept.eval())
        save_weights(weights, kept, _spec(recipe, facts, fit_threshold(kept, pools[1], recipe.look.recall)))
    return weights


def fit_threshold(network: FaceNetwork, pool: Pool, recall: float) -> float:
    """The highest threshold at which the network finds this share of the teacher's sure faces on held scenes."""
    found: list[list[Face]] = []
    wanted: list[list[Face]] = []
    for images, scores, values, _ in DataLoader(SceneDataset(pool), 32, collate_fn=_as_is):
        with torch.inference_mode():
            answer = network(images.float())
        size = images.shape[-1]
        found += [as_faces(torch.sigmoid(a[:, 0]).numpy(), a[:, 1:].numpy(), size, 0.2) for a in answer]
        wanted += [as_faces(s, v, size, 0.5) for s, v in zip(scores.numpy(), values.numpy(), strict=True)]
    return highest_threshold(found, wanted, [round(0.2 + 0.02 * i, 2) for i in range(36)], recall)


def _pool(
    recipe: DetectorRecipe,
    data: Path,
    teacher: Path,
    folder: Path,
    side: Side,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> Pool:
    scenes = recipe.scenes
    heads = read_heads(data, GridDetector(teacher, threads=1), side)
    composer = Composer(heads, read_grounds(data, side), scenes.size)
    held = side != "train"
    name, count = ("held", scenes.held) if held else ("scenes", scenes.count)
    return write_pool(folder / name, composer, open_onnx(teacher, 1), 2 * recipe.seed + held, count, progress)


def _some(pool: Pool, pixels: int = 128 * 256 * 256) -> Tensor:
    """Scenes from all over a pool, as a network sees them: (n, 1, s, s) float32 0..255."""
    count = min(len(pool), max(8, pixels // pool.image(0).size))
    rows = np.linspace(0, len(pool) - 1, count).astype(int)
    return torch.from_numpy(np.stack([pool.image(row) for row in rows]))[:, None].float()


def _spec(recipe: DetectorRecipe, facts: dict[str, Any], threshold: float) -> DetectorSpec:
    teacher = facts["teachers"][0]
    told = f"{recipe.scenes.count} composed scenes, as told by {Path(teacher['path']).name} (sha256 {teacher['sha256'][:16]})"
    return DetectorSpec(
        name=recipe.name,
        threshold=threshold,
        long_side=recipe.look.long_side,
        largest=recipe.look.largest,
        licence="Apache-2.0",
        trained_on=(told, *lineage({"init": facts.get("init")})),
        made_by=f"mien {mien.__version__}, recipe {recipe.name}, seed {recipe.seed}, torch {torch.__version__}, {platform.machine()}",
        network=msgspec.to_builtins(recipe.network),
    )


class SceneDataset(Dataset[Batch]):
    """Scenes (n, 1, s, s) uint8, scores (n, cells), values (n, cells, 14), and the rows' numbers."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __len__(self) -> int:
        return len(self.pool)

    def __getitems__(self, rows: list[int]) -> Batch:
        """A whole batch at once."""
        pool = self.pool
        scores = torch.from_numpy(pool.scores[rows].astype(np.float32))
        values = np.zeros((*scores.shape, VALUES), np.float32)
        for i, row in enumerate(rows):
            part = slice(pool.starts[row], pool.starts[row + 1])
            values[i, pool.rows[part]] = pool.values[part]
        images = torch.from_numpy(np.stack([pool.image(row) for row in rows]))[:, None]
        return images, scores, torch.from_numpy(values), torch.tensor(rows)


def _as_is(batch: Any) -> Any:
    return batch


class _HardSampler(Sampler[int]):
    """Every scene once in a new order, and again those with the worst false alarms; by seed, epoch and learner alone."""

    def __init__(self, learner: FaceLearner, seed: int, hard: float) -> None:
        self.learner, self.seed, self.epoch = learner, seed, 0
        self.count = len(learner.alarm)
        self.extra = int(self.count * hard)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count + self.extra

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        worst = self.learner.alarm.argsort(descending=True, stable=True)[: self.extra].cpu()
        rows = torch.cat([torch.arange(self.count), worst])
        return iter(rows[torch.randperm(len(rows), generator=order)].tolist())


class FaceLearner(Learner):
    """Trains a FaceNetwork by a DetectorRecipe. `alarm`: each scene's worst false alarm when it was last shown."""

    recipe: DetectorRecipe

    def __init__(self, network: FaceNetwork, recipe: DetectorRecipe, count: int) -> None:
        super().__init__(network, recipe)
        self.alarm: Tensor
        self.register_buffer("alarm", torch.rand(count, generator=torch.Generator().manual_seed(recipe.seed)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seed_step(batch_idx)
        images, scores, values, rows = batch
        x, scores, values = _changed(images.float(), scores, values, self.recipe.augment)
        answer = self.network(x.contiguous(memory_format=torch.channels_last)).float()
        loss, alarm = detection_loss(answer, scores, values, self.recipe)
        self.alarm[rows] = alarm
        return self.finite(loss, batch_idx)

    def validation_step(self, batch: Batch, _batch_idx: int) -> None:
        images, scores, values, _ = batch
        loss, _ = detection_loss(self.kept(images.float()).float(), scores, values, self.recipe)
        self.log("val/loss", loss, batch_size=len(images), prog_bar=True)


def _changed(x: Tensor, scores: Tensor, values: Tensor, section: AugmentSection) -> tuple[Tensor, Tensor, Tensor]:
    size = x.shape[-1]
    if section.flip:
        mirror = torch.rand(len(x), device=x.device) < section.flip
        other = flipped(scores, values, size)
        rows = torch.nonzero(mirror).squeeze(1)
        x = x.index_copy(0, rows, x[rows].flip(3))
        scores = torch.where(mirror.view(-1, 1), other[0], scores)
        values = torch.where(mirror.view(-1, 1, 1), other[1], values)
    return spoil(x, section).clamp(0, 255), scores, values


def flipped(scores: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The targets of the mirror images of square scenes of this size: scores (n, cells), values (n, cells, 14)."""
    out_scores, out_values, start = [], [], 0
    for stride in STRIDES:
        side = size // stride
        part = slice(start, start + side * side)
        start += side * side
        score, value = (t[:, part].unflatten(1, (side, side)).flip(2).flatten(1, 2) for t in (scores, values))
        value = value.clone()
        points = value[..., 4:].unflatten(2, (5, 2))[:, :, _MIRROR].clone()
        points[..., 0] = 1 - points[..., 0]
        value[..., 0] = 1 - value[..., 0]
        value[..., 4:] = points.flatten(2)
        out_scores.append(score)
        out_values.append(value)
    return torch.cat(out_scores, 1), torch.cat(out_values, 1)


def detection_loss(answer: Tensor, scores: Tensor, values: Tensor, recipe: DetectorRecipe) -> tuple[Tensor, Tensor]:
    """(loss, worst false alarm of each scene).

    answer: (n, cells, 15).  scores: the teacher's, (n, cells).  values: (n, cells, 14).
    Score: cross-entropy with the teacher's score, weighted by |error|**focus (quality focal loss, Li et al. 2020,
    arXiv:2006.04388), summed and divided by the sum of the teacher's scores. Box and landmarks: mean absolute error over
    cells whose score is above 0.3, weighted by it, in units of the face's size.
    """
    section = recipe.loss
    logits = answer[..., 0]
    error = torch.sigmoid(logits.detach()) - scores
    entropy = F.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    total = scores.sum().clamp(min=1.0)
    loss = (entropy * error.abs() ** section.focus).sum() / total
    weight = torch.where(scores > 0.3, scores, 0.0)
    near = weight > 0
    if near.any():
        told, ours, weight = values[near], answer[..., 1:][near], weight[near]
        weight = weight / weight.sum()
        sides = torch.exp(told[:, 2:4]).clamp(0.2, 64)
        centre = ((ours[:, :2] - told[:, :2]) / sides).abs().mean(dim=1)
        size = (ours[:, 2:4] - told[:, 2:4]).abs().mean(dim=1)
        points = ((ours[:, 4:] - told[:, 4:]).unflatten(1, (5, 2)) / sides[:, None]).abs().mean(dim=(1, 2))
        loss = loss + section.box * ((centre + size) * weight).sum() + section.landmarks * (points * weight).sum()
    return loss, error.amax(dim=1)
