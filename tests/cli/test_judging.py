"""What judging refuses before it works, and what other tools' answers may leave unsaid, as a person types it."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from mien.data.manifest import Manifest
from mien.data.synthetic import synthetic
from mien.evaluation.predictions import Predictions, write_predictions

WORDS = ("--data", "d.parquet", "--split", "test")


@pytest.fixture
def rows(tmp_path, monkeypatch) -> Manifest:
    """40 drawn faces that test, in d.parquet, and answers of which some are right: some.csv, few.csv."""
    monkeypatch.chdir(tmp_path)
    drawn = synthetic(200, seed=0, side=32)
    drawn.write("d.parquet")
    test = drawn.split("test")
    for name, right in (("some", 30), ("few", 10)):
        write_predictions(told(test, right), f"{name}.csv")
    return test


def told(rows: Manifest, right: int) -> Predictions:
    """Answers of 0.65 for one label, right on the first rows."""
    truth = rows.targets().argmax(axis=1)
    said = np.where(np.arange(len(rows)) < right, truth, (truth + 1) % 8)
    p = np.full((len(rows), 8), 0.05)
    p[np.arange(len(rows)), said] = 0.65
    return Predictions(rows.labels, rows.ids, p, np.clip(rows.affect() + 0.1, -1, 1))


def table(path: str, columns: dict[str, list]) -> None:
    """Write a CSV."""
    pa.csv.write_csv(pa.table(columns), path)


def scores(mien, *words: object) -> dict:
    """What `mien evaluate WORDS --json` says."""
    code, out, err = mien("evaluate", *words, *WORDS, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


REFUSED = {
    "--labels neutral,hapiness": "synthetic has no label 'hapiness'; did you mean 'happiness'?",
    "--card c.md": "some.csv is no .onnx model; a card is of the file that is shipped",
    "--predictions p.txt": "predictions are written as .csv or .parquet",
    "--out r.md --card r.md": "no .onnx model",
    "--out r.html --robustness": "some.csv is a table of answers; only a model can be shown corrupted faces",
    "--tta flip": "some.csv is a table of answers; only a model can be asked again",
    "--source fer2031": "did you mean 'fer2013'?",
}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_asked_is_told_before_the_work(words, mien, monkeypatch):
    monkeypatch.setattr("mien.evaluation.judgement.judge", None)  # nothing gets so far
    code, _, err = mien("evaluate", "some.csv", *WORDS, *words.split())
    assert (code, REFUSED[words] in err) == (2, True), err
    assert not list(Path().glob("[rcp].*"))


@pytest.mark.usefixtures("rows")
def test_a_card_is_a_file_of_its_own(mien):
    words = ("evaluate", "ferplus-small", *WORDS)
    code, _, err = mien(*words, "--card", "c.txt")
    assert (code, "a card is .md" in err) == (2, True)
    code, _, err = mien(*words, "--card", "c.md", "--out", "c.md")
    assert (code, "is named for two outputs" in err) == (2, True)


def test_a_manifest_keeps_its_rule(mien, rows):
    Manifest(msgspec.structs.replace(rows.header, rule="majority"), rows.table, rows.root).write("voted.parquet")
    words = ("evaluate", "some.csv", "--data", "voted.parquet", "--split", "test", "--json")
    assert mien(*words)[0] == mien(*words, "--rule", "majority")[0] == 0
    code, _, err = mien(*words, "--rule", "plain")
    assert (code, "voted.parquet was made by the rule 'majority' and keeps it" in err) == (2, True)


def test_columns_go_by_their_names(mien, rows):
    found = told(rows, 30)
    turned = Predictions(
        type(found.labels)(found.labels.names[::-1]), found.ids, found.probabilities[:, ::-1], found.affect
    )
    write_predictions(turned, "turned.csv")
    assert scores(mien, "turned.csv")["scores"] == scores(mien, "some.csv")["scores"]


def test_labels_alone_need_not_say_every_label(mien, rows):
    truth = rows.targets().argmax(axis=1)
    said = [rows.labels.names[i] if i < 3 else "neutral" for i in truth]
    table("said.csv", {"id": rows.ids, "label": said})
    found = scores(mien, "said.csv")["scores"]["expression"]
    assert found["accuracy"] == pytest.approx(3 / 8)
    assert found["labels"] == list(rows.labels)


@pytest.mark.parametrize("verb", ["evaluate", "compare some.csv", "ensemble some.csv"])
def test_a_table_without_some_of_the_rows_is_named(verb, mien, rows):
    write_predictions(told(rows, 30).take(range(5, 40)), "part.csv")
    code, _, err = mien(*verb.split(), "part.csv", *WORDS)
    assert code == 2
    assert f"part.csv: no answer for 5 of the 40 rows of test (such as {rows.ids[0]}); it answers rows such as" in err


def test_valence_and_arousal_alone_are_judged_and_ranked(mien, rows):
    near, far = rows.affect(), np.clip(rows.affect() * -0.5, -1, 1)
    for name, affect in (("far", far), ("near", near)):
        table(f"{name}.csv", {"id": rows.ids, "valence": affect[:, 0].tolist(), "arousal": affect[:, 1].tolist()})
    found = scores(mien, "near.csv")["scores"]
    assert found["expression"] is None
    assert found["affect"]["ccc"] == pytest.approx([1, 1])
    code, out, _ = mien("compare", "far.csv", "some.csv", "near.csv", *WORDS, "--json")
    assert code == 0
    assert [one["model"] for one in json.loads(out)["judgements"]] == ["near.csv", "some.csv", "far.csv"]
    at = rows.table.schema.get_field_index("valence")
    valence = pa.array([None] * 10 + rows.table["valence"].to_pylist()[10:], pa.float32())
    Manifest(rows.header, rows.table.set_column(at, "valence", valence), rows.root).write("part.parquet")
    out = mien("compare", "near.csv", "some.csv", "--data", "part.parquet", "--split", "test")[1]
    assert "On the same 30 faces, the best first" in out


def test_an_unsaid_valence_is_named(mien, rows):
    affect = rows.affect()
    columns = {"id": rows.ids, "valence": [None, *affect[1:, 0].tolist()], "arousal": affect[:, 1].tolist()}
    table("gap.csv", columns)
    code, _, err = mien("evaluate", "gap.csv", *WORDS)
    assert code == 2
    assert f"valence or arousal of {rows.ids[0]} is not a number, and of 1 annotated rows in all" in err


@pytest.mark.usefixtures("rows")
def test_models_of_one_name_keep_their_folders(mien):
    for folder, name in (("a", "some"), ("b", "few")):
        Path(folder).mkdir()
        Path(f"{name}.csv").rename(f"{folder}/m.csv")
    code, out, _ = mien("compare", "b/m.csv", "a/m.csv", *WORDS, "--json")
    assert code == 0
    assert [one["model"] for one in json.loads(out)["judgements"]] == ["a/m.csv", "b/m.csv"]
    code, _, err = mien("compare", "a/m.csv", "./a/m.csv", *WORDS)
    assert (code, "one of these is named twice" in err) == (2, True)


@pytest.mark.usefixtures("rows")
def test_a_subject_with_one_row_each_is_no_group(mien):
    found = scores(mien, "some.csv")
    assert found["intervals"]["accuracy"] == found["scores"]["expression"]["interval"]
    assert found["intervals"]["neutral recall"][1] > found["intervals"]["neutral recall"][0]


@pytest.mark.usefixtures("rows")
def test_an_ensemble_says_what_its_file_cannot_be(mien):
    code, _, err = mien("ensemble", "some.csv", "./some.csv", *WORDS)
    assert (code, "named twice" in err) == (2, True)
    Path("copy.onnx").write_bytes((Path(__file__).parents[2] / "src/mien/weights/ferplus-small.onnx").read_bytes())
    code, _, err = mien("ensemble", "ferplus-small", "copy.onnx", *WORDS, "--weights", "0,1", "--out", "e.onnx")
    assert (code, "only copy.onnx has a weight above 0" in err) == (2, True)


def test_what_rows_do_not_define_has_no_interval(mien, rows):
    words = ("--data", "one.parquet", "--split", "test", "--json")
    rows.take([0]).write("one.parquet")
    write_predictions(told(rows.take([0]), 1), "one.csv")
    found = json.loads(mien("evaluate", "one.csv", *words)[1])
    assert found["scores"]["expression"]["aucpr"] is None
    assert not {"kappa", "alpha", "auroc", "aucpr"} & set(found["intervals"])
    assert found["intervals"]["top2"] == found["intervals"]["accuracy"] == pytest.approx([0.2065, 1], abs=1e-4)
    table("same.csv", {"id": rows.ids, "label": ["fear"] * len(rows)})
    found = scores(mien, "same.csv")["intervals"]
    assert "fear precision" in found
    assert "anger precision" not in found


@pytest.mark.usefixtures("rows")
def test_a_card_says_what_was_not_measured(mien):
    code, _, err = mien("evaluate", "ferplus-small", *WORDS, "--card", "c.md", "--slice", "brightness")
    assert (code, err) == (0, "")
    card = Path("c.md").read_text()
    assert "- By brightness" in card
    assert "Expect unequal accuracy by age, gender and skin tone; it was not measured here" in card


@pytest.mark.usefixtures("rows")
def test_a_card_names_the_rows_that_calibrated(mien):
    assert mien("calibrate", "ferplus-small", "--data", "d.parquet", "--split", "train", "--out", "c.onnx")[0] == 0
    assert mien("evaluate", "c.onnx", *WORDS, "--card", "c.md")[0] == 0
    card = Path("c.md").read_text()
    assert "chosen on: synthetic, train, 120 rows: temperature." in card
    assert "that the run held out" not in card
