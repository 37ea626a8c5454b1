"""mien data, show and runs: from a drawn dataset to chips, through the command line."""

import json
from pathlib import Path

import cv2
import pytest

from builders import drawn_face
from mien.data.manifest import Manifest
from mien.recipe import load_recipe, recipe_text


@pytest.fixture
def drawn(mien):
    assert mien("data", "synthetic", "--out", "drawn.parquet", "--count", 80)[0] == 0
    return "drawn.parquet"


def test_every_source_is_listed_with_its_layout(mien):
    code, out, _ = mien("data", "list")
    assert code == 0
    for name in ("affectnet", "fer2013", "ferplus", "rafdb", "ckplus", "expw", "abaw-va", "sfew", "table"):
        assert name in out


def test_drawn_faces_show_their_counts_and_are_not_overwritten(mien, drawn):
    code, _, err = mien("data", "synthetic", "--out", drawn)
    assert (code, "exists already" in err) == (2, True)
    assert len(Manifest.read(drawn)) == 80


def test_split_select_merge_and_cap(mien, drawn):
    assert mien("data", "split", drawn, "--out", "s.parquet", "--shares", "train=0.5,test=0.5", "--seed", 3)[0] == 0
    assert set(Manifest.read("s.parquet").splits()) == {"train", "test"}
    code, out, _ = mien(
        "data", "select", "s.parquet", "--labels", "happiness,anger", "--cap", 4, "--out", "two.parquet"
    )
    assert code == 0
    assert "left out: 60 rows" in out
    assert max(Manifest.read("two.parquet").split("train").counts().values()) == 4
    assert mien("data", "merge", "drawn.parquet", "two.parquet", "--out", "m.parquet")[0] == 0
    assert len(Manifest.read("m.parquet")) == 80 + len(Manifest.read("two.parquet"))
    for words, message in (
        (("t.parquet", "--shares", "half"), "expected such as train=0.8"),
        (("t.parquet", "--shares", "train=0.5,train=0.5"), "names a split twice"),
        (("t.parquet", "--shares", "train=0.5,test=0.2"), "numbers that sum to 1"),
        (("s.parquet",), "exists already"),
    ):
        code, _, err = mien("data", "split", drawn, "--out", *words)
        assert (code, message in err, "auditing" in err) == (2, True, False), err


def test_a_folder_is_recognised_and_read(mien, tmp_path):
    for label in ("happy", "sad"):
        (tmp_path / "faces" / label).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "faces" / label / f"{i}.png"), drawn_face(32, seed=i))
    code, out, _ = mien("data", "recognise", "faces")
    assert (code, "folders" in out) == (0, True)
    assert mien("data", "read", "folders", "faces", "--out", "f.parquet")[0] == 0
    assert Manifest.read("f.parquet").counts()["happiness"] == 3


def test_audit_and_clean_leave_a_page_and_a_log(mien, drawn):
    mien("data", "merge", drawn, drawn, "--out", "twice.parquet")
    code, out, _ = mien("data", "audit", "twice.parquet", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 160
    assert mien("data", "audit", "twice.parquet", "--out", "page.html")[0] == 0
    assert "<html" in Path("page.html").read_text()
    code, out, _ = mien("data", "clean", "twice.parquet", "--rules", "duplicates", "--out", "clean.parquet")
    assert code == 0
    assert len(Manifest.read("clean.parquet")) == 80
    assert len(Path("clean.log.csv").read_text().splitlines()) == 81
    code, _, err = mien("data", "clean", drawn, "--rules", "duplicate", "--out", "x.parquet")
    assert (code, "did you mean 'duplicates'" in err) == (2, True)


def test_chips_are_prepared_and_wrong_ones_refused(mien, drawn):
    points = "[[0.32, 0.4], [0.68, 0.4], [0.5, 0.58], [0.36, 0.75], [0.64, 0.75]]"
    words = ["--set", f"crop.points={points}", "--set", "crop.width=32", "--set", "crop.height=32"]
    code, out, _ = mien("data", "prepare", drawn, "--out", "chips.parquet", *words)
    assert (code, "(80)" in out) == (0, True)
    assert Manifest.read("chips.parquet").header.crop.width == 32
    wide = "crop.points=[[0.4, 0.45], [0.6, 0.45], [0.5, 0.55], [0.42, 0.65], [0.58, 0.65]]"
    code, _, err = mien("data", "prepare", drawn, "--out", "other.parquet", "--set", wide)
    assert (code, "crop.points: synthetic's pictures are already cropped" in err) == (2, True)
    code, _, err = mien("data", "submit", "ferplus-small", "chips.parquet", "--out", "s.csv")
    assert (code, "its chips are cut otherwise than ferplus-small wants" in err) == (2, True)


def test_the_competitions_rows_get_their_submission(mien, tmp_path):
    (tmp_path / "fer").mkdir()
    grey = [cv2.cvtColor(drawn_face(48, seed=i), cv2.COLOR_RGB2GRAY).ravel() for i in range(5)]
    (tmp_path / "fer" / "test.csv").write_text("pixels\n" + "".join(" ".join(map(str, row)) + "\n" for row in grey))
    assert mien("data", "read", "fer2013", "fer/test.csv", "--out", "test.parquet")[0] == 0
    code, out, err = mien("data", "submit", "ferplus-small", "test.parquet", "--out", "s.csv")
    assert (code, err) == (0, "")
    assert "5 rows" in out
    assert len((tmp_path / "s.csv").read_text().split()) == 5


def test_train_rows_are_no_part_of_a_submission(mien, tmp_path):
    def line(seed: int) -> str:
        return " ".join(map(str, cv2.cvtColor(drawn_face(48, seed=seed), cv2.COLOR_RGB2GRAY).ravel()))

    (tmp_path / "fer").mkdir()
    (tmp_path / "fer" / "train.csv").write_text("emotion,pixels\n" + "".join(f"{i},{line(i)}\n" for i in range(3)))
    (tmp_path / "fer" / "test.csv").write_text("pixels\n" + "".join(f"{line(i)}\n" for i in (7, 8)))
    assert mien("data", "read", "fer2013", "fer", "--out", "all.parquet")[0] == 0
    code, out, _ = mien("data", "submit", "ferplus-small", "all.parquet", "--out", "s.csv")
    assert (code, "(2 rows of test)" in out) == (0, True)
    assert len((tmp_path / "s.csv").read_text().split()) == 2
    code, out, _ = mien("data", "submit", "ferplus-small", "all.parquet", "--out", "t.csv", "--split", "train")
    assert (code, "(3 rows of train)" in out) == (0, True)
    code, _, err = mien("data", "submit", "ferplus-small", "all.parquet", "--out", "v.csv", "--split", "validation")
    assert (code, "has no row of validation; it has train, test" in err) == (2, True)


def test_labels_that_no_row_has_are_refused(mien, drawn):
    code, _, err = mien("data", "select", drawn, "--labels", "happiness,sadnes", "--out", "x.parquet")
    assert (code, "--labels: synthetic has no 'sadnes'; did you mean 'sadness'" in err) == (2, True)
    code, _, err = mien("data", "merge", drawn, "--labels", "happy,joyful", "--out", "x.parquet")
    assert (code, "has no 'joyful'" in err) == (2, True)
    assert mien("data", "select", drawn, "--labels", "happy,sad", "--out", "two.parquet")[0] == 0
    assert Manifest.read("two.parquet").counts() == {"happiness": 10, "sadness": 10}


def test_cleaning_everything_away_writes_nothing(mien, tmp_path):
    faces = tmp_path / "faces"
    for name in ("happy", "sad"):
        (faces / name).mkdir(parents=True)
        (faces / name / "a.png").write_bytes(b"no picture")
    assert mien("data", "read", "folders", faces, "--out", "f.parquet")[0] == 0
    code, _, err = mien("data", "clean", "f.parquet", "--rules", "undecodable", "--out", "c.parquet")
    assert (code, "undecodable drops all 2 rows; nothing is written" in err) == (2, True)
    assert not (tmp_path / "c.parquet").exists()


def test_recipes_show_what_they_ask_for(mien):
    code, out, _ = mien("show", "fer2013-cnn")
    assert code == 0
    assert "51,933,223 parameters" in out
    assert "probability of a mirror image" in out
    assert "fer2013-mlp" in mien("show")[1]


def test_runs_are_compared(mien, tmp_path):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(recipe_text(load_recipe("ferplus-small")))
    (run / "metrics.csv").write_text("epoch,lr,train/loss,val/accuracy\n0,0.1,1.5,0.4\n1,0.0,1.2,0.5\n")
    code, out, _ = mien("runs", "runs")
    assert code == 0
    assert "ferplus-small" in out
    assert "0.5" in out
    code, _, err = mien("runs", str(tmp_path))
    assert (code, "no runs here" in err) == (2, True)
