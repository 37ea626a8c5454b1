"""The API reference builds without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

import mien

ROOT = Path(__file__).parent.parent


def test_the_reference_builds(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc writes the reference")
    done = subprocess.run([sys.executable, ROOT / "docs/api.py", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    first = (tmp_path / "mien.html").read_text()
    assert [name for name in mien.__all__ if f'id="{name}"' not in first] == []
    assert 'id="GridDetector' in (tmp_path / "mien/runtime/detect.html").read_text()
