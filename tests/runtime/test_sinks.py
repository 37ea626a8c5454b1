"""Sinks: the forms they write, and what they leave when something goes wrong."""

import csv
import io
import json
import resource
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from builders import LABELS, a_face, an_expression, drawn_face
from mien.errors import ConfigError, OutputError, VideoError
from mien.faces import Frame
from mien.runtime.classify import Classifier
from mien.runtime.fakes import FakeSession
from mien.runtime.sinks import LiveTable, TableSink, VideoSink, open_table
from mien.runtime.subtitles import subtitles_of
from mien.runtime.times import Times
from mien.vision.video import video_info

FRAME = Frame(drawn_face(), 7, 0.28)


@contextmanager
def a_disk_of(size: int):
    """Files may not grow beyond this many bytes, as on a disk that fills."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.mp4"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(name, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    path = tmp_path / name
    sink = VideoSink(path, 25) if name.endswith("mp4") else open_table(path, LABELS)
    noise = np.random.default_rng(0)
    with pytest.raises(OutputError, match=rf"{name}: cannot be written"), a_disk_of(20_000), sink:
        for index in range(300):
            image = noise.integers(0, 255, (96, 96, 3)).astype(np.uint8)
            sink.write(Frame(image, index, index / 25), [a_face()])
    assert list(tmp_path.iterdir()) == []


def test_the_columns_are_those_documented(tmp_path):
    face = a_face(landmarks=np.arange(10, dtype=np.float32).reshape(5, 2), track=4)
    with TableSink(tmp_path / "t.csv", LABELS, image="clip.mp4") as sink:
        sink.write(FRAME, [face, a_face()])
    with (tmp_path / "t.csv").open() as file:
        first, second = csv.DictReader(file)
    fixed = [
        "image",
        "index",
        "seconds",
        "face",
        "track",
        "x0",
        "y0",
        "x1",
        "y1",
        "score",
        "label",
        "confidence",
        "certain",
        "valence",
        "arousal",
    ]
    points = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    assert list(first) == [
        *fixed,
        *(f"p_{name}" for name in LABELS),
        *(f"{p}_{axis}" for p in points for axis in "xy"),
        "model",
        "smoothing",
        "table_version",
    ]
    assert (first["image"], first["face"], first["track"], second["face"], second["track"]) == (
        "clip.mp4",
        "0",
        "4",
        "1",
        "",
    )
    assert (first["left_eye_x"], first["right_mouth_y"], second["nose_x"]) == ("0.0", "9.0", "")
    assert sum(float(first[f"p_{name}"]) for name in LABELS) == pytest.approx(1, abs=1e-3)


def test_a_video_that_breaks_keeps_its_table(tmp_path):
    with pytest.raises(VideoError), TableSink(tmp_path / "t.jsonl", LABELS, image="a.mp4") as sink:
        sink.write(FRAME, [])
        raise VideoError("cut off")
    [row] = map(json.loads, (tmp_path / "t.jsonl").read_text().splitlines())
    assert (row["image"], row["index"], row["seconds"], row["face"], row["label"]) == ("a.mp4", 7, 0.28, None, None)


@pytest.mark.parametrize("name", ["t.xlsx", "t"])
def test_another_form_of_table_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r"use \.csv, \.jsonl or \.parquet"):
        open_table(tmp_path / name, LABELS)


def test_no_folder_is_an_error_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        open_table(tmp_path / "none" / "t.csv", LABELS)


def test_the_live_table_shows_the_faces_in_view():
    screen = io.StringIO()
    with LiveTable(Console(file=screen, force_terminal=True, width=80)) as table:
        table.write(FRAME, [a_face(expression=an_expression("fear", 0.62)), a_face(expression=None)])
    text = screen.getvalue()
    assert "fear" in text
    assert "62%" in text
    assert "frame 7, 2 faces" in text


DOUBTED = replace(an_expression("fear", 0.62), threshold=0.7)


def test_the_live_table_says_what_is_not_certain():
    screen = io.StringIO()
    with LiveTable(Console(file=screen, force_terminal=True, width=80)) as table:
        table.write(FRAME, [a_face(expression=DOUBTED)])
    assert "fear (not certain)" in screen.getvalue()


def test_subtitles_say_what_is_not_certain(tmp_path):
    sure = an_expression("fear", 0.62)
    with TableSink(tmp_path / "t.csv", LABELS) as sink:
        for number in range(20):
            doubted = number < 8 or number >= 18
            sink.write(
                Frame(FRAME.image, number, number / 10), [a_face(track=1, expression=DOUBTED if doubted else sure)]
            )
    subtitles_of(tmp_path / "t.csv", tmp_path / "t.srt", overwrite=False, saved=False)
    lines = (tmp_path / "t.srt").read_text().splitlines()
    assert lines[1:3] == ["00:00:00,000 --> 00:00:01,000", "person 1: fear (not certain)"]
    assert lines[5:7] == ["00:00:01,000 --> 00:00:02,000", "person 1: fear"]


def test_drawing_counts_as_drawing(tmp_path):
    times = Times()
    with times.stage("write"), VideoSink(tmp_path / "t.mp4", 25, times=times) as sink:
        sink.write(FRAME, [a_face()])
    assert set(times.seconds) == {"write", "draw", "encode"}


def test_a_stage_within_a_stage_counts_once(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    times = Times()
    with times.stage("outer"), times.stage("inner"):
        pass
    assert dict(times.seconds) == {"inner": 3.0, "outer": 7.0}


def test_every_face_keeps_its_own_answer():
    """Faces, order and answers stay together, whatever the batch: the light of the chip is the answer."""

    def answer(chips):
        light = chips.mean(axis=(1, 2, 3)) / 255
        rest = np.repeat(((1 - light) / 7)[:, None], 7, axis=1)
        return np.hstack([rest, light[:, None]]).astype(np.float32), np.zeros((len(chips), 2), np.float32)

    image = np.repeat(np.repeat(np.arange(0, 250, 25, dtype=np.uint8), 20)[None, :, None], 20, axis=0).repeat(3, axis=2)
    faces = [a_face(box=(20.0 * i + 5, 5.0, 20.0 * i + 15, 15.0), expression=None) for i in (7, 2, 9, 0, 4)]
    for batch in (1, 2, 64):
        read = Classifier(FakeSession(answer=answer), batch)(image, faces)
        assert [face.box for face in read] == [face.box for face in faces]
        assert np.allclose([face.expression.probabilities[7] * 255 for face in read], [175, 50, 225, 0, 100], atol=1)


def test_a_name_in_capitals_is_another_file(tmp_path):
    """Where a capital is another letter: neither the parts of t.mp4 nor its file aside are those of t.MP4."""
    (tmp_path / "a").touch()
    if (tmp_path / "A").exists():
        pytest.skip("one file on this disk")
    face = a_face(expression=an_expression())
    with VideoSink(tmp_path / "t.mp4", 25) as one, VideoSink(tmp_path / "t.MP4", 25) as other:
        for i in range(4):
            one.write(Frame(np.zeros((48, 64, 3), np.uint8), i, i / 25), [face])
            other.write(Frame(np.zeros((32, 32, 3), np.uint8), i, i / 25), [face])
    assert [video_info(tmp_path / name)[:3] for name in ("t.mp4", "t.MP4")] == [(64, 48, 4), (32, 32, 4)]
