"""mien runs."""

import re

import pytest

from mien.errors import ConfigError
from mien.recipe import kept_epoch, load_recipe, recipe_text


def a_run(folder, *settings, epochs=("0.5,0.9", "0.7,0.6", "0.7,0.5", "0.6,0.4"), ended=True):
    """A run's folder by hand: its recipe, and what it logged of accuracy and loss."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_text(load_recipe("drawn", settings)))
    lines = ["epoch,val/accuracy,val/loss", *(f"{number},{line}" for number, line in enumerate(epochs))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if ended:
        (folder / "weights.safetensors").write_bytes(b"")
    return folder


def cells(out, first):
    [line] = [line for line in out.splitlines() if first in line]
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ([], ["4", "4", "0.6", "0.4"]),
        (["trainer.keep=best", "schedule.monitor=accuracy"], ["4", "2", "0.7", "0.6"]),
        (["trainer.keep=best"], ["4", "4", "0.6", "0.4"]),
    ],
)
def test_the_figures_shown_are_of_the_weights_that_are_kept(settings, shown, mien, tmp_path):
    a_run(tmp_path / "runs" / "a", *settings)
    assert cells(mien("runs", "runs")[1], "drawn")[2:-1] == shown


def test_a_figure_that_an_epoch_does_not_give_is_not_the_best():
    recipe = load_recipe("drawn", ["trainer.keep=best", "schedule.monitor=auroc"])
    assert kept_epoch(recipe, [{"val/auroc": "nan"}, {"val/auroc": "0.6"}, {}]) == 1
    assert kept_epoch(recipe, [{}, {}]) == 1


def test_one_recipe_that_mien_does_not_know_hides_no_other_run(mien, tmp_path):
    a_run(tmp_path / "runs" / "a")
    other = a_run(tmp_path / "runs" / "b") / "recipe.yaml"
    other.write_text(other.read_text() + "optimiser: {}\n")
    code, out, err = mien("runs", "runs")
    assert code == 1
    assert cells(out, "drawn")[0].endswith("a")
    assert "recipe.yaml: optimiser: unknown key; did you mean 'optimizer'" in err
    with pytest.raises(ConfigError, match=r"b.recipe\.yaml: optimiser: unknown key"):
        load_recipe(other)


def test_folds_have_their_mean_and_deviation(mien, tmp_path):
    """Runs with another seed, another start or other chips are not of one cross-validation, nor is one that has not ended."""
    runs = tmp_path / "runs"
    for fold, epoch in enumerate(("0.5,1.0", "0.7,1.0", "0.6,1.0")):
        a_run(runs / f"f{fold}", "data.validation=0.2", f"data.fold={fold}", epochs=[epoch])
    held = ["data.validation=0.2", "data.fold=3"]
    a_run(runs / "again", *held[:1], "data.fold=2", epochs=["0.1,1.0"])
    a_run(runs / "seed", *held, "seed=1")
    a_run(runs / "cut", *held, ended=False)
    (a_run(runs / "start", *held) / "environment.json").write_text('{"init": {"sha256": "1"}, "teachers": []}')
    (a_run(runs / "chips", *held) / "chips.parquet").write_bytes(b"1")
    (a_run(runs / "torn", *held) / "environment.json").write_text('{"init": {"sha')
    code, out, err = mien("runs", "runs/f0", "runs/f1", "runs/f2", "runs")
    assert (code, err.count("mien: ")) == (0, 1)
    assert "environment.json: is damaged (" in err
    assert "the run is left out of means across folds" in err
    assert re.search(r"drawn, seed 0, folds 0, 1, 2\s*\n", out)
    [line] = [line for line in out.splitlines() if "±" in line and "val/accuracy" in line]
    assert "0.60000 ± 0.10000" in line
    assert "±" not in mien("runs", "runs/f0", "runs/seed", "runs/cut", "runs/start", "runs/chips")[1]
