"""What a run does besides learning: it stops well, goes on, and says what came of it."""

import csv
import os
import signal
import threading

import numpy as np
import pytest
import torch
from drawing import drawn_recipe, figures, trained

from mien.data.manifest import Manifest
from mien.errors import TrainingError
from mien.evaluation.metrics import score
from mien.evaluation.tables import read_predictions
from mien.models.weights import load_weights
from mien.report.tables import percent
from mien.training import loop
from mien.training.fit import fit

BATCH = [
    "trainer.batch=8",
    "schedule.epochs=3",
    "trainer.ema=0.9",
    "augment.mixup=0.2",
    "data.validation=0.2",
]


def told_to_stop(call: int, number: signal.Signals):
    """A transform that changes nothing and sends this process a signal at a call."""
    calls = []

    def transform(x):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return x

    return transform


@pytest.mark.parametrize(
    ("settings", "call", "number", "where"),
    [
        ([], 15, signal.SIGTERM, "SIGTERM after epoch 2, step 5 of 10"),
        (["trainer.accumulate=2", "optimizer.sam=0.0"], 13, signal.SIGINT, "SIGINT after epoch 2, step 4 of 10"),
        ([], 10, signal.SIGTERM, "SIGTERM after epoch 1;"),
    ],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(settings, call, number, where, drawn, tmp_path):
    recipe = drawn_recipe(*BATCH, *settings)
    whole, _ = load_weights(trained(recipe, drawn, tmp_path / "whole", transform=lambda x: x))
    steps = -(-len(Manifest.read(tmp_path / "whole" / "chips.parquet").split("train")) * 4 // 5 // 8)
    assert steps in {9, 10}, "the numbers above are for ten steps an epoch"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match=f"stopped by {where}.*go on with --resume"):
        trained(recipe, drawn, tmp_path / "cut", transform=told_to_stop(call, number))
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    resumed, _ = load_weights(trained(recipe, drawn, tmp_path / "cut", resume=True, transform=lambda x: x))
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [row["epoch"] for row in figures(tmp_path / "cut")] == ["0", "1", "2"]


def test_a_run_can_be_stopped_twice_in_one_epoch(drawn, tmp_path):
    recipe = drawn_recipe(*BATCH)
    whole, _ = load_weights(trained(recipe, drawn, tmp_path / "whole", transform=lambda x: x))
    for call, resume in ((12, False), (3, True)):
        with pytest.raises(TrainingError, match="stopped by SIGTERM after epoch 2"):
            trained(recipe, drawn, tmp_path / "cut", resume=resume, transform=told_to_stop(call, signal.SIGTERM))
    resumed, _ = load_weights(trained(recipe, drawn, tmp_path / "cut", resume=True, transform=lambda x: x))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_in_another_thread_leaves_signals_alone(drawn, tmp_path):
    found = []

    def work():
        found.append(trained(drawn_recipe("schedule.epochs=1"), drawn, tmp_path / "run"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].is_file()


def test_a_run_leaves_predictions_and_a_report(drawn, tmp_path):
    told = []
    recipe = drawn_recipe("schedule.epochs=2", "data.validation=0.3", "network.affect=trained")
    fit(recipe, drawn, tmp_path / "run", threads=1, bar=False, tell=told.append)
    last = figures(tmp_path / "run")[-1]
    said = read_predictions(tmp_path / "run" / "predictions.parquet")
    rows = Manifest.read(tmp_path / "run" / "chips.parquet")
    held = rows.take([rows.ids.index(name) for name in said.ids])
    scores = score(said, held)
    assert len(said.ids) == pytest.approx(0.3 * len(rows.split("train")), abs=12)
    assert abs(scores.expression.accuracy - float(last["val/accuracy"])) < 1e-4
    assert abs(scores.expression.auroc - float(last["val/auroc"])) < 1e-4
    assert abs(np.mean(scores.affect.rmse) - float(last["val/rmse"])) < 1e-4
    assert {"lr", "val/macro_f1", "train/loss"} <= set(last)
    page = (tmp_path / "run" / "report.html").read_text()
    for words in (
        "Run run: ferplus-small",
        "What is taken for what",
        "AUROC",
        "network:",
        percent(scores.expression.accuracy),
    ):
        assert words in page, words
    assert "http" not in page.replace("http://www.w3.org", "")
    assert told[-1].startswith("epoch 2 of 2: train/loss ")
    assert told[-1].endswith("0 s left")


def test_the_log_grows_when_a_newer_mien_knows_more(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,lr,val/loss\n0,0.1,2.0\n")

    class Trainer:
        current_epoch = 1
        optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)]

    loop._EpochLog(tmp_path, drawn_recipe())._log(Trainer(), {"val/auroc": 0.75, "val/loss": 1.0})
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"epoch": "0", "lr": "0.1", "val/loss": "2.0", "val/auroc": ""}
    assert rows[1]["val/auroc"] == "0.75000"
