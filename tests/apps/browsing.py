"""What the tests of the page share."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

import mien
from mien.vision.image import read_image

WEB = Path(mien.__file__).parent / "apps" / "web"
EXAMPLE = Path(__file__).parents[2] / "examples" / "eileen_collins.jpg"


@pytest.fixture(scope="session")
def example() -> np.ndarray:
    """The example photograph: one face."""
    return read_image(EXAMPLE)


@pytest.fixture(scope="session")
def engine() -> Path:
    """The page's engine, or a skip that says how to have it."""
    if not (WEB / "vendor" / "ort.wasm.bundle.min.mjs").is_file():
        pytest.skip("the page's engine is not there: run `make web` (needs npm)")
    return WEB / "vendor"


@pytest.fixture
def javascript(tmp_path):
    """Run tasks in the page's own JavaScript, by node; see twin.mjs."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")

    def run(tasks: list[dict]) -> list:
        job = tmp_path / "job.json"
        job.write_text(json.dumps({"web": str(WEB), "tasks": tasks}))
        script = Path(__file__).parent / "twin.mjs"
        done = subprocess.run([node, script, job], capture_output=True, text=True, timeout=120, env=_quiet())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _quiet() -> dict[str, str]:
    return {**os.environ, "NODE_NO_WARNINGS": "1"}


def packed(image: np.ndarray) -> dict:
    """A picture as a task takes it."""
    return {"bytes": base64.b64encode(image.tobytes()).decode(), "width": image.shape[1], "height": image.shape[0]}


def unpacked(answer: dict) -> np.ndarray:
    """A picture as a task gives it."""
    data = np.frombuffer(base64.b64decode(answer["data"]), np.uint8)
    return data.reshape(answer["height"], answer["width"], 3)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two pictures, in grey levels."""
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def smaller(image: np.ndarray, scale: float) -> np.ndarray:
    """A picture, resized by area."""
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
