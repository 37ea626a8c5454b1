"""Shared fixtures. Real faces are read from the folder that MIEN_TEST_DATA names; without it those tests skip."""

import os
import sys
from pathlib import Path

import pytest

from apps.browsing import engine, example, javascript  # noqa: F401 - fixtures of the tests of the page


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real test data, or a skip that says so."""
    place = os.environ.get("MIEN_TEST_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("MIEN_TEST_DATA names no folder of test data")
    return Path(place)


@pytest.fixture(scope="session")
def yunet_file(test_data: Path) -> Path:
    """YuNet's dynamic-shape file beside the test data, or a skip that says so."""
    path = test_data.parent / "models" / "yunet_n_dynamic.onnx"
    if not path.is_file():
        pytest.skip("no YuNet file beside the test data")
    return path


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test leaves the machine or reads the user's cache."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    monkeypatch.delenv("MIEN_YUNET", raising=False)


@pytest.fixture
def odd_name(tmp_path: Path) -> str:
    """A name that is no UTF-8 (to be given an ending), or a skip where no file can be called so."""
    name = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / name).touch()
        (tmp_path / name).unlink()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return name


@pytest.fixture
def mien(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `mien ...` in an empty folder, in this process: (exit code, stdout, stderr)."""
    from mien.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "220")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mien", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run
