"""Small trainings on drawn faces."""

import csv
import os
import signal

from mien.recipe import Recipe, load_recipe
from mien.training.fit import fit


def drawn_recipe(*settings: str) -> Recipe:
    points = "[[0.32, 0.4], [0.68, 0.4], [0.5, 0.58], [0.36, 0.75], [0.64, 0.75]]"
    return load_recipe(
        "ferplus-small",
        [
            f"crop.points={points}",
            "crop.width=32",
            "crop.height=32",
            "network.backbone=mien-pico",
            "network.dropout=0",
            "loss.balance=0",
            "augment={flip: 0.5, rotate: 5, light: 0.2}",
            "optimizer={name: adamw, lr: 0.004, decay: 0.01}",
            "schedule={epochs: 2, warmup: 0.2}",
            "trainer={batch: 32, ema: 0}",
            "data.validation=0",
            *settings,
        ],
    )


def trained(recipe, data, run, **options):
    return fit(recipe, data, run, threads=1, bar=False, **options)


def figures(run) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def told_to_stop(call: int, number: signal.Signals):
    """A transform that changes nothing and sends this process a signal at a call."""
    calls = []

    def transform(x):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return x

    return transform
