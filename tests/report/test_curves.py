"""The picture of a run's curves."""

import cv2
import matplotlib
import pytest
from matplotlib import pyplot as plt

from mien.recipe import load_recipe
from mien.report.curves import write_curves
from mien.report.run import _headline


@pytest.fixture
def chosen():
    """A backend that somebody has chosen."""
    before = matplotlib.get_backend()
    matplotlib.use("svg")
    yield "svg"
    matplotlib.use(before)


def test_curves_leave_the_chosen_backend_and_its_figures_alone(chosen, tmp_path):
    mine = plt.figure()
    (tmp_path / "metrics.csv").write_text("epoch,lr,train/loss,val/loss\n0,0.1,2.0,2.1\n1,0.05,1.5,\n")
    write_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "a run")
    assert matplotlib.get_backend() == chosen
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape == (308, 2 * 374, 3)
    assert (picture < 128).any()


def test_the_headline_names_the_epoch_that_is_kept():
    epochs = [{"epoch": str(number), "val/accuracy": figure} for number, figure in ((1, "0.5"), (2, "0.7"), (3, "0.6"))]
    best = load_recipe("drawn", ["trainer.keep=best", "schedule.monitor=accuracy"])
    assert _headline(best, epochs, None) == [("3", "epochs"), ("2", "the epoch kept, by accuracy")]
    assert _headline(load_recipe("drawn"), epochs, None) == [("3", "epochs")]
