"""mien tune."""

import pytest
from drawing import drawn_recipe

from mien.errors import ConfigError, OutputError
from mien.recipe import load_recipe
from mien.training.tune import read_search, tune

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
    assert [line.split()[-2] for line in out.splitlines() if "trials" in line] == ["trial"] * 3
    code, _, err = mien("runs", ".")
    assert code == 2, "a search is no unfinished run"
    assert "no runs here" in err


def test_a_sweep_suggests_a_rate(drawn, tmp_path):
    told: list[str] = []
    [one] = tune(drawn_recipe("schedule.epochs=1"), [drawn], tmp_path / "t", 1, threads=1, tell=told.append)
    assert told[0].startswith("learning rate: the sweep suggests ")
    assert set(one.settings) == {"optimizer.lr", "optimizer.decay", "network.dropout", "loss.smoothing"}


@pytest.mark.parametrize("word", ["optimizer.lr", "optimizer.lr=1..x", "=1..2"])
def test_a_search_that_cannot_be_read(word):
    with pytest.raises(ConfigError, match="expected section.key=low..high"):
        read_search([word])
    with pytest.raises(ConfigError, match="must be less"):
        read_search(["optimizer.lr=2..1"])


def test_a_search_of_what_is_no_setting(drawn, tmp_path):
    with pytest.raises(ConfigError, match=r"optimizer\.lrr: unknown key; did you mean 'lr'"):
        tune(drawn_recipe(), [drawn], tmp_path / "t", 1, ["optimizer.lrr=1..2"], threads=1)
