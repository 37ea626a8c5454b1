"""Annotating on a local Ray of two workers gives what one machine gives."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from apps.test_annotate import _parts, encoded, paths_file, pictures, rows_in
from mien.apps.annotate.cluster import Actor, _shared
from mien.apps.annotate.places import open_place
from mien.apps.annotate.run import annotate
from mien.apps.annotate.worker import Files
from mien.runtime.store import model_file


@contextlib.contextmanager
def _ray():
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mien[ray]'")
    pytest.importorskip("ray.data")
    try:
        yield
    except Exception as error:
        if "timed out during startup" in str(error):
            pytest.skip("Ray gives up starting here after its 30 seconds: the machine is too busy")
        raise
    finally:
        ray.shutdown()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the actor to kill is found in /proc")
def test_ray_gives_what_one_machine_gives_though_a_worker_is_killed(tmp_path, monkeypatch):
    """Two workers; one waits at a pipe without a writer until the test kills it; then a picture is there."""
    pictures(tmp_path / "in", 11)
    paths = [tmp_path / "in" / f"{i:03d}.png" for i in range(11)] + [tmp_path / "pipe.png"]
    paths.insert(5, tmp_path / "none.png")
    listed = paths_file(tmp_path / "x.parquet", paths)
    (tmp_path / "pipe.png").write_bytes(encoded(30))
    settings = {"model": "ferplus-nano", "detector": "whole", "block": 3}
    annotate(listed, tmp_path / "local", workers=1, **settings)
    (tmp_path / "pipe.png").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    killer = threading.Thread(target=_kill_the_last, args=(tmp_path, killed := []))
    killer.start()
    monkeypatch.setenv("RAY_worker_niceness", "0")
    with _ray():
        found = annotate(listed, tmp_path / "ray", runner="ray", address="local", workers=2, **settings)
    killer.join()
    assert killed
    assert (found.inputs, found.failed, found.blocks) == (13, 1, 5)
    assert rows_in(tmp_path / "ray") == rows_in(tmp_path / "local")


def test_all_actors_of_a_machine_share_one_copy_of_the_model(tmp_path, monkeypatch):
    pictures(tmp_path / "in", 2)
    annotate(tmp_path / "in", tmp_path / "out", workers=1, model="ferplus-nano", detector="whole")
    model = model_file("ferplus-nano")
    _shared(open_place(tmp_path / "out"), Files(str(model), None))
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    for _ in range(3):
        Actor(str(tmp_path / "out"))
    [copy] = (tmp_path / "temp").iterdir()
    assert copy.read_bytes() == model.read_bytes()
    copy.write_bytes(b"cut off")
    Actor(str(tmp_path / "out"))
    assert copy.read_bytes() == model.read_bytes()


def _kill_the_last(tmp_path, killed, blocks=5, patience=120.0):
    """Wait until all blocks but one are done; put a picture in the pipe's place and kill the actor that waits at it."""
    until = time.monotonic() + patience
    while len(_parts(tmp_path / "ray")) < blocks - 1:
        if time.monotonic() > until:
            return
        time.sleep(0.05)
    (tmp_path / "whole.png").write_bytes(encoded(30))
    (tmp_path / "whole.png").replace(tmp_path / "pipe.png")  # at once: an actor that is late must not see half of it
    for actor in _actors(tmp_path):
        killed.append(actor)
        os.kill(actor, signal.SIGKILL)


def _actors(tmp_path) -> list[int]:
    """The processes of Ray actors that this test began: its own folder stands in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "cmdline").read_bytes().startswith(b"ray::MapWorker") and (
                str(tmp_path).encode() in (place / "environ").read_bytes()
            ):
                found.append(int(place.name))
    return found
