"""The scripts for JetPack, as far as they go without the hardware: against a stand-in for trtexec."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mien.runtime.store import model_file

SCRIPTS = Path(__file__).parent.parent / "examples" / "jetson"
STAND_IN = """#!/bin/sh
echo "$@" >> "$SAID"
for word in "$@"; do case $word in --saveEngine=*) echo engine > "${word#--saveEngine=}";; esac; done
echo "[I] Throughput: 100 qps"
echo "[I] Noise"
echo "[I] GPU Compute Time: min = 1 ms"
exit ${FAILS:-0}
"""


@pytest.fixture
def jetson(tmp_path):
    """Run a script in a folder that holds a model, with a trtexec that writes down what it is asked: (done, its words)."""
    if not shutil.which("bash"):
        pytest.skip("no bash on this machine")
    tools, said = tmp_path / "tools", tmp_path / "said.txt"
    tools.mkdir()
    (tools / "trtexec").write_text(STAND_IN)
    (tools / "trtexec").chmod(0o755)
    for suffix in (".onnx", ".json"):
        shutil.copy(model_file("ferplus-nano").with_suffix(suffix), tmp_path / f"n{suffix}")

    def run(script, *words, **variables):
        path = f"{tools}:/usr/bin:/bin"
        variables = {**os.environ, "PATH": path, "SAID": str(said), **variables}
        done = subprocess.run([SCRIPTS / script, *words], cwd=tmp_path, capture_output=True, text=True, env=variables)
        return done, said.read_text().splitlines() if said.is_file() else []

    return run


def test_an_engine_is_built_for_the_shapes_that_the_spec_states(jetson, tmp_path):
    done, said = jetson("build.sh", "n.onnx", "16")
    assert done.returncode == 0, done.stderr
    assert said == [
        "--onnx=n.onnx --saveEngine=n.engine.part --fp16 --minShapes=chips:1x3x48x48 --optShapes=chips:8x3x48x48 "
        "--maxShapes=chips:16x3x48x48"
    ]
    assert (tmp_path / "n.engine").is_file()
    _, said = jetson("build.sh", "n.onnx", "fixed")
    assert said[1] == "--onnx=n.onnx --saveEngine=n.engine.part --fp16"


def test_a_build_that_fails_leaves_no_engine(jetson, tmp_path):
    done, _ = jetson("build.sh", "n.onnx", FAILS="1")
    assert done.returncode == 1
    assert not (tmp_path / "n.engine").exists()


def test_without_its_description_no_engine_is_built(jetson, tmp_path):
    (tmp_path / "n.json").unlink()
    done, said = jetson("build.sh", "n.onnx")
    assert (done.returncode, said) == (2, [])
    assert "n.json: is missing" in done.stderr


def test_an_engine_is_measured_by_batch(jetson, tmp_path):
    (tmp_path / "n.engine").write_text("engine")
    done, said = jetson("measure.sh", "n.engine", "1", "8")
    assert done.returncode == 0, done.stderr
    assert said == [f"--loadEngine=n.engine --shapes=chips:{batch}x3x48x48 --useSpinWait" for batch in (1, 8)]
    assert done.stdout.count("Throughput") == 2
    assert "Noise" not in done.stdout
    assert len(jetson("measure.sh", "n.engine")[1]) == 5
