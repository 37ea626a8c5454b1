"""The store: fetched files are verified, failures are explained, nothing is fetched when that is forbidden."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from mien.errors import ConfigError, ModelError, ModelNotFound
from mien.runtime import store
from mien.runtime.detect import open_detector
from mien.spec import CropSpec

WEIGHTS = b"weights" * 400
ENTRY = store.Entry(
    name="e",
    kind="detector",
    file="e.onnx",
    licence="",
    about="",
    urls=("http://127.0.0.1:9/e.onnx",),  # the discard port: nobody answers
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    size=len(WEIGHTS),
    variable="MIEN_TEST_FILE",
)


@pytest.fixture
def address(monkeypatch):
    """A local server: /good, /other (another hash), /short (cut off), anything else is missing; counts its requests."""
    monkeypatch.delenv("MIEN_OFFLINE")
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = {"/good": WEIGHTS, "/other": b"login page" * 280, "/short": WEIGHTS}.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:100] if self.path == "/short" else body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield Address(f"http://127.0.0.1:{running.server_port}", asked)
        running.shutdown()


class Address(str):
    def __new__(cls, text, asked):
        made = super().__new__(cls, text)
        made.asked = asked
        return made


def cached() -> list[str]:
    folder = store.cache_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_is_fetched_once(address):
    paths = [store.fetch(ENTRY, [f"{address}/good"]) for _ in range(2)]
    assert paths[0] == paths[1] == store.cache_folder() / "e.onnx"
    assert paths[0].read_bytes() == WEIGHTS
    assert address.asked == ["/good"]


@pytest.mark.parametrize("first", ["short", "missing"])
def test_the_next_address_is_tried(first, address):
    assert store.fetch(ENTRY, [f"{address}/{first}", f"{address}/good"]).read_bytes() == WEIGHTS


def test_another_hash_is_an_error_and_nothing_is_kept(address):
    with pytest.raises(ModelError, match=r"other: sha256 .*not used; is there a login page"):
        store.fetch(ENTRY, [f"{address}/other", f"{address}/good"])
    assert cached() == []
    assert address.asked == ["/other"]


@pytest.mark.parametrize(("path", "why"), [("short", "cut off after 100 of 2800 bytes"), ("missing", "Not Found")])
def test_a_failure_says_why_and_how_to_do_it_by_hand(path, why, address):
    with pytest.raises(ModelNotFound, match=rf"{why}.*place e.onnx in .*cache by hand, or set MIEN_TEST_FILE"):
        store.fetch(ENTRY, [f"{address}/{path}"])
    assert cached() == []


def test_nobody_answers(monkeypatch):
    monkeypatch.delenv("MIEN_OFFLINE")
    with pytest.raises(ModelNotFound, match="refused"):
        store.fetch(ENTRY)


def test_a_cache_that_cannot_be_written_is_no_crash(address, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelNotFound, match="Not a directory"):
        store.fetch(ENTRY, [f"{address}/good"])


@pytest.mark.parametrize("word", ["1", "true", "Yes"])
def test_offline_nothing_is_asked_for(address, monkeypatch, word):
    monkeypatch.setenv("MIEN_OFFLINE", word)
    with pytest.raises(ModelNotFound, match="offline"):
        store.fetch(ENTRY, [f"{address}/good"])
    assert address.asked == []


def test_a_local_file_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("MIEN_TEST_FILE", str(tmp_path / "mine.onnx"))
    with pytest.raises(ModelNotFound, match="no such file"):
        store.fetch(ENTRY)
    (tmp_path / "mine.onnx").write_bytes(b"another hash")
    assert store.fetch(ENTRY) == tmp_path / "mine.onnx"


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/mien"),
        ("linux", {"HOME": "/h"}, "/h/.cache/mien"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/mien"),
        ("linux", {"MIEN_CACHE": "/c"}, "/c"),
    ],
)
def test_each_system_has_its_cache_folder(platform, variables, place, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    for name in ("MIEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(store.cache_folder()) == place


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_user_without_a_home_has_a_cache_all_the_same(platform, monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("sys.platform", platform)
    for name in ("MIEN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert store.cache_folder().is_relative_to(tmp_path)


def test_yunet_comes_from_its_variable(yunet_file, monkeypatch):
    monkeypatch.setenv("MIEN_YUNET", str(yunet_file))
    assert open_detector("yunet", CropSpec(width=48, height=48)).spec.name == "yunet"


def test_the_pinned_hash_is_that_of_the_file(yunet_file):
    data = yunet_file.read_bytes()
    entry = store.ENTRIES["yunet"]
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry.sha256, entry.size)


def test_a_detector_file_is_never_replaced(tmp_path):
    (tmp_path / "d.onnx").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match=r"d\.onnx: not a readable ONNX file"):
        open_detector("auto", CropSpec(width=48, height=48), file=tmp_path / "d.onnx")
    with pytest.raises(ModelNotFound, match=r"gone\.onnx"):
        open_detector("auto", CropSpec(width=48, height=48), file=tmp_path / "gone.onnx")
    with pytest.raises(ConfigError, match="choose from"):
        open_detector("zebra", CropSpec(width=48, height=48))
