"""What a run does besides learning: it stops well, goes on, and says what came of it."""

import csv
import platform
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from drawing import drawn_recipe, figures, told_to_stop, trained

from mien.cli.train import wanted_recipe
from mien.data.manifest import Manifest
from mien.errors import DataError, TrainingError
from mien.evaluation.metrics import score
from mien.evaluation.tables import read_predictions
from mien.models.weights import load_weights
from mien.recipe import load_recipe, recipe_text
from mien.report.tables import percent
from mien.training import ending, loop
from mien.training.fit import fit

BATCH = [
    "trainer.batch=8",
    "schedule.epochs=3",
    "trainer.ema=0.9",
    "augment.mixup=0.2",
    "data.validation=0.2",
]


def test_threads_that_were_set_for_torch_are_kept(drawn, tmp_path):
    """By OMP_NUM_THREADS, or by a system that gives a job some of its cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.raises(DataError, match="a batch of 1000"):
            fit(drawn_recipe("trainer.batch=1000"), drawn, tmp_path / "run", bar=False)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory):
    """The folder of a run of BATCH that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "write_curves", lambda _metrics, out, _title: out.write_bytes(b""))
        run = tmp_path_factory.mktemp("whole") / "run"
        trained(drawn_recipe(*BATCH), drawn, run, transform=lambda x: x)
    steps = -(-len(Manifest.read(run / "chips.parquet").split("train")) * 4 // 5 // 8)
    assert steps in {9, 10}, "the numbers below are for ten steps an epoch"
    return run


def assert_same(one, other):
    """Two runs have the same weights, bit for bit."""
    a, b = (load_weights(run / "weights.safetensors")[0].state_dict() for run in (one, other))
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(
    ("call", "number", "where"),
    [(15, signal.SIGTERM, "SIGTERM after epoch 2, step 5 of 10"), (10, signal.SIGTERM, "SIGTERM after epoch 1;")],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(call, number, where, whole, drawn, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match=f"stopped by {where}.*go on with --resume"):
        trained(drawn_recipe(*BATCH), drawn, tmp_path / "cut", transform=told_to_stop(call, number))
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    trained(drawn_recipe(*BATCH), drawn, tmp_path / "cut", resume=True, transform=lambda x: x)
    assert_same(whole, tmp_path / "cut")
    assert [row["epoch"] for row in figures(tmp_path / "cut")] == ["0", "1", "2"]


def test_frozen_stages_stay_frozen_when_a_stopped_epoch_goes_on(drawn, tmp_path):
    """Summed gradients, a plateau that warms up, stages released by epochs, Ctrl-C within the first of them."""
    settings = [*BATCH, "trainer.accumulate=2", "network.freeze=-1", "network.unfreeze=1", "optimizer.layers=0.7"]
    recipe = drawn_recipe(*settings, "schedule={name: plateau, epochs: 2, warmup: 1, patience: 0}")
    trained(recipe, drawn, tmp_path / "whole", transform=lambda x: x)
    with pytest.raises(TrainingError, match="stopped by SIGINT after epoch 1, step 4 of 10"):
        trained(recipe, drawn, tmp_path / "cut", transform=told_to_stop(3, signal.SIGINT))
    trained(recipe, drawn, tmp_path / "cut", resume=True, transform=lambda x: x)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("call", "where"), [(15, "SIGTERM after epoch 2, step 5 of 10"), (20, "SIGTERM after epoch 2;")]
)
def test_a_plateau_goes_on_falling_after_a_stop(call, where, drawn, tmp_path):
    """The step of the epoch before, or of the one that goes on within, is not lost."""
    schedule = "schedule={name: plateau, epochs: 4, warmup: 0, patience: 0, factor: 0.1, monitor: accuracy}"
    recipe = drawn_recipe(*BATCH, schedule, "optimizer.lr=1e-5")  # nothing gets better, so every epoch's end lowers it
    trained(recipe, drawn, tmp_path / "whole", transform=lambda x: x)
    rates = [float(row["lr"]) for row in figures(tmp_path / "whole")]
    assert rates == pytest.approx([1e-5, 1e-5, 1e-6, 1e-7], rel=0.01)
    with pytest.raises(TrainingError, match=where):
        trained(recipe, drawn, tmp_path / "cut", transform=told_to_stop(call, signal.SIGTERM))
    trained(recipe, drawn, tmp_path / "cut", resume=True, transform=lambda x: x)
    assert [float(row["lr"]) for row in figures(tmp_path / "cut")] == rates
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_plateau_warms_up(drawn, tmp_path):
    schedule = "schedule={name: plateau, epochs: 4, warmup: 2, patience: 9}"
    trained(drawn_recipe("trainer.batch=32", schedule, "optimizer.lr=0.01"), drawn, tmp_path / "run")
    rates = [float(row["lr"]) for row in figures(tmp_path / "run")]
    assert 0 < rates[0] < rates[1] < 0.01 == rates[2] == rates[3]


def test_a_warm_up_that_ends_within_an_epoch_ends_at_the_rate(drawn, tmp_path):
    schedule = "schedule={name: plateau, epochs: 2, warmup: 0.3, patience: 9}"
    trained(drawn_recipe("trainer.batch=32", schedule, "optimizer.lr=0.01"), drawn, tmp_path / "run")
    assert [float(row["lr"]) for row in figures(tmp_path / "run")] == [0.01, 0.01]


def test_any_seed_of_a_recipe_can_train(drawn, tmp_path):
    trained(drawn_recipe("schedule.epochs=1", f"seed={2**32 - 1}"), drawn, tmp_path / "run")
    assert len(figures(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("settings", "strategy"),
    [
        ((), "auto"),
        (("trainer.devices=2",), "auto"),
        (("network.freeze=1",), "auto"),
        (("network.freeze=1", "trainer.devices=2"), "ddp_find_unused_parameters_true"),
        (("network.freeze=1", "trainer.devices=2", "trainer.strategy=ddp"), "ddp_find_unused_parameters_true"),
        (("network.freeze=1", "trainer.devices=2", "trainer.strategy=fsdp"), "fsdp"),
        (("network.affect=trained", "loss.uncertainty=true", "trainer.nodes=2"), "ddp_find_unused_parameters_true"),
    ],
)
def test_several_processes_wait_for_no_gradient_that_never_comes(settings, strategy):
    assert loop._strategy(drawn_recipe(*settings)) == strategy


def test_apples_gpus_are_left_alone_in_silence(tmp_path, monkeypatch, recwarn):
    """They know no float64, and grid_sample with a border only in new versions of torch."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    with loop.quiet():
        trainer = loop._trainer(drawn_recipe(), tmp_path, [], [], False)
    assert type(trainer.accelerator).__name__ in {"CPUAccelerator", "CUDAAccelerator"}
    assert not recwarn.list


def test_a_run_that_ended_early_stays_ended(drawn, tmp_path):
    """Killed between its last epoch and its weights; the same weights come of it, without one more epoch."""
    recipe = drawn_recipe("schedule={epochs: 9, warmup: 0, monitor: accuracy, stop: 1}", "optimizer.lr=0")
    run = tmp_path / "run"
    weights = trained(recipe, drawn, run)
    said, epochs = weights.read_bytes(), figures(run)
    assert len(epochs) == 2
    weights.unlink()
    assert trained(recipe, drawn, run, resume=True).read_bytes() == said
    assert figures(run) == epochs


def test_a_run_can_be_stopped_twice_in_one_epoch(whole, drawn, tmp_path):
    recipe = drawn_recipe(*BATCH)
    for call, resume in ((12, False), (3, True)):
        with pytest.raises(TrainingError, match="stopped by SIGTERM after epoch 2"):
            trained(recipe, drawn, tmp_path / "cut", resume=resume, transform=told_to_stop(call, signal.SIGTERM))
    trained(recipe, drawn, tmp_path / "cut", resume=True, transform=lambda x: x)
    assert_same(whole, tmp_path / "cut")


def test_training_in_another_thread_leaves_signals_alone(drawn, tmp_path):
    found = []

    def work():
        found.append(trained(drawn_recipe("schedule.epochs=1"), drawn, tmp_path / "run"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].is_file()


@pytest.mark.usefixtures("pictures")
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
        '<tbody><tr><td class="number">1</td>',  # as everywhere: the first epoch
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


def test_half_precision_with_clipped_gradients_on_a_cpu(drawn, tmp_path):
    settings = ("trainer.precision=bf16-mixed", "trainer.clip=1.0", "optimizer.name=adamw", "schedule.epochs=1")
    trained(drawn_recipe(*settings), drawn, tmp_path / "run")
    assert 0 <= float(figures(tmp_path / "run")[0]["val/accuracy"]) <= 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_step():
    code = """
import resource, torch
from mien.training.memory import keep_memory
def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.ones(16, 1 << 20).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults(10)
assert keep_memory()
faults(2)
print(before, min(faults(10) for _ in range(5)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 0.1 * before, "the least of five: a busy machine may take memory away now and then"


def test_a_recipes_name_alone_resumes_with_the_settings_of_the_run(tmp_path):
    begun = load_recipe("drawn", ["optimizer.lr=0.02", "schedule.epochs=7"])
    (tmp_path / "recipe.yaml").write_text(recipe_text(begun))
    assert wanted_recipe("drawn", (), tmp_path) == begun
    assert wanted_recipe("drawn", ["seed=1"], tmp_path) == load_recipe("drawn", ["seed=1"])
    assert wanted_recipe("ferplus-nano", (), tmp_path) == load_recipe("ferplus-nano")
    assert wanted_recipe("drawn", ()) == wanted_recipe("drawn", (), tmp_path / "nothing") == load_recipe("drawn")
    mine = tmp_path / "mine.yaml"
    mine.write_text(recipe_text(load_recipe("drawn")))
    assert wanted_recipe(str(mine), (), tmp_path) == load_recipe("drawn")


@pytest.mark.skipif(sys.platform == "win32", reason="files have no modes there")
def test_weights_may_be_read_by_whom_the_other_files_of_a_run_may(drawn, tmp_path):
    trained(drawn_recipe("schedule.epochs=1", "trainer.keep=best"), drawn, tmp_path / "run")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "run").iterdir()}
    assert modes["weights.safetensors"] == modes["best.safetensors"] == modes["metrics.csv"]
