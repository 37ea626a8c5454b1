"""mien watch: every output, and going on after a kill."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import a_face, a_video, drawn_face
from mien.errors import DataError, OutputError, VideoError
from mien.runtime.detect import WholeImage
from mien.runtime.read import load
from mien.runtime.resume import key_of
from mien.runtime.subtitles import Line, cues, usual_step, write_subtitles
from mien.runtime.table import TABLE_VERSION, read_rows, table_columns
from mien.vision.draw import blur
from mien.vision.image import read_image, write_image
from mien.vision.video import frames
from mien.vision.writer import VideoWriter
from test_runtime import a_model
from test_video_forms import MIXED, film

OPTIONS = ["--model", "tiny.onnx", "--detector", "whole", "--threads", "1"]


@pytest.fixture
def watch(mien, tmp_path):
    """`mien watch ...` in a folder with tiny.onnx and a.mp4 (12 frames)."""
    a_model(tmp_path / "tiny.onnx")
    a_video(tmp_path / "a.mp4", count=12)
    return lambda *words: mien("watch", *words, *OPTIONS)


def a_long_video(path, count: int, **options) -> None:
    """Of five frames a second, so that ten seconds, after which a reading can be gone on with, are 50."""
    a_video(path, count, gaps=[0.2] * (count - 1), **options)


def rows(path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_outputs_may_have_as_long_names_as_the_disk_allows(watch, tmp_path):
    names = {f"{'n' * 251}{ending}" for ending in (".csv", ".mp4", ".srt", ".vtt")}
    table, video, first, second = sorted(names)
    code, _, err = watch("a.mp4", "--table", table, "--save", video, "--subtitles", first)
    assert code == 0, err
    assert watch("a.mp4", "--subtitles", second)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx", "a.mp4", *names}


def test_the_three_forms_of_a_table_say_the_same(watch):
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        code, _, err = watch("a.mp4", "--table", name)
        assert code == 0, err
    first = list(read_rows("t.csv"))
    assert first == list(read_rows("t.jsonl")) == list(read_rows("t.parquet"))
    assert len(first) == 12
    columns = table_columns(["x", "y"])
    assert list(first[0]) == [column.name for column in columns]
    types = {"text": str, "whole": int, "number": float}
    assert all(row[c.name] is None or type(row[c.name]) in (types[c.kind], int) for row in first for c in columns)
    assert pq.read_schema("t.parquet").names == list(first[0])
    assert json.loads(pq.read_schema("t.parquet").metadata[b"mien"])["labels"] == ["x", "y"]
    assert {(row["model"], row["smoothing"], row["table_version"]) for row in first} == {("tiny", 0.3, TABLE_VERSION)}
    assert {row["track"] for row in first} == {1}
    names = [column.name for column in table_columns(["Very Sad!", "very-sad", "x" * 90])]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name.isascii() and name.isidentifier() and len(name) <= 60 for name in names)


def test_what_is_no_table_says_so(watch, tmp_path):
    watch("a.mp4", "--table", "t.csv")
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "new.csv").write_text(text.replace(f",{TABLE_VERSION}\n", ",99\n"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "odd.csv").write_text(text + "a.mp4,nonsense\n")
    (tmp_path / "odd.parquet").write_bytes(b"nothing")
    for name, message in [
        ("new.csv", "newer than this library"),
        ("other.csv", "it has no column 'seconds'"),
        ("odd.csv", r"line 14: has 2 values"),
        ("odd.parquet", "cannot be read as a table"),
        ("none.csv", "no such table"),
        ("tiny.onnx", "must end in"),
    ]:
        with pytest.raises(DataError, match=rf"{name}: .*{message}"):
            list(read_rows(tmp_path / name))


def test_from_and_to_and_raw(watch):
    code, _, _ = watch(
        "a.mp4", "--from", "0:00.1", "--to", "0:00:00.3", "--table", "t.csv", "--save", "o.mp4", "--smooth", 0
    )
    assert code == 0
    assert [row["index"] for row in rows("t.csv")] == ["3", "4", "5", "6", "7"]
    assert {row["smoothing"] for row in rows("t.csv")} == {"0.0"}
    assert np.allclose([frame.seconds for frame in frames("o.mp4")], np.arange(5) / 25, atol=2e-3)
    for words, message in [(("--from", "x"), "is no time"), (("--from", "2", "--to", "1"), "is not after --from")]:
        code, _, err = watch("a.mp4", *words)
        assert (code, message in err, err.count("\n")) == (2, True, 1)


def test_max_faces_and_min_size(watch, monkeypatch):
    many = [a_face((0, 0, side, side), expression=None) for side in (60, 50, 20)]
    monkeypatch.setattr(WholeImage, "__call__", lambda *_: many)
    for words, count in [((), 3), (("--max-faces", 1), 1), (("--min-size", 30), 2)]:
        watch("a.mp4", "--table", "t.csv", "--overwrite", *words)
        first = [row for row in rows("t.csv") if row["index"] == "0"]
        assert [row["x1"] for row in first] == ["60.0", "50.0", "20.0"][:count]


def test_subtitles(watch, tmp_path):
    code, out, _ = watch("a.mp4", "--subtitles", "s.srt")
    assert (code, "written: s.srt" in out) == (0, True)
    assert (tmp_path / "s.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:00,480\nperson 1: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "s.srt", "tiny.onnx"]
    seen = [Line(0.1 * i, 1, "anger" if i < 12 else "fear") for i in range(20)] + [
        Line(2.0, None, None),
        Line(3.0, 2, "x"),
    ]
    assert rounded(cues(seen, usual=0.1)) == [
        (0.0, 1.0, "person 1: anger"),
        (1.0, 2.0, "person 1: fear"),
        (3.0, 3.1, "person 2: x"),
    ]
    write_subtitles(tmp_path / "s.vtt", seen, usual=0.1)
    assert (tmp_path / "s.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nperson 1: anger\n")
    assert watch("a.mp4", "--subtitles", "s.txt")[0] == 2


def rounded(found):
    return [(round(cue.begin, 4), round(cue.end, 4), cue.words) for cue in found]


@pytest.mark.parametrize("gap", [0.3, 0.6, 1.0, 1.2, 3.0])
def test_subtitles_of_frames_far_apart_do_not_flicker(gap):
    lines = [Line(i * gap, 1, "anger") for i in range(9)] + [Line(i * gap, 1, "fear") for i in range(9, 12)]
    assert usual_step(line.seconds for line in lines) == pytest.approx(gap)
    first, second = cues(lines, usual=gap)
    assert (first.begin, first.end, second.end) == pytest.approx((0.0, second.begin, 12 * gap))
    assert abs(first.end - 9 * gap) <= 0.25 + 1e-6
    assert (first.words, second.words) == ("person 1: anger", "person 1: fear")


def test_subtitles_of_frames_far_apart_begin_with_the_first():
    lines = [Line(3.0 + 5 * i, 1, ("sadness", "happiness")[i % 2]) for i in range(4)]
    assert [(cue.begin, cue.end) for cue in cues(lines, usual=5.0)] == [(3, 8), (8, 13), (13, 18), (18, 23)]


def test_a_cue_lasts_a_second_at_most_where_frames_are_missing():
    lines = [Line(t, 1, "anger") for t in (0.0, 0.1, 0.2, 5.1, 5.2, 5.3)]
    assert rounded(cues(lines, usual=0.1)) == [(0.0, 1.2, "person 1: anger"), (5.1, 5.4, "person 1: anger")]
    two = [Line(0.0, 1, "anger"), Line(0.0, 2, "fear"), Line(0.4, 1, "anger")]
    assert rounded(cues(two, usual=0.04)) == [(0.0, 0.44, "person 1: anger\nperson 2: fear")]
    assert (list(cues([])), usual_step([])) == ([], 0.04)


def test_subtitles_go_with_the_saved_video_if_there_is_one(watch, tmp_path):
    a_video(tmp_path / "long.mp4", count=60, gaps=[0.1] * 59)
    part = ("long.mp4", "--from", 3, "--every", 10)
    assert watch(*part, "--subtitles", "alone.srt")[0] == 0
    assert "00:00:03,000 --> 00:00:06,000\n" in (tmp_path / "alone.srt").read_text()
    assert watch(*part, "--subtitles", "s.srt", "--save", "s.mp4")[0] == 0
    assert "1\n00:00:00,000 --> 00:00:03,000\n" in (tmp_path / "s.srt").read_text()
    assert np.allclose([frame.seconds for frame in frames("s.mp4")], [0, 1, 2], atol=2e-3)


def with_sound(path, codec="aac", count=50, rate=16000):
    """Two seconds at 25 frames with a tone of 440 Hz."""
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = target.add_stream(codec, rate=rate)
        for i in range(count):
            picture = np.full((64, 96, 3), 5 * i % 255, np.uint8)
            target.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(video.encode())
        tone = np.sin(np.arange(rate * count // 25) * 2 * np.pi * 440 / rate)
        for start in range(0, len(tone), 1024):
            part = tone[None, start : start + 1024]
            form = "fltp" if codec == "aac" else "s16"
            values = part.astype(np.float32) if codec == "aac" else (part * 20000).astype(np.int16)
            block = av.AudioFrame.from_ndarray(values, format=form, layout="mono")
            block.rate, block.pts = rate, start
            target.mux(sound.encode(block))
        target.mux(sound.encode(None))


def sound_of(path) -> np.ndarray | None:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize(("name", "codec"), [("s.mp4", "aac"), ("s.avi", "pcm_s16le")])
def test_the_sound_is_kept(name, codec, watch, tmp_path):
    with_sound(tmp_path / name, codec)
    assert watch(name, "--save", "o.mp4")[0] == 0
    heard = sound_of("o.mp4")
    assert abs(len(heard) / 16000 - 2) < 0.15
    spectrum = np.abs(np.fft.rfft(heard[8000:16000]))
    assert abs(int(spectrum.argmax()) * 2 - 440) < 4
    assert watch(name, "--save", "p.mp4", "--from", 1)[0] == 0
    assert abs(len(sound_of("p.mp4")) / 16000 - 1) < 0.2
    for words in (("--no-audio",), ("--blur-faces",)):
        assert watch(name, "--save", "q.mp4", "--overwrite", *words)[0] == 0
        assert sound_of("q.mp4") is None


@pytest.mark.parametrize(("rate", "kept"), [(11000, 11025), (11111, 12000), (192000, 96000)])
def test_sound_of_an_odd_rate_is_kept(rate, kept, watch, tmp_path):
    with_sound(tmp_path / "s.mkv", "pcm_s16le", rate=rate)
    code, _, err = watch("s.mkv", "--save", "o.mp4", "--table", "t.csv")
    assert (code, err) == (0, "")
    heard = sound_of("o.mp4")
    assert abs(len(heard) / kept - 2) < 0.15
    assert abs(np.abs(np.fft.rfft(heard[:kept])).argmax() - 440) < 4
    assert len(rows("t.csv")) == 50


def test_the_sound_lasts_as_long_as_the_last_picture(watch, tmp_path):
    with_sound(tmp_path / "s.mp4")
    for words, seconds in (((), 2.0), (("--to", "1.5"), 1.5)):
        assert watch("s.mp4", "--save", "o.mp4", "--every", "25", "--overwrite", *words)[0] == 0
        assert abs(len(sound_of("o.mp4")) / 16000 - seconds) < 0.15


def test_sound_of_joined_parts_is_kept(watch, tmp_path):
    for name, codec in (("a.ts", "aac"), ("b.ts", "mp2")):
        with_sound(tmp_path / "part.ts", codec)
        (tmp_path / name).write_bytes((tmp_path / "part.ts").read_bytes() * 2)
        code, _, err = watch(name, "--save", "o.mp4", "--overwrite")
        assert (code, err) == (0, "")
        assert abs(len(sound_of("o.mp4")) / 16000 - 4) < 0.2
        assert len(list(frames("o.mp4"))) == 100


def test_sound_that_cannot_be_kept_is_left_out_and_told(watch, tmp_path, monkeypatch):
    with_sound(tmp_path / "s.mkv", "pcm_s16le", rate=11000)
    monkeypatch.setattr("mien.vision.join._allowed", lambda rate: rate)  # which AAC does not take
    code, out, err = watch("s.mkv", "--save", "o.mp4", "--table", "t.csv")
    assert (code, err.count("\n"), "o.mp4: has no sound: " in err) == (0, 1, True)
    assert "written: o.mp4" in out
    assert sound_of("o.mp4") is None
    assert (len(list(frames("o.mp4"))), len(rows("t.csv"))) == (50, 50)


def fails(path):
    def failing(*_, **__):
        raise OutputError(f"{path}: cannot be written (No space left on device)")

    return failing


def test_an_output_that_fails_at_the_end_loses_no_other(watch, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mien.vision.join.join", fails("o.mp4"))
        code, out, err = watch("a.mp4", "--save", "o.mp4", "--table", "t.csv", "--subtitles", "s.srt")
    assert "No space left on device)); all that was read is kept: the same command makes it\n" in err
    assert (code, "error: o.mp4: cannot be written" in err) == (1, True)
    assert [line for line in out.splitlines() if "written" in line] == ["written: t.csv", "written: s.srt"]
    assert len(rows("t.csv")) == 12
    code, out, _ = watch("a.mp4", "--save", "o.mp4", "--table", "t.csv", "--subtitles", "s.srt")
    assert (code, out, len(list(frames("o.mp4")))) == (0, "written: o.mp4\n", 12)
    with monkeypatch.context() as patch:
        patch.setattr("mien.runtime.table.convert", fails("u.csv"))
        code, out, err = watch("a.mp4", "--save", "p.mp4", "--table", "u.csv")
    assert (code, "error: u.csv: cannot be written" in err, "written: p.mp4" in out) == (1, True, True)
    with monkeypatch.context() as patch:
        patch.setattr("mien.vision.join.join", fails("q.mp4"))
        assert watch("a.mp4", "--save", "q.mp4")[0] == 2
    code, out, err = watch("a.mp4", "--save", "p.mp4", "--table", "u.csv")
    assert (code, err) == (0, "mien: an earlier run read all; making what it did not: u.csv (--fresh begins anew)\n")
    assert (out, len(rows("u.csv"))) == ("written: u.csv\n", 12)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("failing", ["mien.vision.join.join", "mien.runtime.table.convert"])
def test_a_long_reading_whose_output_fails_at_the_end_can_be_gone_on_with(failing, watch, tmp_path, monkeypatch):
    a_long_video(tmp_path / "long.mp4", 60)
    words = ("long.mp4", "--save", "o.mp4", "--table", "t.csv")
    with monkeypatch.context() as patch:
        patch.setattr(failing, fails("it"))
        code, _, err = watch(*words)
    assert code == 1
    assert "all that was read is kept: the same command makes it" in err
    code, _, err = watch(*words)
    assert (code, "an earlier run read all; making what it did not: " in err) == (0, True)
    assert (len(rows("t.csv")), len(list(frames("o.mp4")))) == (60, 60)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_where_nothing_can_be_gone_on_with_a_broken_output_loses_no_other(watch, tmp_path, monkeypatch):
    """A folder of pictures, as a stream, has no bookmark."""
    (tmp_path / "in").mkdir()
    for i in range(8):
        write_image(tmp_path / "in" / f"{i}.png", drawn_face())
    plain = VideoWriter.write

    def full(self, image, seconds):
        plain(self, image, seconds)
        if seconds > 0.15:
            raise OutputError("the disk is full")

    monkeypatch.setattr(VideoWriter, "write", full)
    code, out, err = watch("in", "--save", "o.mp4", "--table", "t.csv")
    assert (code, "error: o.mp4: cannot be written" in err, "written: t.csv" in out) == (1, True, True)
    assert [row["index"] for row in rows("t.csv")] == ["0", "1", "2", "3", "4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "in", "t.csv", "tiny.onnx"]


def test_a_folder_whose_first_picture_is_damaged_is_read(watch, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(b"no picture")
    for i in (1, 2):
        write_image(tmp_path / "in" / f"{i}.png", drawn_face())
    code, _, err = watch("in", "--save", "o.mp4", "--table", "t.csv")
    assert (code, "1 of 3 pictures could not be read; the first: in/0.png" in err) == (1, True)
    assert [(row["index"], row["seconds"]) for row in rows("t.csv")] == [("1", "0.04"), ("2", "0.08")]
    assert len(list(frames("o.mp4"))) == 2
    for i in (1, 2):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"no picture")
    code, _, err = watch("in", "--table", "u.csv")
    assert (code, err.count("\n"), "none of 3 pictures could be read" in err) == (2, 1, True)


def test_pictures_of_mixed_sizes_keep_their_shape_and_their_boxes(watch, tmp_path):
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(200, 100), (100, 200), (400, 200)]):
        write_image(tmp_path / "in" / f"{i}.png", np.full((size[1], size[0], 3), 90, np.uint8))
    assert watch("in", "--save", "o.mp4", "--table", "t.csv")[0] == 0
    first, upright, double = (frame.image.astype(int) for frame in frames("o.mp4"))
    assert first.shape == (100, 200, 3)
    assert max(upright[:, :72].max(), upright[:, 128:].max()) < 20, "black at its sides"
    assert upright[:, 76:124].mean() > 40, "the picture, with all that is drawn on it, in its middle"
    assert np.abs(double[40:60, 5:40] - first[40:60, 5:40]).mean() < 12, "the same picture, twice as large"
    assert [row["x1"] for row in rows("t.csv")] == ["200.0", "100.0", "400.0"]


def test_a_film_that_changes_its_size_goes_on_after_a_kill(watch, killed, tmp_path, monkeypatch):
    def changing(*given):
        for frame in frames(*given):
            yield frame if frame.index < 54 else replace(frame, image=np.ascontiguousarray(frame.image[:, :48]))

    a_long_video(tmp_path / "long.mp4", 120, size=(97, 65))
    monkeypatch.setattr("mien.vision.video.frames", changing)
    killed(110)
    with pytest.raises(ZeroDivisionError):
        watch("long.mp4", "--table", "t.csv", "--save", "o.mp4")
    code, _, err = watch("long.mp4", "--table", "t.csv", "--save", "o.mp4")
    assert (code, "going on at 19.8 s" in err) == (0, True)
    got = list(frames("o.mp4"))
    assert (len(got), {frame.image.shape for frame in got}) == (120, {(64, 96, 3)})
    assert got[119].image[:, :20].max() < 20, "the narrow picture stands between black bars"


def test_names_that_are_no_utf8(watch, killed, odd_name, tmp_path):
    a_long_video(tmp_path / f"{odd_name}.mp4", 60)
    for form in (".csv", ".jsonl", ".parquet"):
        words = (f"{odd_name}.mp4", "--table", f"{odd_name}{form}", "--save", f"{odd_name}-o.mp4", "--overwrite")
        killed(56)
        with pytest.raises(ZeroDivisionError):
            watch(*words)
        code, out, err = watch(*words, "--report", f"{odd_name}.html", "--subtitles", f"{odd_name}.srt", "--thumbnails")
        assert (code, "going on at 9.8 s" in err, f"written: caf\\udce9{form}" in out) == (0, True, True)
        assert {row["image"] for row in read_rows(f"{odd_name}{form}")} == {"caf\ufffd.mp4"}
    assert "<title>caf\ufffd.mp4" in (tmp_path / f"{odd_name}.html").read_text()


def test_the_key_tells_names_apart_that_are_shown_alike(odd_name, tmp_path):
    keys = set()
    for name in (f"{odd_name}.mp4", os.fsdecode(b"caf\xe8.mp4"), "caf\ufffd.mp4"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
        keys.add(key_of(tmp_path / name, {"save": f"{odd_name}.mp4"}))
    assert len(keys) == 3


def test_rows_stay_if_a_report_cannot_be_made_from_them(watch, monkeypatch):
    monkeypatch.setattr("mien.report.timeline.write_report", fails("r.html"))
    code, out, err = watch("a.mp4", "--report", "r.html", "--subtitles", "s.srt")
    assert (code, "written: s.srt" in out) == (1, True)
    assert "error: r.html: cannot be written (No space left on device); the rows are kept in .s.srt.rows.csv" in err
    assert len(rows(".s.srt.rows.csv")) == 12


@pytest.mark.parametrize("table", ["t.csv", None])
@pytest.mark.parametrize("at", ["mien.runtime.subtitles.write_subtitles", "mien.report.timeline.write_report"])
@pytest.mark.parametrize("error", [OutputError("no room"), KeyboardInterrupt, ZeroDivisionError])
def test_what_a_stopped_run_did_not_make_of_its_rows_is_made_later(error, at, table, watch, tmp_path, monkeypatch):
    """ZeroDivisionError: as if it were killed there."""

    def stopped(*_, **__):
        raise error

    words = ("a.mp4", "--subtitles", "s.srt", "--report", "r.html", *(("--table", table) if table else ()))
    both = "subtitles" in at and not isinstance(error, OutputError)
    missing = ["s.srt", "r.html"] if both else ["s.srt"] if "subtitles" in at else ["r.html"]
    kept = table or ".s.srt.rows.csv"
    with monkeypatch.context() as patch:
        patch.setattr(at, stopped)
        if error is ZeroDivisionError:
            with pytest.raises(ZeroDivisionError):
                watch(*words)
        else:
            code, _, err = watch(*words)
            why = f"the rows are kept in {kept}; all that was read is kept: the same command makes it"
            told = [f"{name}: was interrupted before it was made" for name in missing]
            told = ["no room"] if isinstance(error, OutputError) else told
            assert err == "".join(f"mien: error: {words}; {why}\n" for words in told)
            assert code == (2 if both and not table else 1)
    before = (tmp_path / kept).stat().st_mtime_ns if table else 0
    code, out, err = watch(*words)
    assert (code, out.splitlines()[-len(missing) :]) == (0, [f"written: {name}" for name in missing])
    assert f"an earlier run read all; making what it did not: {', '.join(missing)}" in err
    assert not table or (tmp_path / table).stat().st_mtime_ns == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert watch(*words)[0] == 2, "exists already"


@pytest.mark.parametrize("words", [("--smooth", 1), ("--fresh",)])
def test_another_command_replaces_no_output_of_a_stopped_one(words, watch, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mien.report.timeline.write_report", fails("r.html"))
        assert watch("a.mp4", "--report", "r.html", "--table", "t.csv")[0] == 1
    code, _, err = watch("a.mp4", "--report", "r.html", "--table", "t.csv", *words)
    assert (code, "t.csv: exists already" in err) == (2, True)


def test_blurred_faces_are_patches(watch, tmp_path):
    face = cv2.resize(drawn_face(96), (240, 240))
    hidden = blur(face, [(40, 40, 200, 200)])
    sharp = cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[20:220, 20:220].std()
    soft = cv2.Laplacian(cv2.cvtColor(hidden, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[20:220, 20:220].std()
    assert soft < sharp / 5
    with VideoWriter(tmp_path / "f.mp4", 240, 240) as writer:
        for i in range(4):
            writer.write(face, i / 25)
    watch("f.mp4", "--save", "o.mp4", "--blur-faces")
    image = next(frames("o.mp4")).image
    assert image[90:100, 78:88].mean() - face[90:100, 78:88].mean() > 60, "the dark eye is gone"


def sharpness(image, box) -> float:
    x0, y0, x1, y1 = box
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F)[y0:y1, x0:x1].std())


@pytest.mark.parametrize("words", [(), ("--max-faces", 1), ("--min-size", 50), ("--max-faces", 1, "--min-size", 50)])
def test_faces_that_are_left_out_are_blurred_too(words, watch, killed, tmp_path, monkeypatch):
    """Three faces; the smallest is found in the first frames alone, and a run that is gone on with knows of it."""
    boxes = [(10, 10, 80, 80), (110, 20, 170, 80), (200, 30, 240, 70)]
    noise = np.random.default_rng(0).integers(0, 255, (96, 256, 3)).astype(np.uint8)
    with VideoWriter(tmp_path / "f.mp4", 256, 96, rate=5) as writer:
        for i in range(60):
            writer.write(noise, i / 5)
    calls = itertools.count()
    found = [a_face(tuple(map(float, box)), expression=None) for box in boxes]
    monkeypatch.setattr(WholeImage, "__call__", lambda *_: found[: 2 if 48 < next(calls) < 56 else 3])
    monkeypatch.setattr("mien.runtime.copy.draw", lambda image, _: image)  # boxes and bars are sharp
    killed(52)
    with pytest.raises(ZeroDivisionError):
        watch("f.mp4", "--save", "o.mp4", "--table", "t.csv", "--blur-faces", *words)
    calls = itertools.count(50)
    code, _, err = watch("f.mp4", "--save", "o.mp4", "--table", "t.csv", "--blur-faces", *words)
    assert (code, "going on at 9.8 s" in err) == (0, True)
    shown = [frame.image for frame in frames("o.mp4")]
    assert len(shown) == 60
    for box in boxes:
        x0, y0, x1, y1 = box
        inside = (x0 + 6, y0 + 6, x1 - 6, y1 - 6)
        assert max(sharpness(image, inside) for image in shown) < sharpness(noise, inside) / 4


def test_no_face_of_a_group_is_found_in_a_blurred_copy(test_data, mien, tmp_path):
    photo = read_image(test_data / "photos" / "group_selfie.jpg")
    photo = cv2.resize(photo, (960, 960 * photo.shape[0] // photo.shape[1]), interpolation=cv2.INTER_AREA)
    with VideoWriter(tmp_path / "group.mp4", photo.shape[1], photo.shape[0]) as writer:
        for i in range(3):
            writer.write(photo, i / 25)
    reader = load(threads=1)
    assert len(reader(photo)) >= 5
    for number, words in enumerate([("--max-faces", 1), ("--min-size", 120)]):
        code, _, err = mien("watch", "group.mp4", "--save", f"{number}.mp4", "--blur-faces", "--threads", 1, *words)
        assert code == 0, err
        assert [len(reader(frame.image)) for frame in frames(f"{number}.mp4")] == [0, 0, 0]


def test_a_full_disk_keeps_what_was_finished(watch, tmp_path, monkeypatch):
    """The table cannot grow beyond three quarters: the finished part is kept, and the next run goes on there."""
    from runtime.test_sinks import a_disk_of

    a_long_video(tmp_path / "long.mp4", 140)
    watch("long.mp4", "--table", "whole.csv")
    size = (tmp_path / "whole.csv").stat().st_size
    with a_disk_of(size * 3 // 4):
        code, _, err = watch("long.mp4", "--table", "t.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "t.csv: cannot be written" in err
    assert "s are finished and kept: make room and give the same command again" in err
    looked = []
    plain = WholeImage.__call__
    monkeypatch.setattr(WholeImage, "__call__", lambda self, image: looked.append(1) or plain(self, image))
    code, _, err = watch("long.mp4", "--table", "t.csv")
    assert code == 0
    assert "going on at" in err
    assert len(looked) <= 90, "50 frames at least were not read again"
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("look", ["0", "0.2"])
def test_a_killed_run_goes_on_and_its_rows_are_those_of_one_go(look, watch, tmp_path):
    a_video(tmp_path / "long.mp4", count=400, size=(320, 240), gaps=[0.1] * 399)
    words = ["long.mp4", "--save", "o.mp4", "--table", "t.parquet", "--look", look, *OPTIONS]
    started = subprocess.Popen(
        [sys.executable, "-m", "mien", "watch", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / ".t.parquet.bookmark").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait(60)
    assert not (tmp_path / "t.parquet").exists()
    code, _, err = watch(*words[:-6], "--look", look)
    assert (code, "going on at" in err) == (0, True)
    assert watch("long.mp4", "--table", "whole.parquet", "--look", look)[0] == 0
    assert list(read_rows("t.parquet")) == list(read_rows("whole.parquet"))
    assert np.allclose([f.seconds for f in frames("o.mp4")], np.arange(400) / 10, atol=2e-3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.fixture
def killed(monkeypatch):
    """Let a run die at a frame, as if it were killed, unless told otherwise: the next one runs on."""
    from mien.cli.watch import _Run

    plain = _Run._write

    def at(index, error=ZeroDivisionError):
        def dies(self, sinks, frame, faces):
            if frame.index == index:
                monkeypatch.setattr(_Run, "_write", plain)
                raise error
            plain(self, sinks, frame, faces)

        monkeypatch.setattr(_Run, "_write", dies)

    return at


@pytest.mark.parametrize("name", ["mixed.avi", "damaged.ts"])
def test_a_run_goes_on_in_a_film_whose_times_go_back_or_that_is_damaged(name, watch, killed, tmp_path):
    """Damage before the place where it goes on is told, too."""
    if name == "mixed.avi":
        film(tmp_path / name, "libx264", count=90, rate=5, **MIXED)
    else:
        film(tmp_path / "part.ts", "libx264", count=45, rate=5, g="4")
        data = bytearray((tmp_path / "part.ts").read_bytes() * 2)
        data[len(data) // 8 : len(data) // 4] = bytes(len(data) // 4 - len(data) // 8)
        (tmp_path / name).write_bytes(data)
    whole = watch(name, "--table", "whole.csv")
    assert (whole[0], "damaged between " in whole[2]) == (int(name == "damaged.ts"), name == "damaged.ts")
    killed(60)
    with pytest.raises(ZeroDivisionError):
        watch(name, "--table", "t.csv", "--save", "o.mp4")
    code, _, err = watch(name, "--table", "t.csv", "--save", "o.mp4")
    assert (code, "going on at" in err, err.endswith(whole[2])) == (whole[0], True, True)
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert np.allclose(
        [f.seconds for f in frames("o.mp4")], [float(row["seconds"]) for row in rows("whole.csv")], atol=2e-3
    )


@pytest.mark.parametrize(
    ("problem", "after", "code", "message"),
    [
        (KeyboardInterrupt, 0, 0, "interrupted before anything new was read; the same command goes on at 9.8 s"),
        (KeyboardInterrupt, 1, 0, "interrupted before anything new was read; the same command goes on at 9.8 s"),
        (VideoError("gone"), 0, 2, "gone; what the earlier run finished is kept (--fresh begins anew)"),
        (None, 0, 2, "is not as it was when an earlier run stopped; what the earlier run finished is kept"),
    ],
)
def test_what_was_finished_stays_when_a_run_ends_before_it_goes_on(
    problem, after, code, message, watch, killed, tmp_path, monkeypatch
):
    def broken(*given):
        yield from itertools.islice(frames(*given), after)
        if problem is not None:
            raise problem

    a_long_video(tmp_path / "long.mp4", 120)
    words = ("long.mp4", "--table", "t.csv", "--save", "o.mp4", "--overwrite")
    (tmp_path / "t.csv").write_text("of another day")
    assert watch("long.mp4", "--table", "whole.csv")[0] == 0
    killed(60)
    with pytest.raises(ZeroDivisionError):
        watch(*words)
    with monkeypatch.context() as patch:
        patch.setattr("mien.vision.video.frames", broken)
        ended, out, err = watch(*words)
    assert (ended, message in err, "written" in out) == (code, True, False)
    assert (tmp_path / "t.csv").read_text() == "of another day"
    code, out, err = watch(*words)
    assert (code, "going on at 9.8 s" in err, "120 frames" in out) == (0, True, True)
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(list(frames("o.mp4"))) == 120
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_ctrl_c_after_something_new_finishes_the_outputs(watch, killed, tmp_path):
    a_long_video(tmp_path / "long.mp4", 120)
    killed(60)
    with pytest.raises(ZeroDivisionError):
        watch("long.mp4", "--table", "t.csv")
    killed(80, KeyboardInterrupt)
    code, out, err = watch("long.mp4", "--table", "t.csv")
    assert (code, "interrupted after 80 frames" in err, "written: t.csv" in out) == (0, True, True)
    assert len(rows("t.csv")) == 80
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_part_that_was_written_over_is_not_gone_on_with(watch, killed, tmp_path):
    """A run, then another command that dies before its first bookmark: the first one's rows are lost, not mixed."""
    a_long_video(tmp_path / "long.mp4", 120)
    for index, words in [(60, ("--every", 5)), (48, ())]:
        killed(index)
        with pytest.raises(ZeroDivisionError):
            watch("long.mp4", "--table", "t.csv", *words)
    code, _, err = watch("long.mp4", "--table", "t.csv", "--every", 5)
    assert (code, "going on" in err, len(rows("t.csv"))) == (0, False, 24)


@pytest.mark.parametrize("lost", ["all", "one", "a byte"])
def test_a_saved_video_whose_parts_are_gone_begins_anew(lost, watch, killed, tmp_path):
    a_long_video(tmp_path / "long.mp4", 160)
    killed(140)
    with pytest.raises(ZeroDivisionError):
        watch("long.mp4", "--save", "o.mp4", "--table", "t.csv")
    parts = sorted((tmp_path / ".o.mp4.parts").iterdir())
    assert len(parts) >= 2
    if lost == "a byte":
        parts[0].write_bytes(parts[0].read_bytes()[:-1])
    for part in {"all": parts, "one": parts[:1]}.get(lost, []):
        part.unlink()
    if lost == "all":
        (tmp_path / ".o.mp4.parts").rmdir()
    code, _, err = watch("long.mp4", "--save", "o.mp4", "--table", "t.csv")
    assert (code, err) == (0, "mien: o.mp4: parts that an earlier run saved are gone or altered; beginning anew\n")
    assert (len(rows("t.csv")), len(list(frames("o.mp4")))) == (160, 160)


def test_another_command_begins_anew(watch, killed, tmp_path):
    a_long_video(tmp_path / "long.mp4", 120)
    killed(100)
    with pytest.raises(ZeroDivisionError):
        watch("long.mp4", "--table", "t.csv")
    assert (tmp_path / ".t.csv.bookmark").exists()
    code, _, err = watch("long.mp4", "--table", "t.csv", "--smooth", 1)
    assert (code, "going on" in err, len(rows("t.csv"))) == (0, False, 120)


def test_another_detector_file_of_the_same_name_makes_another_reading(tmp_path):
    """Rows of two detectors would stand in one table."""
    from mien.cli.watch import _file_facts

    own = tmp_path / "own.onnx"
    own.write_bytes(b"one")
    one = _file_facts("ferplus-nano", "mien-face", own)
    own.write_bytes(b"two")
    assert _file_facts("ferplus-nano", "mien-face", own) != one
    assert len(one) == 2
    assert _file_facts("ferplus-nano", "whole", None) == one[:1]


def test_a_bookmark_of_another_form_begins_anew(watch, killed, tmp_path, monkeypatch):
    a_long_video(tmp_path / "long.mp4", 120)
    killed(100)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("mien.runtime.resume._STATE", 2)
        watch("long.mp4", "--table", "t.csv")
    assert (tmp_path / ".t.csv.bookmark").exists()
    code, _, err = watch("long.mp4", "--table", "t.csv")
    assert (code, "going on" in err, len(rows("t.csv"))) == (0, False, 120)


def test_options_are_for_the_kind_of_source_they_are_for(mien, tmp_path):
    a_model(tmp_path / "tiny.onnx")
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "0.png", drawn_face())
    write_image(tmp_path / "in" / "1.png", drawn_face())
    for words, code, message in [
        (("in", "--rate", 4, "--table", "t.csv"), 0, ""),
        (("in", "--patience", 4), 2, "--patience: is for the address of a stream; in is not tried again"),
        ((0, "--rate", 4), 2, "--rate: is for a folder of pictures; camera 0 has its own times"),
        ((0, "--patience", 4), 2, "--patience: is for the address of a stream; camera 0 is not tried again"),
        (("http://127.0.0.1:9/a", "--rate", 4), 2, "--rate: is for a folder of pictures; http://127.0.0.1:9/a has"),
        (("http://127.0.0.1:9/a", "--patience", 4), 2, "http://127.0.0.1:9/a: cannot be read as a video"),
        (("none.mp4", "--rate", 4), 2, "none.mp4: no such video file"),
    ]:
        ended, _, err = mien("watch", *words, *OPTIONS)
        assert (ended, message in err, err.count("\n")) == (code, True, int(code == 2)), err
    assert [row["seconds"] for row in rows("t.csv")] == ["0.0", "0.25"]


def test_a_source_without_a_frame_makes_and_replaces_nothing(watch, tmp_path):
    (tmp_path / "t.csv").write_text("kept")
    for words in (("--from", "9"), ("--from", "9", "--to", "10")):
        code, out, err = watch(
            "a.mp4", *words, "--table", "t.csv", "--report", "t.html", "--save", "o.mp4", "--overwrite"
        )
        assert (code, "no frame" in err, "written" in out) == (2, True, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "t.csv", "tiny.onnx"]
    assert (tmp_path / "t.csv").read_text() == "kept"


@pytest.mark.parametrize("source", ["0", "rtsp://127.0.0.1:1/door"])
def test_thumbnails_of_what_is_gone_are_refused(watch, source):
    code, out, err = watch(source, "--report", "r.html", "--thumbnails")
    assert (code, "--thumbnails: are of what can be read again" in err, out) == (2, True, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--table", "a.csv", "--save", "b.mp4", "--report", "./a.csv"), "is named for two outputs"),
        (("--table", "a.csv", "--report", "A.csv"), "is named for two outputs"),
        (("--report", "a.pdf"), "ends in .html"),
        (("--blur-faces",), "--blur-faces: does nothing without --save"),
        (("--blur-faces", "--save", "o.mp4", "--look", 1), "--look: leaves who newly appears visible"),
        (("--thumbnails",), "--thumbnails: does nothing without --report"),
        (("--smooth", "inf"), "--smooth"),
        (("--rate", 3), "--rate: is for a folder of pictures; a.mp4 has its own times"),
        (("--patience", 5), "--patience: is for the address of a stream; a.mp4 is not tried again"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(watch, words, message):
    code, out, err = watch("a.mp4", *words)
    assert (code, message in err, out) == (2, True, "")
