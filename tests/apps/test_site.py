"""The page as files: which models it can read with, and where it is written."""

import errno
import itertools
import json
import re
from pathlib import Path

import onnx
import pytest

from apps.test_server import CLIENT, Server
from mien.apps.page import site, unfit, write_site
from mien.errors import ConfigError, OutputError
from mien.runtime.classify import Classifier
from mien.runtime.fakes import FakeDetector, FakeSession
from mien.runtime.read import Reader, load
from mien.runtime.store import ENTRIES, locate, model_file
from mien.spec import CropSpec, ModelSpec
from test_runtime import a_model

MODEL, DETECTOR = model_file("ferplus-nano"), locate(ENTRIES["mien-face"])


def of_four(path):
    """A model file that takes exactly four chips."""
    model = onnx.load(a_model(path))
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    return path


def masked():
    crop = CropSpec(width=8, height=8, mask="hull")
    return FakeSession(spec=ModelSpec(name="masked", labels=("happiness", "y"), crop=crop))


def test_a_model_that_no_browser_can_run_is_no_page(mien, tmp_path):
    of_four(tmp_path / "four.onnx")
    code, _, said = mien("page", "site", "--model", "four.onnx", "--detector", "whole")
    assert (code, "the file of tiny exactly 4; give another model" in said) == (2, True)
    reader = Reader(FakeDetector([]), Classifier(masked()))
    with pytest.raises(
        ConfigError, match=r"cannot cut chips as masked wants them \(crop.mask=hull\); give another model"
    ):
        write_site(tmp_path / "site", reader, MODEL, None)
    assert not (tmp_path / "site").exists()
    assert unfit(load("ferplus-nano", threads=1)) == ""


def test_the_server_reads_for_a_page_that_cannot(tmp_path):
    of_four(tmp_path / "four.onnx")
    about = site(load(str(tmp_path / "four.onnx"), "whole", 1), max_bytes=1)
    assert (about.engine, about.server) == (False, True)
    assert about.missing.endswith("the file of tiny exactly 4")
    with Server(tmp_path, "--model", "four.onnx") as server:
        assert CLIENT.get(f"{server.url}/page.json").json()["missing"] == about.missing
    assert "exactly 4; so the page sends its pictures to this server" in server.log.read_text()


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.usefixtures("engine")
def test_a_site_is_written_into_a_folder_that_is_there(mien, tmp_path):
    """It stays the same folder: somebody may stand in it, or it is a volume."""
    before = tmp_path.stat().st_ino
    code, said, trouble = mien("page", ".", "--model", "ferplus-nano")
    assert (code, said[:10], trouble) == (0, "written: .", "")
    assert {"index.html", "page.json", "vendor/LICENSE.txt", "models/model.onnx"} <= set(names(tmp_path))
    (tmp_path / "main.js").write_text("older")
    first = names(tmp_path)
    for former in ("vendor/ort.wasm.bundle.min.mjs", "models/detector.onnx"):
        (tmp_path / former).write_text("of an older mien, or of another detector")
    assert mien("page", ".", "--overwrite", "--model", "ferplus-nano")[0] == 0
    assert names(tmp_path) == first
    assert (tmp_path / "main.js").read_text() != "older"
    assert tmp_path.stat().st_ino == before


@pytest.mark.usefixtures("engine")
def test_what_the_system_puts_on_a_volume_is_in_nobody_s_way(tmp_path):
    reader, site = load("ferplus-nano", "whole", 1), tmp_path / "site"
    (site / "lost+found").mkdir(parents=True)
    kept = [site / ".DS_Store", site / "lost+found" / "#12"]
    for path in kept:
        path.write_text("the system's")
    write_site(site, reader, MODEL, None)
    (site / "models" / ".DS_Store").write_text("the system's")
    write_site(site, reader, MODEL, None, overwrite=True)
    assert [path.read_text() for path in kept] == ["the system's"] * 2
    (site / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds mine.txt, which is no part of the page"):
        write_site(site, reader, MODEL, None, overwrite=True)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("fails_at", [1, 20, 40])
def test_a_site_that_cannot_be_replaced_stays(fails_at, monkeypatch, tmp_path):
    reader, rename, count = load("ferplus-nano", "whole", 1), Path.rename, itertools.count(1)
    write_site(tmp_path / "site", reader, MODEL, None)
    (tmp_path / "site" / "main.js").write_text("older")
    before = names(tmp_path)

    def fails_once(path, target):
        if next(count) == fails_at:
            raise OSError(errno.EIO, "the disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OutputError, match="cannot be written"):
        write_site(tmp_path / "site", reader, MODEL, None, overwrite=True)
    assert names(tmp_path) == before
    assert (tmp_path / "site" / "main.js").read_text() == "older"


def test_without_its_engine_the_page_says_what_is_missing(tmp_path, monkeypatch):
    reader = load(threads=1)
    about = site(reader, web=tmp_path)
    assert not about.engine
    assert "run: make web" in about.missing
    monkeypatch.setattr("mien.apps.page.engine_missing", lambda _=None: about.missing)
    with pytest.raises(ConfigError, match="run: make web"):
        write_site(tmp_path / "site", reader, MODEL, DETECTOR)
    assert not (tmp_path / "site").exists()


@pytest.mark.usefixtures("engine")
def test_the_command_writes_a_site_whole_and_spares_what_is_there(mien, tmp_path):
    code, said, _ = mien("page", "site")
    assert code == 0
    assert re.search(r"written: site \(\d\d\.\d MB\)", said)
    files = {str(path.relative_to("site")) for path in Path("site").rglob("*") if path.is_file()}
    assert {"index.html", "main.js", "page.json", "vendor/LICENSE.txt", "models/model.onnx"} <= files
    assert json.loads(Path("site/page.json").read_text())["server"] is False
    assert "pass --overwrite" in mien("page", "site")[2]
    assert mien("page", "site", "--overwrite")[0] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "holds letter.txt, which is no part of the page" in mien("page", "mine", "--overwrite")[2]
    (tmp_path / "site" / ".git").mkdir()
    (tmp_path / "site" / ".git" / "HEAD").touch()
    assert "holds .git/HEAD, which is no part of the page" in mien("page", "site", "--overwrite")[2]
    assert "no folder" in mien("page", "a/b")[2]
    with pytest.raises(OutputError, match="is a file"):
        write_site(tmp_path / "mine" / "letter.txt", load(threads=1), MODEL, DETECTOR, overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
