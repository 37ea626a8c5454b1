"""Drawn faces to train on."""

import pytest

from mien.data.synthetic import synthetic


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "drawn.parquet"
    synthetic(160, seed=0).write(path)
    return path
