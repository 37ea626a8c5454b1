"""The clients in examples/clients answer as Python does."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mien
from mien.runtime.store import model_file

ROOT = Path(__file__).parent.parent
CLIENTS = ROOT / "examples" / "clients"
NAME = "ferplus-nano"


def write_chip(path: Path, chip: np.ndarray) -> Path:
    path.write_bytes(b"P6\n%d %d\n255\n" % (chip.shape[1], chip.shape[0]) + chip.tobytes())
    return path


@pytest.fixture
def chips(tmp_path, example):
    """Two chips as files, and what Python says of them."""
    reader = mien.load(NAME, threads=1)
    chip = reader.classifier.chip(example, reader.detector(example)[0])
    both = [chip, np.ascontiguousarray(chip[::-1])]
    files = [write_chip(tmp_path / f"{number}.ppm", one) for number, one in enumerate(both)]
    return files, reader.classifier.read(both)


def answer(command, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **variables})


def test_the_photograph_gives_the_chip(tmp_path, chips):
    command = [sys.executable, CLIENTS / "chip.py", ROOT / "examples/eileen_collins.jpg", tmp_path / "cut.ppm", NAME]
    done = answer(command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cut.ppm").read_bytes() == chips[0][0].read_bytes()


def test_javascript_answers_as_python(chips, engine):
    node = shutil.which("node") or pytest.skip("no node on this machine")
    files, expected = chips
    command = [node, CLIENTS / "javascript/read.mjs", model_file(NAME), *files]
    variables = {"ORT": str(ROOT / "tests" / "engine.mjs"), "VENDOR": str(engine), "NODE_NO_WARNINGS": "1"}
    done = answer(command, **variables)
    assert done.returncode == 0, done.stderr
    for line, expression in zip(done.stdout.splitlines(), expected, strict=True):
        said = json.loads(line)
        assert said["label"] == expression.label
        assert list(said["probabilities"]) == list(expression.labels)
        assert np.allclose(list(said["probabilities"].values()), expression.probabilities, atol=1e-4)
        assert np.allclose([said["valence"], said["arousal"]], [expression.valence, expression.arousal], atol=1e-4)
    wrong = answer([node, CLIENTS / "javascript/read.mjs", model_file(NAME), __file__], **variables)
    assert wrong.returncode == 1
    assert "not a binary PPM of 48x48" in wrong.stderr


def test_cpp_answers_as_python(chips, tmp_path):
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler on this machine")
    found = subprocess.run(["pkg-config", "--cflags", "--libs", "libonnxruntime"], capture_output=True, text=True) if shutil.which("pkg-config") else None  # fmt: skip
    if found is None or found.returncode:
        pytest.skip("no ONNX Runtime for C++ on this machine (Debian: libonnxruntime-dev)")
    files, expected = chips
    source, flags = CLIENTS / "cpp/read.cpp", shlex.split(found.stdout)
    built = answer([compiler, "-std=c++17", source, *flags, "-o", tmp_path / "read"])
    assert built.returncode == 0, built.stderr
    done = answer([tmp_path / "read", model_file(NAME), *files])
    assert done.returncode == 0, done.stderr
    for line, expression in zip(done.stdout.splitlines(), expected, strict=True):
        _, label, *shares, valence, arousal = line.split()
        assert label == expression.label
        assert [share.partition("=")[0] for share in shares] == list(expression.labels)
        numbers = [float(word.partition("=")[2]) for word in (*shares, valence, arousal)]
        assert np.allclose(numbers, [*expression.probabilities, expression.valence, expression.arousal], atol=1e-4)
