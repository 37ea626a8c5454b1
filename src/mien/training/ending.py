"""What a run leaves behind besides its weights: temperature, curves, predictions of the held-out rows, the report page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.evaluation.judgement import Judgement, judge
from mien.evaluation.predictions import Predictions, write_predictions
from mien.files import whole_file
from mien.labels import LabelSet
from mien.models.network import Network
from mien.models.weights import TorchSession
from mien.recipe import Recipe
from mien.report.curves import write_curves
from mien.report.run import run_page
from mien.spec import ModelSpec
from mien.training.augment import centre
from mien.training.dataset import ChipDataset

__all__ = ["fit_temperature", "held_predictions", "write_ending"]

#: Fewer held-out rows than this say too little of a temperature.
_ENOUGH = 100
_AT_ONCE = 512


def write_ending(
    folder: Path, recipe: Recipe, network: Network, spec: ModelSpec, held: ChipDataset, rows: Manifest
) -> None:
    """curves.png, predictions.parquet and report.html of a trained network, over those that are there.

    held, rows: the held-out chips as tensors and as the manifest, in one order.
    """
    write_curves(folder / "metrics.csv", folder / "curves.png", recipe.name)
    said = held_predictions(network, spec, held, rows.ids, recipe.crop.border)
    write_predictions(said, folder / "predictions.parquet", overwrite=True)
    page = run_page(folder, recipe, spec, _judged(recipe, said, rows))
    with whole_file(folder / "report.html", overwrite=True) as part:
        part.write_text(page, encoding="utf-8")


def _judged(recipe: Recipe, said: Predictions, rows: Manifest) -> Judgement | None:
    """The held-out rows judged; None where they have neither labels nor affect that the network answers."""
    try:
        return judge(recipe.name, said, rows)
    except DataError:
        return None


def held_predictions(network: Network, spec: ModelSpec, held: ChipDataset, ids: list[str], border: int) -> Predictions:
    """What the network says of chips, as the exported model would."""
    session = TorchSession(network, spec)
    parts = [session.run(centre(chips, border).numpy()) for chips in held.chips.split(_AT_ONCE)]
    probabilities, affect = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Predictions(LabelSet(spec.labels), ids, probabilities, affect)


def fit_temperature(network: Network, held: ChipDataset, border: int) -> float:
    """The temperature with the least cross-entropy on held-out chips (Guo et al. 2017, arXiv:1706.04599), against the
    label that most raters gave (rows where no label has more than half are left out): so that `confidence` is the chance
    of agreeing with the majority, not the share of its votes."""
    with torch.inference_mode():
        answers = [network(centre(chips, border)).logits for chips in held.chips.split(512)]
    logits = torch.cat([logits for logits in answers if logits is not None]).double()
    grid = torch.exp(torch.linspace(-1.6, 1.6, 641, dtype=torch.float64))
    sure = held.targets.amax(dim=1) > 0.5
    if int(sure.sum()) < _ENOUGH:
        return 1.0
    wanted = held.targets[sure].argmax(dim=1)
    losses = [F.cross_entropy(logits[sure] / t, wanted) for t in grid]
    return round(float(grid[int(torch.stack(losses).argmin())]), 4)
