"""The wheel in an environment that has nothing but what it asks for reads a face, offline."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import mien

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "eileen_collins.jpg"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OFFLINE = """
import socket

def refused(*_):
    raise OSError("this test is offline")

socket.socket.connect = socket.socket.connect_ex = refused
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source archive. npm is out of reach: the page's engine is inside if it was there."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": str(folder)})
    assert done.returncode == 0, done.stderr
    return folder


def needed(names: list[str]) -> set[str]:
    """Every distribution that these requirements bring in, by name."""
    packaging = pytest.importorskip("packaging.requirements")
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        requirement = packaging.Requirement(waiting.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            found.add(requirement.name)
            waiting += distribution(requirement.name).requires or []
    return found


def test_the_wheel_names_every_licence_of_what_is_inside(built):
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert "License-Expression: Apache-2.0 AND MIT" in metadata
    engine = any(name.endswith(".wasm") for name in names)
    assert ("License-File: src/mien/apps/web/vendor/LICENSE.txt" in metadata) == engine


@pytest.fixture(scope="module")
def empty(built, tmp_path_factory) -> Path:
    """The python of an environment with the wheel, and links to what the wheel asks for; it reaches no network."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    [wheel] = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)  # noqa: S202 - our own wheel
    (site / "sitecustomize.py").write_text(OFFLINE)
    for name in needed(PROJECT["dependencies"]):
        found = distribution(name)
        tops = {file.parts[0] for file in found.files or [] if ".." not in file.parts}
        for top in tops - {"__pycache__"}:
            (site / top).symlink_to(found.locate_file(top))
    return folder / "bin" / "python"


def run(python: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([python, "-I", *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=120)


def test_the_wheel_alone_reads_a_face_offline(empty, tmp_path):
    done = run(empty, "-m", "mien", "predict", PHOTO, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [face] = json.loads(done.stdout)["faces"]
    [expected] = mien.load()(PHOTO)
    assert face["expression"]["label"] == expected.expression.label == "happiness"
    assert face["expression"]["confidence"] == pytest.approx(expected.expression.confidence, abs=1e-3)


def test_the_environment_is_empty_indeed(empty, tmp_path):
    code = "import importlib.util as u, mien; print(mien.__file__, [n for n in ('torch', 'pyarrow', 'onnx') if u.find_spec(n)])"
    assert run(empty, "-c", code, cwd=tmp_path).stdout.split()[1:] == ["[]"]
    assert str(empty.parents[1]) in run(empty, "-c", code, cwd=tmp_path).stdout
    refused = run(empty, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))", cwd=tmp_path)
    assert "this test is offline" in refused.stderr


def test_what_is_missing_is_named_with_its_pip_line(empty, tmp_path):
    done = run(empty, "-m", "mien", "data", "list", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("Install it with: pip install 'mien[data]'\n")


def test_the_archives_hold_what_they_should(built):
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    models = {path.name for path in (ROOT / "src/mien/weights").iterdir()}
    assert {f"mien/weights/{name}" for name in models} | {"mien/py.typed", "mien/apps/web/example.jpg"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in names)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "CITATION.cff",
        "CHANGELOG.md",
        "Makefile",
        "hatch_build.py",
        "tests/builders.py",
        "examples/clients/cpp/read.cpp",
    }
    assert wanted | {f"src/mien/weights/{name}" for name in models} <= inside
    said = re.search(r"`py3-none-any`\): ([0-9.]+) MB", (ROOT / "docs/install.md").read_text(encoding="utf-8"))
    assert said, "docs/install.md states the size"
    assert abs(wheel.stat().st_size / 1e6 - float(said[1])) < 0.3, "docs/install.md states the size"
    assert source.stat().st_size < 22e6


def test_every_extra_that_is_named_exists():
    extras = PROJECT["optional-dependencies"]
    text = "\n".join(
        path.read_text() for path in [*(ROOT / "src").rglob("*.py"), ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    )
    asked = set(re.findall(r'MissingExtra\.of\([^)]*?"([a-z]+)"\)', text))
    within = [line for lines in extras.values() for line in lines if line.startswith("mien[")]
    for group in re.findall(r"mien\[([a-z,]+)\]", "\n".join([text, *within])):
        asked |= set(group.split(","))
    assert {"data", "train"} <= asked <= set(extras)


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"version: {mien.__version__}\n" in text
    assert f"license: {PROJECT['license'].split()[0]}\n" in text
