"""Drawn faces to train on."""

import shutil

import pytest
from drawing import drawn_recipe, trained

from mien.data.synthetic import synthetic
from mien.training import ending


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "drawn.parquet"
    synthetic(160, seed=0).write(path)
    return path


@pytest.fixture
def pictures():
    """For a test that wants a run's curves drawn."""


@pytest.fixture(autouse=True)
def _no_curves(request, monkeypatch):
    """Drawing curves takes longer than these trainings: it is done where a test asks for `pictures`."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(ending, "write_curves", lambda _metrics, out, _title: out.write_bytes(b""))


@pytest.fixture(scope="session")
def _one_epoch(drawn, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "write_curves", lambda _metrics, out, _title: out.write_bytes(b""))
        run = tmp_path_factory.mktemp("one") / "run"
        trained(drawn_recipe("schedule.epochs=1"), drawn, run)
    return run


@pytest.fixture
def one_epoch(_one_epoch, tmp_path):
    """A copy of a finished run of drawn_recipe("schedule.epochs=1"), to be spoiled."""
    return shutil.copytree(_one_epoch, tmp_path / "one_epoch")
