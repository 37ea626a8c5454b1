"""What a run leaves behind besides its weights: temperature, curves, predictions of the held-out rows, the report page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from mien.data.manifest import Manifest
from mien.data.prepare import without_chip
from mien.errors import DataError
from mien.evaluation.calibration import ENOUGH, fit_temperature
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

__all__ = ["held_predictions", "held_temperature", "write_ending"]

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
    """The held-out rows judged; None where they have neither labels nor affect that the network answers.

    Rows without a chip are known by split: where a share of train is held out, nobody knows which would have been in it.
    """
    gone = without_chip(rows) if recipe.data.validation else 0
    if gone:
        rows = Manifest(msgspec.structs.replace(rows.header, left_out={}), rows.table, rows.root)
    try:
        found = judge(recipe.name, said, rows)
    except DataError:
        return None
    told = f"{gone:,} row{'s' if gone > 1 else ''} of the train split, of which these are a share, gave no chip"
    return msgspec.structs.replace(found, notes=(told, *found.notes)) if gone else found


def held_predictions(network: Network, spec: ModelSpec, held: ChipDataset, ids: list[str], border: int) -> Predictions:
    """What the network says of chips, as the exported model would."""
    session = TorchSession(network, spec)
    parts = [session.run(centre(chips, border).numpy()) for chips in held.chips.split(_AT_ONCE)]
    probabilities, affect = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Predictions(LabelSet(spec.labels), ids, probabilities, affect)


def held_temperature(network: Network, held: ChipDataset, border: int, targets: Tensor | None = None) -> float:
    """The temperature for held-out chips (see mien.evaluation.calibration.fit_temperature), against the label that most
    raters gave (rows where no label has more than half are left out): so that `confidence` is the chance of agreeing with
    the majority, not the share of its votes. 1 where fewer than ENOUGH rows are left.

    targets: (n, c), NaN where unknown; those of the held-out rows by default.
    """
    targets = held.targets if targets is None else targets
    with torch.inference_mode():
        answers = [network(centre(chips, border)).logits for chips in held.chips.split(512)]
    logits = torch.cat([logits for logits in answers if logits is not None]).double()
    sure = targets.amax(dim=1) > 0.5
    if int(sure.sum()) < ENOUGH:
        return 1.0
    return fit_temperature(logits[sure].softmax(dim=1).numpy(), targets[sure].argmax(dim=1).numpy())
