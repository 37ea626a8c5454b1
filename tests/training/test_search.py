"""mien tune."""

import csv
import os
from itertools import pairwise

import pytest
from drawing import drawn_recipe

from mien.alone import ALONE
from mien.data.manifest import Manifest
from mien.data.split import merge
from mien.errors import ConfigError, DataError, OutputError, TrainingError
from mien.recipe import load_recipe
from mien.training.module import ExpressionModule
from mien.training.tune import _checked, _storage, _Watch, read_search, tune

pytest.importorskip("optuna", reason="optuna (extra tune) is not installed")
SEARCH = ["optimizer.lr=1e-4..1e-2", "augment.mixup=0,0.2", "schedule.every=1..5"]


def test_a_search_goes_on_and_ends_in_a_recipe(mien, drawn, tmp_path):
    recipe = drawn_recipe("schedule.epochs=1", "schedule.monitor=accuracy")
    told: list[str] = []
    first = tune(recipe, [drawn], tmp_path / "t", 1, SEARCH, threads=1, tell=told.append)
    with pytest.raises(OutputError, match="pass --resume"):
        tune(recipe, [drawn], tmp_path / "t", 2, SEARCH, threads=1)
    done = tune(recipe, [drawn], tmp_path / "t", 3, SEARCH, resume=True, threads=1, tell=told.append)
    assert done[0] == first[0]
    assert [one.state for one in done] == ["complete"] * 3
    best = load_recipe(tmp_path / "t" / "best.yaml")
    winner = max(done, key=lambda one: one.value)
    assert best.optimizer.lr == winner.settings["optimizer.lr"]
    assert best.name == "ferplus-small-tuned"
    assert all(1e-4 <= one.settings["optimizer.lr"] <= 1e-2 for one in done)
    assert {one.settings["augment.mixup"] for one in done} <= {0, 0.2}
    assert "trial 2: best val/accuracy" in told[-1]
    assert not list((tmp_path / "t").rglob("last.ckpt"))
    _, out, _ = mien("runs", "t")
    assert [line.split()[-1] for line in out.splitlines() if "trials" in line] == ["trial"] * 3
    code, _, err = mien("runs", ".")
    assert code == 2, "a search is no unfinished run"
    assert "no runs here" in err


def test_a_sweep_suggests_a_rate_and_uses_those_that_it_tells(drawn, tmp_path, monkeypatch):
    """A plateau's warm-up must not set its own."""
    used, told = [], []
    step = ExpressionModule.training_step

    def seen(self, batch, index):
        used.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, index)

    monkeypatch.setattr(ExpressionModule, "training_step", seen)
    recipe = drawn_recipe("schedule={name: plateau, epochs: 2, warmup: 1}")
    [one] = tune(recipe, [drawn], tmp_path / "t", 1, threads=1, tell=told.append)
    assert told[0].startswith("learning rate: the sweep suggests ")
    assert set(one.settings) == {"optimizer.lr", "optimizer.decay", "network.dropout", "loss.smoothing"}
    growth = [b / a for a, b in pairwise(used[1:40])]  # the finder's first step is a double one
    assert len(growth) == 38
    assert min(growth) > 1.05
    assert max(growth) == pytest.approx(min(growth), rel=0.01)


def test_trials_that_judged_themselves_are_not_gone_on_with(drawn, tmp_path):
    import optuna

    recipe = drawn_recipe("schedule.epochs=1")
    tune(recipe, [drawn], tmp_path / "t", 1, ["loss.smoothing=0,0.1"], threads=1)
    study = optuna.load_study(study_name=recipe.name, storage=f"sqlite:///{tmp_path / 't' / 'study.db'}")
    study.set_user_attr("judged alike", False)  # as those before were
    with pytest.raises(ConfigError, match="each judged by their own loss, by an earlier mien; begin the search anew"):
        tune(recipe, [drawn], tmp_path / "t", 2, ["loss.smoothing=0,0.1"], resume=True, threads=1)


def test_all_trials_are_judged_by_the_loss_of_the_recipe_searched_around(drawn, tmp_path):
    """None of them learns anything, so all answer alike."""
    recipe = drawn_recipe("schedule.epochs=1", "optimizer={name: adamw, lr: 1.0e-12, decay: 0}")
    search = ["loss.expression=soft_cross_entropy,focal", "loss.smoothing=0..0.5"]
    done = tune(recipe, [drawn], tmp_path / "t", 4, search, threads=1)
    assert {one.settings["loss.expression"] for one in done} == {"soft_cross_entropy", "focal"}
    assert [one.value for one in done] == pytest.approx([done[0].value] * 4, abs=1e-5)
    with (tmp_path / "t" / "trials" / "0000" / "metrics.csv").open() as file:
        first = list(csv.DictReader(file))[-1]
    assert float(first["val/loss"]) == pytest.approx(done[0].value, abs=1e-5)


@pytest.mark.parametrize("word", ["optimizer.lr", "optimizer.lr=1..x", "=1..2"])
def test_a_search_that_cannot_be_read(word):
    with pytest.raises(ConfigError, match="expected section.key=low..high"):
        read_search([word])
    with pytest.raises(ConfigError, match="must be less"):
        read_search(["optimizer.lr=2..1"])


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("optimizer.lrr=1..2", r"optimizer\.lrr: unknown key; did you mean 'lr'"),
        ("network.dropout=0..2", r"dropout: expected a number from 0 to 0\.95, got 2"),
        ("augment.mixup=0,-1", "mixup: expected a number from 0 to 10, got -1"),
        ("schedule.every=0.5..3", r"schedule\.every: .*`int`"),
        ("network.channels=1..3", "takes certain values, no range; name them: network.channels=a,b"),
        ("crop.margin=0..1", "all trials share the same chips"),
        ("schedule.monitor=loss,accuracy", "trials are compared by it; choose one with --set"),
        (
            "network.affect=trained,none",
            "losses of trials that differ in it cannot be compared; compare by another figure",
        ),
    ],
)
def test_a_search_that_cannot_be_is_told_before_anything_is_made(word, match, drawn, tmp_path):
    with pytest.raises(ConfigError, match=match):
        tune(drawn_recipe(), [drawn], tmp_path / "t", 1, ["optimizer.lr=1e-4..1e-2", word], threads=1)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ("trainer.batch=500", "a batch of 500 and only"),
        ("data.labels=[neutral, happiness, sadness, surprise]", "no row to train on is labelled surprise"),
    ],
)
def test_a_recipe_that_could_not_be_trained_is_not_searched(setting, match, drawn, tmp_path):
    """And the search begins anew in the same folder, with settings that can be."""
    rows = Manifest.read(drawn)
    surprise = rows.targets()[:, rows.labels.index("surprise")] > 0
    rows.take([i for i, one in enumerate(surprise) if not one]).write(tmp_path / "some.parquet")
    with pytest.raises(DataError, match=match):
        tune(drawn_recipe(setting), [tmp_path / "some.parquet"], tmp_path / "t", 1, SEARCH, threads=1)
    assert {path.name for path in (tmp_path / "t").iterdir()} <= {"recipe.yaml", *ALONE}


def test_a_trial_whose_batch_is_larger_than_the_rows_is_given_up(drawn, tmp_path):
    told: list[str] = []
    recipe, search = drawn_recipe("schedule.epochs=1"), ["trainer.batch=32,500"]
    done = tune(recipe, [drawn], tmp_path / "t", 3, search, threads=1, tell=told.append)
    states = {one.settings["trainer.batch"]: one.state for one in done}
    assert states.pop(500, "pruned") == "pruned"
    assert set(states.values()) <= {"complete"}
    assert [line for line in told if "a batch of 500 and only" in line] or 500 not in [
        one.settings["trainer.batch"] for one in done
    ]


class Asked:
    """A trial that remembers how it was asked."""

    def suggest_int(self, _name, low, high):
        return "int", low, high

    def suggest_float(self, _name, low, high, log):
        return "float", low, high, log


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("augment.flip=0..1", ("float", 0.0, 1.0, False)),
        ("optimizer.lr=1..10", ("float", 1.0, 10.0, True)),
        ("schedule.every=1..5", ("int", 1, 5)),
    ],
)
def test_a_setting_says_whether_its_numbers_are_whole(word, asked):
    [(name, one)] = _checked(drawn_recipe(), [word]).items()
    assert one.suggest(Asked(), name) == asked


def test_a_search_for_what_the_held_out_rows_do_not_give(drawn, tmp_path):
    """The drawn faces that are held out here have one expression: no AUROC."""
    manifest = Manifest.read(drawn)
    one = manifest.split("validation")
    rows = [i for i, sample in enumerate(one) if sample.target.argmax() == 0]
    merge([manifest.split("train"), one.take(rows)]).write(tmp_path / "one.parquet")
    recipe = drawn_recipe("schedule.epochs=1", "schedule.monitor=auroc")
    with pytest.raises(ConfigError, match="schedule.monitor: the held-out rows give no auroc; they give .*accuracy"):
        tune(recipe, [tmp_path / "one.parquet"], tmp_path / "t", 1, SEARCH, threads=1)


def test_a_trial_that_diverged_ends_alone():
    class Trainer:
        current_epoch = 3
        callback_metrics = {"val/loss": float("nan")}

    with pytest.raises(TrainingError, match="epoch 3: the held-out rows' loss is nan"):
        _Watch(None, "accuracy").on_validation_end(Trainer(), None)


@pytest.mark.skipif(os.name == "nt", reason="no question marks in names on this system")
def test_a_search_lies_where_it_was_asked_for_whatever_letters_the_folder_has(tmp_path):
    from sqlalchemy import create_engine

    folder = tmp_path / "a?b #c %20d {e}"
    folder.mkdir()
    engine = create_engine(_storage(folder / "study.db").format(SCHEMA_LEARNED=""))
    with engine.connect() as line:
        line.exec_driver_sql("create table t (a)")
    engine.dispose()
    assert list(tmp_path.rglob("*")) == [folder, folder / "study.db"]
