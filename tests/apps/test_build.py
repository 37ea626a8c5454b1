"""A wheel holds the whole page; and bringing the engine in is whole or not at all."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def build():
    """The build step, as a module."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("engine")
def test_a_wheel_holds_the_page(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    page = {path.name for path in (ROOT / "src/mien/apps/web").iterdir() if path.is_file()}
    assert {f"mien/apps/web/{name}" for name in page} <= names
    vendor = {"ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm", "LICENSE.txt"}
    assert {f"mien/apps/web/vendor/{name}" for name in vendor} <= names
    assert "mien/apps/web/example.jpg" in names
    assert not any("node_modules" in name for name in names)


def a_web(folder):
    web = folder / "web"
    web.mkdir()
    for name in ("package.json", "package-lock.json"):
        (web / name).write_bytes((ROOT / "src/mien/apps/web" / name).read_bytes())
    return web


def test_the_engine_is_taken_whole_and_renewed_when_the_pin_moves(build, tmp_path):
    web, source = a_web(tmp_path), tmp_path / "dist"
    source.mkdir()
    (source / build.FILES[0]).write_text("one")
    with pytest.raises(OSError, match=build.FILES[1]):
        build.take(source, web)
    assert sorted(path.name for path in web.iterdir()) == ["package-lock.json", "package.json"]
    (source / build.FILES[1]).write_text("two")
    build.take(source, web)
    assert build.up_to_date(web)
    assert "onnxruntime-web 1." in (web / "vendor" / "LICENSE.txt").read_text()
    (web / "package-lock.json").write_text("{}")
    assert not build.up_to_date(web)


def test_without_npm_the_page_is_left_as_it_was(build, tmp_path, monkeypatch):
    web = a_web(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="npm"):
        build.vendor(web)
    assert not (web / "vendor").exists()


def test_the_lock_names_every_hash_and_no_host():
    text = (ROOT / "src/mien/apps/web/package-lock.json").read_text()
    assert text.count('"version"') == text.count('"integrity"')
    assert "://" not in text
