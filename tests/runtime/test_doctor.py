"""mien doctor sees what is broken and says how to mend it."""

import json
import os
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

import mien as package
from mien.runtime import doctor, machine, store
from mien.runtime.doctor import Finding
from mien.runtime.wheels import bringer, pairs, requirements

SOURCE = Path(package.__file__).parent.parent


def a_wheel(site: Path, name: str, version: str, **files: str) -> PathDistribution:
    """An installed wheel of text files, as pip leaves it; `__` in a name is a slash."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    record = []
    for place, text in files.items():
        path = site / (place.replace("__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        record.append(f"{path.relative_to(site)},,{len(text)}")
    (info / "RECORD").write_text("\n".join(record) + "\n")
    return PathDistribution(info)


def test_wheels_that_overwrite_each_other_are_seen_with_the_line_that_mends(tmp_path):
    both = [
        a_wheel(tmp_path, "onnxruntime", "1.31.0", onnxruntime__core="of the processor"),
        a_wheel(tmp_path, "onnxruntime-gpu", "1.31.1", onnxruntime__core="of the card, which is longer"),
        a_wheel(tmp_path, "onnxruntime-extensions", "0.1", onnxruntime_extensions__core=""),
    ]
    [pair] = pairs(both)
    assert pair.wheels == ("onnxruntime 1.31.0", "onnxruntime-gpu 1.31.1")
    assert (pair.module, pair.there) == ("onnxruntime", "onnxruntime-gpu")
    assert pair.mend == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu==1.31.1"
    )
    assert pairs(both[1:]) == []
    assert bringer("onnxruntime", "onnxruntime", both[1:]) == "onnxruntime-gpu"
    assert bringer("onnxruntime", "onnxruntime", []) == "onnxruntime"
    assert bringer("av", "av", both) == "av"


def test_of_opencvs_wheels_one_without_windows_is_kept(tmp_path):
    names = ("opencv-python", "opencv-python-headless")
    [pair] = pairs([a_wheel(tmp_path, name, "5.0", cv2__core="the same") for name in names])
    assert pair.mend.endswith("pip install --no-deps opencv-python-headless==5.0")


def test_this_installation_is_well(mien):
    code, out, _ = mien("doctor")
    assert code == 0, out
    for words in (
        "ferplus-small: 3.53 MB",
        "mien-face",
        "yunet: not here; mien models pull yunet",
        "chosen: ",
        "All is well.",
    ):
        assert words in out
    code, out, _ = mien("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["choice"]["reason"]
    assert {one["name"] for one in found["engines"]} == {"onnx", "openvino", "tensorrt"}
    assert [one["name"] for one in found["models"]] == list(store.ENTRIES)
    assert found["machine"]["cores"] >= 1
    assert not any(finding["broken"] for finding in found["findings"])


def test_what_is_broken_is_told_and_sets_the_exit_code(mien, monkeypatch):
    monkeypatch.setattr(doctor, "_wheels", lambda: [Finding(True, "a and b overwrite each other", "pip mend")])
    code, out, _ = mien("doctor")
    assert code == 1
    assert "BROKEN: a and b overwrite each other\n  pip mend\n" in out
    assert "Something is broken" in out


def test_half_an_engine_is_told_and_hinders_nothing_else(tmp_path):
    """What is left when one of two wheels was removed: a folder without what matters."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    path = os.pathsep.join([str(tmp_path), str(SOURCE)])
    command = [sys.executable, "-m", "mien", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1, done.stderr
    assert "BROKEN: onnxruntime: loads but has no InferenceSession" in done.stdout
    assert "pip install --force-reinstall --no-deps onnxruntime\n" in done.stdout
    assert "ONNX Runtime does not load" in done.stdout


def test_a_damaged_model_is_told(mien, monkeypatch, tmp_path):
    for path in store._WEIGHTS.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[: 1000 if path.stem == "ferplus-nano" else None])
    monkeypatch.setattr(store, "_WEIGHTS", tmp_path)
    code, out, _ = mien("doctor")
    assert code == 1
    assert "BROKEN: ferplus-nano: " in out
    (tmp_path / "mien-face.onnx").unlink()
    code, out, _ = mien("doctor")
    assert code == 1
    assert "BROKEN: mien-face: mien-face.onnx is missing" in out


def test_an_altered_file_in_the_cache_is_told(mien):
    folder = store.cache_folder()
    folder.mkdir()
    (folder / store.ENTRIES["yunet"].file).write_bytes(b"something else")
    code, out, _ = mien("doctor")
    assert code == 1
    assert "mien models pull yunet" in out
    assert "altered" in out


@pytest.mark.parametrize(("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None)])
def test_a_containers_share_of_the_processor(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert machine.quota(tmp_path / "cpu.max") == cores
    assert machine.quota(tmp_path / "none") is None


def test_a_share_smaller_than_the_cores_is_noted(monkeypatch):
    monkeypatch.setattr(doctor, "quota", lambda: 0.5)
    [finding] = doctor._limits()
    assert not finding.broken
    assert "--threads 1" in finding.mend


def test_requirements_are_read_with_their_extras_and_versions():
    lines = ["numpy>=99", "PyYAML>=6.0", "pyarrow>=16; extra == 'data'", "mien[data,export]; extra == 'train'"]
    found = requirements(lines)
    assert [(one.name, one.extra, one.met) for one in found] == [
        ("numpy", "", False),
        ("PyYAML", "", True),
        ("pyarrow", "data", found[2].met),
    ]
