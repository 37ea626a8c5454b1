"""The command line, as a person types it; and the whole journey from data to prediction."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from builders import a_video, drawn_face
from mien.cli import main
from mien.faces import ImageRecord
from test_data import write_parquet


def mien(*words, **options) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    code = "from mien.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, **options)


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), drawn_face(128))
    return tmp_path / "face.png"


def test_from_data_to_prediction(tmp_path, picture):
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data")
    settings = [
        "network.backbone=mien-nano",
        "schedule.epochs=1",
        "schedule.warmup=0",
        "trainer.batch=8",
        "data.validation=0.2",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = mien(
        "train", "ferplus-small", "--data", tmp_path / "data", "--out", tmp_path / "run", "--threads", 1, *words
    )
    assert done.returncode == 0, done.stderr
    done = mien("export", tmp_path / "run", "--out", tmp_path / "m.onnx", "--data", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "apparent" in (tmp_path / "m.md").read_text()
    spec = json.loads((tmp_path / "m.json").read_text())
    judged = [
        mien("evaluate", m, "--data", tmp_path / "data", "--json") for m in (tmp_path / "run", tmp_path / "m.onnx")
    ]
    scores = [json.loads(done.stdout)["scores"]["expression"] for done in judged]
    assert scores[0]["confusion"] == scores[1]["confusion"]
    assert spec["metrics"]["ferplus/PublicTest/majority/accuracy"] == round(scores[1]["accuracy"], 5)
    done = mien("predict", picture, "--model", tmp_path / "m.onnx", "--detector", "whole", "--json")
    record = msgspec.json.decode(done.stdout, type=ImageRecord)
    assert abs(sum(record.faces[0].expression.probabilities.values()) - 1) < 1e-3


def test_predict_prints_clean_json_and_goes_on_after_a_bad_image(tmp_path, picture):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    done = mien("predict", tmp_path / "bad.jpg", picture, "--detector", "whole", "--json", "--save", tmp_path / "out")
    assert done.returncode == 1
    lines = [msgspec.json.decode(line, type=ImageRecord) for line in done.stdout.splitlines()]
    assert [(line.image, line.error is None) for line in lines] == [
        (str(tmp_path / "bad.jpg"), False),
        (str(picture), True),
    ]
    assert "bad.jpg: is not an image" in done.stderr
    assert "1 of 2 images could not be read" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["face.jpg"]
    done = mien("predict", picture, "--save", tmp_path / "out")
    assert (done.returncode, "exists already" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "{}/empty"], "a folder without images"),
        (["predict", "{}/none*.jpg"], "no file matches"),
        (["predict", "{}/none.jpg", "--detector", "whole"], "1 of 1 images could not be read"),
        (["predict", "{}/empty", "--model", "nonsense"], "a folder without images"),
        (["predict", "{}/face.png", "--model", "nonsense"], "no model of that name"),
        (["watch", "{}/text.mp4"], "cannot be read as a video"),
        (["watch", "97"], "camera 97: does not answer"),
        (["models", "where", "yunett"], "did you mean 'yunet'"),
        (["train", "ferplus-smal", "--data", "{}", "--out", "{}/run"], "did you mean 'ferplus-small'"),
        (["train", "ferplus-small", "--data", "{}", "--out", "{}/run"], "no FER2013 here"),
        (["evaluate", "ferplus-small", "--data", "{}", "--split", "PublicTst"], "did you mean 'PublicTest'"),
    ],
)
@pytest.mark.usefixtures("picture")
def test_what_cannot_be_done_is_one_line(words, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("I am text")
    done = mien(*(word.format(tmp_path) for word in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_watch_writes_table_and_video(tmp_path):
    times = a_video(tmp_path / "a.mp4", count=5)
    words = [
        "watch",
        tmp_path / "a.mp4",
        "--detector",
        "whole",
        "--table",
        tmp_path / "t.csv",
        "--save",
        tmp_path / "o.mp4",
    ]
    done = mien(*words)
    assert done.returncode == 0, done.stderr
    assert "5 frames, 5 faces" in done.stdout
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert np.allclose([float(row["seconds"]) for row in rows], times, atol=2e-3)
    assert (tmp_path / "o.mp4").stat().st_size > 500
    assert mien(*words).returncode == 2


def test_a_cut_off_video_keeps_what_was_decoded(tmp_path):
    a_video(tmp_path / "a.mp4", count=60)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: int(len(data) * 0.7)])
    done = mien("watch", tmp_path / "b.mp4", "--detector", "whole", "--table", tmp_path / "t.jsonl")
    assert done.returncode == 1
    assert "what was decoded is kept" in done.stderr
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) > 0


def test_the_photographs_through_the_command(test_data, yunet_file):
    photos = sorted((test_data / "photos").glob("*.jpg"))
    done = mien("predict", *photos, "--json", "--detector", "yunet", "--detector-file", yunet_file)
    assert [len(json.loads(line)["faces"]) for line in done.stdout.splitlines()] == [6, 1, 1, 3]


def test_the_shipped_models_card_is_made_again_by_its_command(test_data, tmp_path):
    out, data = tmp_path / "card.md", test_data / "fer2013"
    done = mien("evaluate", "ferplus-small", "--data", data, "--split", "PublicTest", "--card", out, "--json")
    assert done.returncode == 0, done.stderr
    accuracy = json.loads(done.stdout)["scores"]["expression"]["accuracy"]
    shipped = Path(mien("models", "where", "ferplus-small").stdout.strip())
    spec = json.loads(shipped.with_suffix(".json").read_text())
    assert abs(accuracy - spec["metrics"]["ferplus/PublicTest/majority/accuracy"]) < 1e-3
    number = re.compile(r"\d[\d,]*\.?\d*")
    made = out.read_text().replace(str(data), "FER2013")
    kept = shipped.with_suffix(".md").read_text().replace(" --without-copies", "")
    kept = re.sub(r"\| accuracy without .*\n", "", kept)  # looking for copies takes a minute
    assert number.sub("#", made) == number.sub("#", kept)
    told, wanted = ([float(word.replace(",", "")) for word in number.findall(text)] for text in (made, kept))
    assert np.allclose(told, wanted, atol=0.3)  # another processor may turn a face or two


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["show", "ferplus-small"],
        ["doctor", "--json"],
        ["predict", "PHOTO"],
        ["predict", "PHOTO", "--json"],
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_answer_that_cannot_be_printed_is_one_line(words, unbuffered):
    photo = str(Path(__file__).parent.parent / "examples" / "eileen_collins.jpg")
    words = [photo if word == "PHOTO" else word for word in words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mien", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    why = "the answer cannot be printed (No space left on device); make room, or print it elsewhere"
    assert (done.returncode, done.stderr) == (2, f"mien: error: {why}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe that is closed")
def test_a_reader_that_left_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "mien", "--version"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


class OnWindows:
    """A module as Windows has it."""

    def __init__(self, module, **changed):
        self.__dict__.update(changed)
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["annotate", "*.jpg"], ["*.jpg"]),
        (["watch", "a[1].jpg"], ["a[1].jpg"]),
        (["watch", "~/a.jpg"], ["HOME/a.jpg"]),
        (
            ["compare", "*.jpg", "ferplus-nano", "a[1].jpg", "?.x"],
            ["a1.jpg", "a[1].jpg", "ferplus-nano", "a[1].jpg", "?.x"],
        ),
    ],
)
def test_on_windows_patterns_are_for_the_verbs_that_take_several(words, given, tmp_path, monkeypatch):
    import typer.core

    got = []

    def verb(files: list[str]) -> None:
        got.extend(files)

    for name in ("a1.jpg", "a[1].jpg"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "HOME")
    monkeypatch.setattr("mien.cli.sys", OnWindows(sys, platform="win32", argv=["mien", *words]))
    monkeypatch.setattr(typer.core, "os", OnWindows(os, name="nt"))
    monkeypatch.setattr(f"mien.cli.{words[0]}.{words[0]}", verb)
    with pytest.raises(SystemExit, match="0"):
        main()
    assert got == given


class ClosedPipe(OnWindows):
    """What is printed there nobody reads any more."""

    def flush(self):
        raise OSError(errno.EINVAL, "Invalid argument")


def test_a_closed_pipe_of_windows_is_no_bug_and_another_invalid_argument_is_one(monkeypatch):
    def bug(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("mien.cli.command_line", lambda _: bug)
    monkeypatch.setattr("mien.cli._print_no_more", lambda: None)
    there = {"platform": "win32", "argv": ["mien", "models", "list"]}
    monkeypatch.setattr("mien.cli.sys", OnWindows(sys, **there, stdout=ClosedPipe(sys.stdout)))
    with pytest.raises(SystemExit, match="1"):
        main()
    monkeypatch.setattr("mien.cli.sys", OnWindows(sys, **there))
    with pytest.raises(OSError, match="Invalid argument"):
        main()
