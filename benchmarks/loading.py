"""Images per CPU second of the training loop against the bare network on one batch: what loading and augmenting cost.

    python benchmarks/loading.py [RECIPE ...] [--threads 1] [--rows 4096] [--rounds 5]

Bare: forward, backward and optimizer step, again and again on one batch of floats. Loop: what `mien train` does, over random chips in
memory: sampler, loader, augmentation, Lightning's loop, averaged weights, log; without the held-out rows and the checkpoint at an epoch's end.
Seconds are CPU seconds of this process, so that other work on the machine does not count; with one thread and memory-resident chips
nothing waits, so they are the wall's seconds of a quiet machine. Rounds of the three alternate; medians count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import msgspec
import numpy as np
import torch

from mien.labels import label_set
from mien.models.network import build_network
from mien.recipe import Recipe, load_recipe
from mien.sections import AugmentSection
from mien.training.augment import centre
from mien.training.dataset import ChipDataset, EpochSampler, loader
from mien.training.loop import quiet, run_loop
from mien.training.module import ExpressionModule


class Watch(lightning.pytorch.callbacks.Callback):
    """Seconds from the first batch's end to the last one's: an epoch without its start and end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(time.process_time())


def chips(recipe: Recipe, rows: int) -> ChipDataset:
    """Random chips in the form that training reads."""
    crop, classes, rng = recipe.crop, len(label_set(recipe.data.labels)), np.random.default_rng(0)
    made = ChipDataset.__new__(ChipDataset)
    size = (rows, 3 if crop.colour == "rgb" else 1, crop.height + 2 * crop.border, crop.width + 2 * crop.border)
    made.chips = torch.from_numpy(rng.integers(0, 256, size, np.uint8))
    made.targets = torch.eye(classes)[torch.from_numpy(rng.integers(0, classes, rows))]
    made.affect = torch.from_numpy(rng.uniform(-1, 1, (rows, 2)).astype(np.float32))
    made.told = made.auxiliary = torch.zeros(rows, 0)
    return made


def learner_of(recipe: Recipe) -> ExpressionModule:
    labels = label_set(recipe.data.labels)
    network = build_network(recipe.network, labels, recipe.crop).to(memory_format=torch.channels_last)
    return ExpressionModule(network, recipe, torch.ones(len(labels)))


def bare(recipe: Recipe, data: ChipDataset, steps: int) -> float:
    """Images per second of the network alone."""
    learner = learner_of(recipe).train()
    batch = recipe.trainer.batch
    x = centre(data.chips[:batch], recipe.crop.border).contiguous(memory_format=torch.channels_last)
    targets, affect = data.targets[:batch], data.affect[:batch]
    optimizer = torch.optim.SGD(learner.network.parameters(), recipe.optimizer.lr / 100, 0.9)
    half = recipe.trainer.precision == "bf16-mixed"
    for step in range(steps + 1):
        if step == 1:
            began = time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _ = learner.loss(learner.network(x), targets, affect)
        loss.backward()
        optimizer.step()
    return batch * steps / (time.process_time() - began)


def looped(recipe: Recipe, data: ChipDataset) -> float:
    """Images per second of the loop."""
    learner, watch = learner_of(recipe), Watch()
    train = loader(data, recipe.trainer.batch, EpochSampler(data.targets, recipe.data, 0))
    few = chips(recipe, 64)
    with tempfile.TemporaryDirectory() as place, quiet():
        run_loop(learner, train, loader(few, 64), Path(place), False, [watch])
    return recipe.trainer.batch * (len(watch.times) - 1) / (watch.times[-1] - watch.times[0])


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("recipes", nargs="*", default=["ferplus-small", "fer2013-resnet34"])
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--rows", type=int, default=4096)
    words.add_argument("--rounds", type=int, default=5)
    chosen = words.parse_args()
    torch.set_num_threads(chosen.threads)
    print(
        f"{chosen.threads} threads, torch {torch.__version__}; images per CPU second, medians of {chosen.rounds} rounds\n"
    )
    print(
        "| recipe | bare network | loop, no augmentation | loop, recipe's augmentation | ratios |\n|---|---|---|---|---|"
    )
    for name in chosen.recipes:
        whole = load_recipe(name, ["network.pretrained=false", "schedule={name: constant, epochs: 1, warmup: 0}"])
        assert isinstance(whole, Recipe)
        plain = msgspec.structs.replace(whole, augment=AugmentSection(flip=0))
        data = chips(whole, chosen.rows)
        steps = chosen.rows // whole.trainer.batch - 1
        rounds = [(bare(whole, data, steps), looped(plain, data), looped(whole, data)) for _ in range(chosen.rounds)]
        middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratios = [statistics.median(one[i] / one[0] for one in rounds) for i in (1, 2)]
        print(
            f"| {name} | {middle[0]:,.0f} | {middle[1]:,.0f} | {middle[2]:,.0f} | {ratios[0]:.0%}, {ratios[1]:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
