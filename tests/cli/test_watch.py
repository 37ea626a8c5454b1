"""mien watch: outputs, Ctrl-C, and what is refused before any work."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime

import cv2
import numpy as np
import pytest

from builders import a_video, drawn_face
from mien.alone import alone
from mien.cli import main
from mien.errors import OutputError
from mien.faces import Frame
from mien.runtime.table import TableSink
from mien.vision.image import read_image
from mien.vision.video import VideoInfo, VideoWriter, frames
from test_runtime import a_model

#: A shell that starts the tests in the background lets them ignore SIGINT, and children inherit that.
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mien.cli import main; main()"
OPTIONS = ["--model", "tiny.onnx", "--detector", "whole", "--threads", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tiny.onnx and a.mp4 (6 frames), made the current one."""
    a_model(tmp_path / "tiny.onnx")
    a_video(tmp_path / "a.mp4", count=6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def watch(folder, monkeypatch, capsys):  # noqa: ARG001 - the folder is where it runs
    """Run `mien watch ...`: (exit code, stdout, stderr)."""

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mien", "watch", *map(str, words), *OPTIONS])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_hidden_pictures_are_no_frames(watch, folder):
    (folder / "frames").mkdir()
    for name in ("f1.png", "f2.png"):
        cv2.imwrite(str(folder / "frames" / name), drawn_face(64))
        (folder / "frames" / f"._{name}").write_bytes(b"what macOS keeps beside it")
    code, _, err = watch("frames", "--rate", 1, "--table", "t.csv")
    assert code == 0, err
    assert [(row["index"], row["seconds"]) for row in rows("t.csv")] == [("0", "0.0"), ("1", "1.0")]


def rows(path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_every_second_frame_keeps_its_time(watch):
    code, out, _ = watch("a.mp4", "--table", "t.csv", "--save", "o.mp4", "--every", 2)
    assert code == 0
    assert [row["index"] for row in rows("t.csv")] == ["0", "2", "4"]
    assert {row["image"] for row in rows("t.csv")} == {"a.mp4"}
    assert np.allclose([frame.seconds for frame in frames("o.mp4")], [0, 0.08, 0.16], atol=2e-3)
    assert all(stage in out for stage in ("decode", "detect", "classify", "draw", "write", "frames a second"))


def test_what_exists_is_refused_before_any_work(watch, folder):
    (folder / "t.csv").write_text("mine")
    code, out, err = watch("a.mp4", "--table", "t.csv", "--save", "o.mp4")
    assert (code, out, (folder / "t.csv").read_text()) == (2, "", "mine")
    assert "exists already" in err
    assert not (folder / "o.mp4").exists()
    assert watch("a.mp4", "--table", "t.csv", "--overwrite")[0] == 0
    assert len(rows("t.csv")) == 6


def test_the_video_itself_is_never_replaced(watch, folder):
    before = (folder / "a.mp4").read_bytes()
    code, _, err = watch("a.mp4", "--save", "a.mp4", "--overwrite")
    assert (code, "is the video to read" in err) == (2, True)
    assert (folder / "a.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "name"), [("--table", "t.csv"), ("--save", "o.mp4"), ("--subtitles", "o.srt"), ("--report", "o.html")]
)
def test_a_second_run_into_the_same_file_is_refused(option, name, watch, folder):
    if option == "--report":
        pytest.importorskip("jinja2", reason="no reports without the extra data")
    place = folder / name
    with alone(place, "", ""):
        before = sorted(folder.iterdir())
        code, out, err = watch("a.mp4", option, name, "--overwrite")
        assert (code, out, err.count("\n")) == (2, "", 1)
        who = f"(process {os.getpid()} on {socket.gethostname()})"
        assert f"{name}: another run writes it {who}; wait for it, or choose another name" in err
        assert sorted(folder.iterdir()) == before
        assert watch("a.mp4", option, f"other-{name}")[0] == 0
    assert watch("a.mp4", option, name)[0] == 0
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(("option", "name"), [("--save", "o.avi"), ("--table", "t.xlsx"), ("--table", "none/t.csv")])
def test_other_forms_and_places_are_one_line(option, name, watch):
    code, _, err = watch("a.mp4", option, name)
    assert (code, err.count("\n")) == (2, 1)


def test_ctrl_c_at_a_camera_ends_well_and_keeps_the_table(watch, monkeypatch):
    def camera(source, *_):
        assert source == 0
        for index in range(3):
            yield Frame(drawn_face(), index, index / 30)
        raise KeyboardInterrupt

    monkeypatch.setattr("mien.vision.video.video_info", lambda *_: VideoInfo(96, 96, None, None, 30.0))
    monkeypatch.setattr("mien.vision.video.frames", camera)
    code, out, err = watch(0, "--table", "t.csv")
    assert code == 0
    assert 1 <= len(rows("t.csv")) <= 3  # a camera's frames that come too fast are let go
    assert f"interrupted after {len(rows('t.csv'))} frames" in err
    assert "written: t.csv" in out


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_real_ctrl_c_keeps_a_table_and_a_video_that_plays(folder):
    a_video(folder / "long.mp4", count=2000, size=(320, 240))
    words = ["watch", "long.mp4", "--save", "o.mp4", "--table", "t.csv", *OPTIONS]
    started = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.glob(".t.csv.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    assert "interrupted after" in err
    assert "Traceback" not in err
    kept = rows("t.csv")
    assert 0 < len(kept) < 2000
    assert abs(len(list(frames("o.mp4"))) - len(kept)) <= 1
    assert "written: o.mp4" in out
    assert not list(folder.glob(".*part*"))


def test_a_clip_of_real_people_is_read(test_data, tmp_path, monkeypatch, capsys):
    """Zooms over the photographs: every frame of a portrait has its face, and the smile is seen."""
    photo = cv2.resize(read_image(test_data / "photos" / "portrait_1.jpg"), (480, 600), interpolation=cv2.INTER_AREA)
    with VideoWriter(tmp_path / "clip.mp4", 480, 480, rate=10) as writer:
        for i in range(10):
            side = 480 - 12 * i
            part = photo[20 : 20 + side, 5 * i : 5 * i + side]
            writer.write(cv2.resize(part, (480, 480), interpolation=cv2.INTER_AREA), i * 0.1 + (0.05 if i > 4 else 0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["mien", "watch", "clip.mp4", "--table", "t.csv", "--save", "o.mp4", "--threads", "1"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    seen = rows(tmp_path / "t.csv")
    assert {row["index"] for row in seen} == {str(i) for i in range(10)}
    assert [row["label"] for row in seen].count("happiness") >= 8
    assert np.isclose(float(seen[-1]["seconds"]), 0.95, atol=0.01)
    assert len(list(frames(tmp_path / "o.mp4"))) == 10


def a_camera(monkeypatch, end, seconds=1 / 30):
    """A camera that gives three frames and then calls `end`."""

    def camera(*_):
        for index in range(3):
            time.sleep(0.02)  # let none go
            yield Frame(drawn_face(), index, index * seconds)
        end()

    monkeypatch.setattr("mien.vision.video.video_info", lambda *_: VideoInfo(96, 96, None, None, 30.0))
    monkeypatch.setattr("mien.vision.video.frames", camera)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_service_that_is_stopped_keeps_the_table_of_a_camera(name, watch, monkeypatch):
    number = getattr(signal, name)
    old = signal.signal(number, signal.SIG_DFL)  # pytest is not to end if nobody listens
    signal.signal(number, lambda *_: None)
    try:

        def end():
            os.kill(os.getpid(), number)
            time.sleep(0.5)

        a_camera(monkeypatch, end)
        code, out, err = watch(0, "--table", "t.jsonl")
        assert (code, "interrupted after" in err) == (0, True), err
        assert "written: t.jsonl" in out
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN), "as it was before"
    finally:
        signal.signal(number, old)


@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_what_a_killed_reading_of_a_camera_left_is_kept(end, watch, folder, monkeypatch):
    (folder / f".t{end}.part").write_text("image,index\n0,0\n0,1\n0,", encoding="utf-8")
    (folder / "t-kept-1.csv").write_text("earlier", encoding="utf-8")
    with VideoWriter(folder / "part.mp4", 96, 96) as part:
        part.write(drawn_face(), 0.0)
    (folder / ".o.mp4.parts").mkdir()
    (folder / "part.mp4").rename(folder / ".o.mp4.parts" / "00000000000000.mp4")
    a_camera(monkeypatch, lambda: None)
    code, _, err = watch(0, "--table", f"t{end}", "--save", "o.mp4")
    assert code == 0, err
    assert "t-kept-2.csv: what an earlier run read before it was killed" in err
    assert (folder / "t-kept-2.csv").read_text() == "image,index\n0,0\n0,1\n", "whole rows alone"
    assert len(list(frames(folder / "o-kept-1.mp4"))) == 1
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_rows_of_a_camera_are_on_the_disk_every_ten_seconds(watch, folder, monkeypatch):
    sizes = [0]

    def end():
        until = time.monotonic() + 10
        while not sizes[-1] and time.monotonic() < until:
            time.sleep(0.01)
            sizes.append((folder / ".t.csv.part").stat().st_size if (folder / ".t.csv.part").exists() else 0)

    a_camera(monkeypatch, end, seconds=10.0)
    assert watch(0, "--table", "t.csv")[0] == 0
    assert sizes[-1] > 0


def test_a_full_disk_in_the_midst_of_a_camera_keeps_the_rows_before(watch, folder, monkeypatch):
    real, count = TableSink.write, iter(range(9))

    def write(self, frame, faces):
        if next(count) == 2:
            raise OutputError(f"{self.path}: cannot be written (No space left on device)")
        real(self, frame, faces)

    monkeypatch.setattr(TableSink, "write", write)
    a_camera(monkeypatch, lambda: None)
    code, out, err = watch(0, "--table", "t.parquet", "--save", "o.mp4")
    assert (code, "No space left" in err) == (1, True), err
    assert "t-kept-1.csv: what was read so far" in err
    assert len(rows(folder / "t-kept-1.csv")) == 2
    assert "written: o.mp4" in out


def test_a_camera_says_when_it_began_and_how_many_frames_were_let_go(watch, monkeypatch):
    def camera(*_):
        for index in (0, 4, 5):
            time.sleep(0.02)
            yield Frame(drawn_face(), index, index / 30)

    monkeypatch.setattr("mien.vision.video.video_info", lambda *_: VideoInfo(96, 96, None, None, 30.0))
    monkeypatch.setattr("mien.vision.video.frames", camera)
    _, out, err = watch(0, "--table", "t.csv")
    told = re.search(r"0: second 0 is (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d)", err)
    assert told
    assert abs(datetime.fromisoformat(told[1]).timestamp() - time.time()) < 30
    assert f"; {6 - len(rows('t.csv'))} more came faster than they could be read and were let go" in out
