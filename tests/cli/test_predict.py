"""mien predict and mien models, in this process, with a tiny model: what goes where, and what is left alone."""

import errno
import io
import os
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from builders import drawn_face
from mien.alone import alone
from mien.cli import command_line, main
from mien.errors import OutputError
from mien.faces import ImageRecord
from mien.runtime.sessions import read_spec
from mien.runtime.table import TableSink, read_rows, table_columns
from mien.vision.image import read_image
from test_runtime import a_model


@pytest.fixture
def mien(tmp_path, monkeypatch, capsys):
    """Run `mien ...` in a folder that holds tiny.onnx: (exit code, stdout, stderr)."""
    a_model(tmp_path / "tiny.onnx")
    monkeypatch.chdir(tmp_path)

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mien", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def predict(mien):
    return lambda *words: mien("predict", *words, "--model", "tiny.onnx", "--detector", "whole", "--threads", 1)


def test_lines_are_utf8_where_the_system_writes_another_coding(predict, monkeypatch):
    """As on Windows, to a file or a pipe."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", write_through=True))
    predict("\u0416\u00e9.jpg", "--json")
    assert msgspec.json.decode(written.getvalue(), type=ImageRecord).image == "\u0416\u00e9.jpg"


def picture(path) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), drawn_face(64))


def images(out: str) -> list[str]:
    return [msgspec.json.decode(line, type=ImageRecord).image for line in out.splitlines()]


def test_help_names_every_verb():
    shown = CliRunner().invoke(command_line(), ["--help"]).output
    assert all(verb in shown for verb in ("predict", "watch", "train", "export", "evaluate", "models"))


def test_version(mien):
    code, out, _ = mien("--version")
    assert (code, out.split()[0]) == (0, "mien")


def test_folders_globs_and_files_in_order_each_once(predict, tmp_path):
    for name in ("f/b.png", "f/a.png", "f/c.txt", "f/.small/a.png", "g/d.png"):
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("no picture")
    code, out, err = predict("f", "g/*.png", "f/a.png", "--json")
    assert (code, images(out), err) == (0, ["f/a.png", "f/b.png", "g/d.png"], "")


def test_pictures_below_a_folder_are_told_and_a_video_is_sent_on(predict, tmp_path):
    for name in ("f/a.png", "f/below/b.png"):
        picture(tmp_path / name)
    code, out, err = predict("f", "--json")
    assert (code, images(out)) == (0, ["f/a.png"])
    assert "pictures in folders below it were left out; read them with 'f/**/*.png'" in err.replace("\\", "/")
    assert images(predict("f/**/*.png", "--json")[1]) == ["f/a.png", "f/below/b.png"]
    (tmp_path / "clip.mp4").write_bytes(b"a film")
    assert "a video is read with `mien watch`" in predict("clip.mp4")[2]


def test_hidden_pictures_of_a_folder_are_read_only_by_name(predict, tmp_path):
    for name in ("a.png", ".b.png"):
        picture(tmp_path / "f" / name)
    (tmp_path / "f" / "._a.png").write_bytes(b"what macOS keeps beside a.png")
    code, out, err = predict("f", "--json")
    assert (code, images(out), err) == (0, ["f/a.png"], "")
    assert images(predict("f/.b.png", "--json")[1]) == ["f/.b.png"]
    for glob, names in (("f/*", ["f/a.png"]), ("**/*.png", ["f/a.png"]), ("f/.b*", ["f/.b.png"]), ("f/.*/*.png", [])):
        code, out, err = predict(glob, "--json")
        assert (code, images(out)) == (0 if names else 2, names), err


def test_options_that_would_do_nothing_are_refused(mien, tmp_path):
    picture(tmp_path / "a.png")
    words = ("predict", "a.png", "--model", "tiny.onnx", "--detector", "whole")
    for more, message in (
        (("--detector-file", "none.onnx"), "'whole' looks for no faces, so it takes no file"),
        (("--min-size", "5"), "'whole' looks for no faces, so none is too small"),
        (("--overwrite",), "--overwrite: nothing to replace"),
        (("--threads", "-1"), "--threads"),
    ):
        code, out, err = mien(*words, *more)
        assert (code, out, message in err) == (2, "", True), err


def test_an_argument_without_images_does_not_stop_the_rest(predict, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    code, out, err = predict("empty", "none*.png", "a.png", "--json")
    assert (code, images(out)) == (1, ["a.png"])
    assert "empty: a folder without images" in err
    assert "; a video is read with `mien watch`" in err
    assert "none*.png: no file matches" in err


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_table_of_pictures_has_the_columns_of_a_videos(predict, tmp_path, form):
    for name in ("f/a.png", "f/b.png"):
        picture(tmp_path / name)
    (tmp_path / "f" / "c.png").write_text("no picture")
    code, out, err = predict("f", "--table", f"t.{form}")
    assert (code, f"table: t.{form}" in out, "f/c.png" in err) == (1, True, True)
    rows = list(read_rows(tmp_path / f"t.{form}"))
    assert [row["image"] for row in rows] == ["f/a.png", "f/b.png"]
    assert list(rows[0]) == [column.name for column in table_columns(read_spec("tiny.onnx").labels)]
    [line] = predict("f/a.png", "--json")[1].splitlines()
    [face] = msgspec.json.decode(line, type=ImageRecord).faces
    known = rows[0]
    assert (known["face"], known["label"], known["confidence"]) == (
        0,
        face.expression.label,
        face.expression.confidence,
    )
    assert [known[name] for name in ("index", "seconds", "track")] == [None] * 3
    assert (known["smoothing"], known["model"]) == (0, read_spec("tiny.onnx").name)


def test_a_picture_without_a_face_has_a_row(tmp_path):
    with TableSink(tmp_path / "t.csv", ["a", "b"], model="m") as table:
        table.write_picture("empty.png", [])
    [row] = read_rows(tmp_path / "t.csv")
    assert (row["image"], row["face"], row["label"], row["model"]) == ("empty.png", None, None, "m")


def test_a_report_of_a_table_of_pictures_is_refused(predict, mien, tmp_path):
    picture(tmp_path / "a.png")
    predict("a.png", "--table", "t.csv")
    code, out, err = mien("report", "t.csv", "--out", "t.html")
    assert (code, out) == (2, "")
    assert "t.csv: a table of pictures, which have no times; a report is of a table of `mien watch`" in err


def test_one_run_at_a_time_writes_a_table(predict, tmp_path):
    picture(tmp_path / "a.png")
    with alone(tmp_path / "faces.csv", "busy"):
        code, out, err = predict("a.png", "--table", "faces.csv")
    assert (code, out, "another run writes it" in err, (tmp_path / "faces.csv").exists()) == (2, "", True, False)
    assert predict("a.png", "--table", "faces.csv")[0] == 0


def test_a_table_that_is_there_is_left(predict, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("mine")
    code, out, err = predict("a.png", "--table", "t.csv")
    assert (code, out, (tmp_path / "t.csv").read_text()) == (2, "", "mine")
    assert "t.csv: exists already" in err
    assert predict("a.png", "--table", "t.csv", "--overwrite")[0] == 0
    (tmp_path / "b.png").write_text("no picture")
    code, out, err = predict("b.png", "--table", "t.csv", "--overwrite")
    assert (code, out, err.splitlines()[-1]) == (2, "", "mien: error: 1 of 1 images could not be read")
    assert next(read_rows(tmp_path / "t.csv"))["image"] == "a.png"
    assert "named for two outputs" in predict("a.png", "--table", "u.csv", "--features", "u.csv")[2]


def test_two_stars_within_a_name_are_told(predict, tmp_path):
    picture(tmp_path / "f" / "a.png")
    code, out, err = predict("f/**.png")
    assert (code, out) == (2, "")
    assert (
        err
        == "mien: error: f/**.png: ** stands for folders, alone between slashes (pics/**/*.jpg); within a name write *\n"
    )
    assert images(predict("f/**/*.png", "--json")[1]) == ["f/a.png"]


@pytest.mark.parametrize(
    "words", [["predict", "{}.png"], ["predict", "f/{}*"], ["watch", "{}.mp4", "--table", "t.csv"]]
)
@pytest.mark.parametrize("new", [False, True])
def test_a_name_too_long_for_any_file_is_one_line(words, new, mien, monkeypatch):
    if new:  # Python 3.14 answers False where it cannot know
        for name, answer in (("exists", os.path.exists), ("is_dir", os.path.isdir), ("is_file", os.path.isfile)):
            monkeypatch.setattr(Path, name, answer)
    code, out, err = mien(*(word.format("a" * 5000) for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "aaa...: is too long for a file's name or path; give a shorter one" in err


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "(permission denied); ask its owner, or choose another place"),
        (errno.EPERM, "(operation not permitted); on macOS allow it to this terminal (System Settings, Privacy & Security, "
         "Files and Folders), or choose another place"),
    ],
)  # fmt: skip
def test_a_place_that_may_not_be_looked_into_is_one_line(number, words, monkeypatch, capsys):
    def denied(path):
        raise PermissionError(number, "not permitted", str(path))

    monkeypatch.setattr(Path, "is_dir", denied)
    monkeypatch.setattr(sys, "argv", ["mien", "predict", "locked/pics"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, capsys.readouterr().err) == (
        2,
        f"mien: error: locked/pics: may not be looked into {words}\n",
    )


@pytest.mark.parametrize("words", [["predict", "f/a.png"], ["watch", "f"]])
@pytest.mark.parametrize("size", ["0", "-5", "nan", "inf"])
def test_faces_of_no_size_are_not_looked_for(words, size, mien, tmp_path):
    picture(tmp_path / "f" / "a.png")
    code, out, err = mien(*words, "--min-size", size, "--model", "tiny.onnx")
    assert (code, out) == (2, "")
    assert "min-size" in err.replace("_", "-")


def test_nothing_to_read_is_two(predict, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("I am text")
    for words, message in ((["empty"], "a folder without images"), (["text.jpg"], "1 of 1 images could not be read")):
        code, _, err = predict(*words)
        assert (code, message in err) == (2, True)


def test_a_picture_that_cannot_be_read_has_a_line_too(predict, odd_name, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / f"{odd_name}.jpg").write_text("I am text")
    code, out, _ = predict(f"{odd_name}.jpg", "a.png", "--json")
    bad, good = [msgspec.json.decode(line, type=ImageRecord) for line in out.splitlines()]
    assert (code, bad.image, bad.faces, good.image, good.error) == (1, "caf\ufffd.jpg", (), "a.png", None)
    assert bad.error == "caf\ufffd.jpg: is not an image of a known form; give JPEG, PNG, WebP, BMP, GIF or TIFF"


def test_jpeg_by_other_names_is_read_and_other_kinds_are_told(predict, tmp_path):
    picture(tmp_path / "f" / "a.jpg")
    for name in ("b.jfif", "c.JPE"):
        (tmp_path / "f" / name).write_bytes((tmp_path / "f" / "a.jpg").read_bytes())
    for name in ("d.HEIC", "e.heic", "g.avif", "._a.heic", "notes.txt"):
        (tmp_path / "f" / name).write_bytes(b"?")
    code, out, err = predict("f", "--json")
    assert (code, images(out)) == (0, ["f/a.jpg", "f/b.jfif", "f/c.JPE"])
    told = "3 pictures of other kinds were left out (.heic 2, .avif 1); save them as JPEG or PNG"
    assert err == f"mien: {told}\n"
    (tmp_path / "g" / "h").mkdir(parents=True)
    (tmp_path / "g" / "a.heic").write_bytes(b"?")
    code, _, err = predict("g")
    assert (code, "1 picture of another kind was left out (.heic 1)" in err) == (2, True)
    picture(tmp_path / "g" / "h" / "b.png")
    code, _, err = predict("g")
    assert (code, "those below it are read with 'g/**/*.png'" in err) == (2, True)


def test_the_table_names_what_it_shows(predict, tmp_path):
    picture(tmp_path / "[red]a.png")
    code, out, _ = predict("[red]a.png")
    assert code == 0
    assert "[red]a.png" in out
    assert all(word in out for word in ("expression", "second", "valence", "arousal"))


def test_names_of_any_bytes_can_be_printed(predict, odd_name, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / f"{odd_name}.png")  # OpenCV cannot write such a name
    code, out, _ = predict(f"{odd_name}.png", "--json")
    assert (code, images(out)) == (0, ["caf\ufffd.png"])
    code, out, _ = predict(f"{odd_name}.png", "--save", odd_name)
    assert (code, "annotated pictures: caf\\udce9" in out) == (0, True)
    assert (tmp_path / odd_name / f"{odd_name}.jpg").is_file()


def test_a_model_whose_name_is_no_utf8_is_one_line(mien, odd_name, tmp_path):
    picture(tmp_path / "a.png")
    a_model(tmp_path / f"{odd_name}.onnx")
    code, _, err = mien("predict", "a.png", "--model", f"{odd_name}.onnx")
    assert (code, err.count("\n"), "its name is not UTF-8" in err) == (2, 1, True)


def test_same_names_of_different_folders_do_not_collide(predict, tmp_path):
    for name in ("f/a.png", "g/a.png", "g/a.jpg"):
        picture(tmp_path / name)
    code, out, _ = predict("f", "g", "--save", "out")
    assert (code, "annotated pictures: out" in out) == (0, True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.jpg", "a-3.jpg", "a.jpg"]
    assert out.endswith("annotated pictures: out\n  a-2.jpg: g/a.jpg\n  a-3.jpg: g/a.png\n")


def test_a_number_fits_into_the_longest_name(predict, tmp_path):
    name = "é" * 125 + "x.png"  # 255 bytes
    for folder in "fgh":
        picture(tmp_path / folder / name)
    code, _, err = predict("f", "g", "h", "--save", "out")
    assert (code, err) == (0, "")
    stems = sorted(path.stem for path in (tmp_path / "out").iterdir())
    assert stems == sorted(["é" * 125 + "x", "é" * 124 + "-2", "é" * 124 + "-3"])


def test_each_row_of_the_table_tells_its_file(predict, tmp_path):
    long = [f"{'a-long-name-' * 10}{i}.png" for i in (1, 2)]
    for name in ("f/a.png", "g/a.png", "g/b.png", *long):
        picture(tmp_path / name)
    code, out, _ = predict("f", "g", *long)
    names = [line.split(" ")[0] for line in out.splitlines()[2:] if line[0] != " "]
    assert (code, names[:3], "".join(names[3:])) == (0, ["f/a.png", "g/a.png", "b.png"], "".join(long))


def test_names_that_differ_in_capitals_alone_are_one_to_some_disks(predict, tmp_path):
    for name in ("x/IMG.JPG", "y/img.png"):
        picture(tmp_path / name)
    assert predict("x", "y", "--save", "out")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["IMG.jpg", "img-2.jpg"]


def test_an_image_that_is_read_is_never_replaced(predict, tmp_path):
    picture(tmp_path / "f" / "a.jpg")
    before = (tmp_path / "f" / "a.jpg").read_bytes()
    code, _, err = predict("f", "--save", "f", "--overwrite")
    assert (code, "is one of the images to read" in err) == (2, True)
    assert (tmp_path / "f" / "a.jpg").read_bytes() == before


def test_a_place_that_cannot_be_made_is_one_line(predict, tmp_path):
    picture(tmp_path / "a.png")
    code, _, err = predict("a.png", "--save", "a.png/out")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be made" in err


def test_a_model_that_is_none_is_one_line(mien, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    code, out, err = mien("predict", "a.png", "--model", "bad.onnx", "--detector", "whole")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mien: error: bad.onnx: not a readable ONNX file")


def test_auto_needs_no_network(mien, tmp_path):
    picture(tmp_path / "a.png")
    code, out, err = mien("predict", "a.png", "--model", "tiny.onnx", "--json")
    assert (code, images(out), err) == (0, ["a.png"], "")


def test_models_list_survives_a_damaged_cache(mien, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "yunet_n_dynamic.onnx").write_bytes(b"damaged")
    code, out, _ = mien("models", "list")
    assert (code, "yunet" in out, "altered" in out) == (0, True, True)


def test_models_where_and_pull(mien, tmp_path, monkeypatch):
    code, _, err = mien("models", "where", "yunet")
    assert (code, "mien models pull yunet" in err) == (2, True)
    code, _, err = mien("models", "pull", "yunet")
    assert (code, "offline" in err) == (2, True)
    monkeypatch.setenv("MIEN_YUNET", str(tmp_path / "tiny.onnx"))
    assert mien("models", "where", "yunet")[1].strip() == str(tmp_path / "tiny.onnx")


def test_a_picture_too_wide_to_be_saved_does_not_stop_the_rest(predict, tmp_path):
    for name in ("a.png", "c.png"):
        picture(tmp_path / name)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((4, 70_000, 3), np.uint8))
    code, out, err = predict("a.png", "b.png", "c.png", "--save", "out")
    assert (code, all(name in out for name in ("a.png", "b.png", "c.png"))) == (1, True)
    wide = "out/b.jpg: cannot be written: 70000x4 pixels are more than .jpg holds; make it smaller first"
    assert err == f"mien: {wide}\nmien: 1 annotated pictures could not be written\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize("json", [True, False])
def test_ctrl_c_keeps_what_was_read(json, predict, tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)

    def stopping(path):
        if path.name == "c.png":
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("mien.vision.image.read_image", stopping)
    outputs = ["--save", "out", "--table", "faces.csv"]
    code, out, err = predict("a.png", "b.png", "c.png", *outputs, *(["--json"] if json else []))
    assert (code, "a.png" in out, "b.png" in out, "c.png" in out) == (130, True, True, False)
    assert err.endswith("mien: interrupted after 2 of 3 images; what was read is kept\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg"]
    rows = (tmp_path / "faces.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["a.png", "b.png"]


def test_a_full_disk_loses_no_answers(predict, tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)

    def full(path, *_):
        if path.name == "b.jpg":
            raise OutputError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("mien.vision.image.write_image", full)
    code, out, err = predict("a.png", "b.png", "--save", "out")
    assert (code, "a.png" in out, "b.png" in out) == (2, True, True)
    assert err == "mien: error: out/b.jpg: cannot be written (No space left on device)\n"
