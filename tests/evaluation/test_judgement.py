"""Judgements: copies left out, the report as a person gets it, comparisons from the command line."""

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from builders import a_run
from mien.data.manifest import Header, Manifest, Sample, make_manifest
from mien.data.split import project
from mien.data.synthetic import synthetic
from mien.evaluation.judgement import Judgement, copies_in_training, coverage, judge
from mien.evaluation.metrics import truths, wilson
from mien.evaluation.origin import model_facts
from mien.evaluation.predictions import Predictions, write_predictions
from mien.evaluation.slices import slice_rows
from mien.export.onnx import export_onnx
from mien.labels import LabelSet
from mien.recipe import load_recipe
from mien.report.card import model_card
from mien.report.judged import judgement_page, judgement_text
from mien.report.run import run_page
from mien.report.tables import span
from mien.runtime.sessions import read_spec
from mien.runtime.store import model_file
from mien.spec import CropSpec
from pages import Reader, check_page


def answers(manifest: Manifest, right: float, seed: int = 0) -> Predictions:
    """Predictions that are right on about this share of the rows, each with a confidence of 0.5 to 0.9."""
    rng = np.random.default_rng(seed)
    truth = manifest.targets().argmax(1)
    c = len(manifest.labels)
    said = np.where(rng.random(len(truth)) < right, truth, rng.integers(0, c, len(truth)))
    sure = rng.uniform(0.5, 0.9, len(truth))
    p = np.repeat(((1 - sure) / (c - 1))[:, None], c, axis=1)
    p[np.arange(len(truth)), said] = sure
    return Predictions(manifest.labels, manifest.ids, p, np.clip(manifest.affect() + 0.1, -1, 1))


def chip(level: int) -> bytes:
    return cv2.imencode(".png", np.full((24, 24, 3), level, np.uint8))[1].tobytes()


def test_a_model_of_two_files_is_told_by_both(tmp_path):
    (tmp_path / "m.xml").write_bytes(b"graph")
    (tmp_path / "m.bin").write_bytes(bytes(2_000_000))
    told = model_facts(tmp_path / "m.xml", None)["model"]
    assert told.startswith("m.xml and m.bin, 2.00 MB, sha256 ")
    (tmp_path / "m.bin").write_bytes(bytes(1_999_999) + b"w")
    assert model_facts(tmp_path / "m.xml", None)["model"] != told


@pytest.fixture
def drawn() -> Manifest:
    return synthetic(120, seed=0)


def test_copies_are_found_across_manifests(drawn):
    test = drawn.take(range(10))
    train = drawn.take([3, 4, *range(40, 60)])
    assert copies_in_training(test, train) >= {"synthetic:3", "synthetic:4"}


@pytest.mark.parametrize("borders", [(0, 0), (0, 4)])
def test_black_around_masked_chips_makes_no_copies(borders):
    mask = cv2.fillConvexPoly(np.zeros((64, 64), np.uint8), np.array([[18, 20], [46, 20], [42, 44], [22, 44]]), 1)

    def chips(first: int, count: int, border: int) -> Manifest:
        samples = []
        for seed in range(first, first + count):
            rough = np.random.default_rng(seed).integers(120, 190, (8, 8, 3)).astype(np.uint8)
            face = cv2.resize(rough, (64, 64), interpolation=cv2.INTER_LINEAR) * mask[..., None]
            samples.append(Sample(f"p{seed}", cv2.imencode(".png", face)[1].tobytes(), np.array([1, 0], np.float32)))
        crop = CropSpec(width=64 - 2 * border, height=64 - 2 * border, border=border, mask="hull")
        return make_manifest(samples, Header(source="planted", labels=("fear", "anger"), crop=crop))

    judged, training = chips(0, 20, borders[0]), chips(18, 60, borders[1])
    assert copies_in_training(judged, training) == {"p18", "p19"}


def test_a_judgement_has_intervals_and_a_second_score(drawn):
    found = judge("m", answers(drawn, 0.8), drawn, {"synthetic:0", "synthetic:1", "another"}, draws=200)
    assert found.copies == 2
    assert found.without_copies.expression.rows == 118
    for name in ("macro_recall", "macro_f1", "kappa"):
        low, high = found.intervals[name]
        assert low <= getattr(found.scores.expression, name) <= high
    low, high = found.intervals["valence ccc"]
    assert low <= found.scores.affect.ccc[0] <= high
    everything = judge("m", answers(drawn, 0.8), drawn, set(drawn.ids), draws=10)
    assert everything.without_copies is None


def test_copies_of_all_labelled_rows_leave_the_judgement_whole():
    labels = LabelSet(("happiness", "sadness"))
    rows = [Sample(f"r{i}", chip(i), labels.onehot("sadness") if i < 40 else None) for i in range(60)]
    manifest = make_manifest(rows, Header(source="drawn", labels=labels.names))
    said = Predictions(labels, manifest.ids, np.full((60, 2), 0.5), np.full((60, 2), np.nan))
    found = judge("m", said, manifest, {f"r{i}" for i in range(40)}, draws=10)
    assert found.scores.expression.rows == 40
    assert (found.copies, found.without_copies) == (40, None)


def test_coverage_falls_as_confidence_rises():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45]])
    found = {least: (share, hit) for least, share, hit in coverage(p, np.array([0, 0, 1]))}
    assert found[0.0] == (1.0, 2 / 3)
    assert found[0.6] == (2 / 3, 1.0)
    assert found[0.9] == (1 / 3, 1.0)
    assert 0.95 not in found


def test_the_page_is_whole_and_shows_the_faces(drawn):
    told = answers(drawn, 0.7)
    found = judge("<model>", told, drawn, draws=50, made={"data": "<drawn>"})
    found = msgspec.structs.replace(found, slices=slice_rows(told, drawn, ["label", "brightness"], draws=20))
    html = judgement_page(found, told, drawn, "mien evaluate '<model>'")
    page = check_page(html)
    assert len(page.all("img")) > 24
    there = {a["id"] for a in page.all("h2")}
    assert there == {"figures", "confusion", "classes", "sure", "affect", "slices", "mistakes", "doubts", "how"}
    assert "&lt;model&gt;" in html
    assert "<model>" not in html
    assert len(page.all("image")) == 2  # as read, as annotated
    bare = check_page(judgement_page(found, told, drawn, "mien", faces=False))
    assert not bare.all("img")
    assert "it holds no pictures" in bare.text


def test_the_text_holds_every_figure_with_its_interval(drawn):
    found = judge("m", answers(drawn, 0.7), drawn, {drawn.ids[0]}, draws=50, made={"data": "drawn | here"})
    text = judgement_text(found, "mien evaluate m")
    lines = text.splitlines()
    for name in ("accuracy", "macro F1", "Cohen's kappa", "AUROC, one against the rest", "Brier score", "CCC"):
        line = next(line for line in lines if line.startswith(f"| {name} |"))
        assert " to " in line, name
    assert "### Without copies" in text
    assert "drawn \\| here" in text
    assert {line.count("|") for line in lines if line.startswith("| neutral |")} == {8, 9}


def test_what_is_odd_is_said(drawn):
    one = drawn.take([0])
    told = answers(one, 1.0)
    found = judge("m", told, one, draws=20)
    assert any("only 1 row:" in note for note in found.notes)
    assert any("macro means are over the 1 classes" in note for note in found.notes)
    constant = Predictions(drawn.labels, drawn.ids, np.tile(np.eye(8)[0], (len(drawn), 1)), drawn.affect())
    found = judge("m", constant, drawn, draws=20)
    assert "the answer is neutral on every row: precision of the others counts as 0, and kappa is 0" in found.notes
    assert found.scores.expression.kappa == 0
    check_page(judgement_page(found, constant, drawn, "mien"))
    affect_only = Predictions(drawn.labels, drawn.ids, np.full((len(drawn), 8), np.nan), drawn.affect())
    found = judge("m", affect_only, drawn, draws=20)
    assert found.scores.expression is None
    assert {a["id"] for a in check_page(judgement_page(found, affect_only, drawn, "mien")).all("h2")} == {
        "affect",
        "how",
    }


@pytest.mark.parametrize("right", [1.0, 0.5])
def test_what_one_class_does_not_define_is_said_in_words(drawn, right, tmp_path):
    one = drawn.take(np.flatnonzero(drawn.targets().argmax(1) == 0))
    found = judge("m", answers(one, right), one, draws=20)
    scores = found.scores.expression
    assert np.isnan(scores.auroc)
    assert np.isnan(scores.kappa) == (right == 1)
    words = "every label is neutral: AUROC and AUCPR are not defined"
    words += "; nor are kappa and alpha, since every answer is that too" if right == 1 else ""
    assert words in found.notes
    assert not any("the answer is" in note for note in found.notes)
    (tmp_path / "m.onnx").touch()
    card = model_card(read_spec(model_file("ferplus-small")), found, tmp_path / "m.onnx")
    assert "| AUROC, one against the rest | not defined |" in card
    assert ("| Cohen's kappa | not defined |" in card) == (right == 1)
    assert f"Note: {words}." in card
    page = Reader(a_run_page(tmp_path, found))
    assert page.text.count("not defined") >= 3
    assert words in page.text
    assert not {"nan", "()"} & set(card.split()) | {"nan"} & set(page.text.split())


def test_a_run_has_the_interval_of_its_judgement(drawn, tmp_path):
    """Rows of one subject are drawn together, which Wilson's interval does not know."""
    subjects = pa.array([f"s{number // 12}" for number in range(len(drawn))])
    at = drawn.table.schema.get_field_index("subject")
    tied = Manifest(drawn.header, drawn.table.set_column(at, "subject", subjects), drawn.root)
    found = judge("m", answers(drawn, 0.7), tied, draws=200)
    assert found.intervals["accuracy"] != found.scores.expression.interval
    assert f"accuracy ({span(found.intervals['accuracy'])})" in a_run_page(tmp_path, found)


def test_proportions_of_none_or_all_are_not_sure_of_themselves(drawn):
    """Draws of subjects cannot vary there: Wilson's interval with each subject counted once."""
    at = drawn.table.schema.get_field_index("subject")
    names = [f"s{number // 12}" for number in range(len(drawn))]
    tied = Manifest(drawn.header, drawn.table.set_column(at, "subject", pa.array(names)), drawn.root)
    truth = truths(tied)
    said = np.where(truth == 1, 2, truth)
    told = Predictions(tied.labels, tied.ids, np.eye(len(tied.labels))[said], tied.affect())
    found = judge("m", told, tied, draws=50).intervals
    subjects = [len({names[row] for row in np.flatnonzero(truth == label)}) for label in (0, 1)]
    assert found["neutral recall"] == wilson(subjects[0], subjects[0])
    assert found["happiness recall"] == wilson(0, subjects[1])
    assert found["accuracy"][0] > 0
    sides = slice_rows(told, tied, ["label"], draws=50)[0].groups
    assert {one.name: one.interval for one in sides}["happiness"] == wilson(0, subjects[1])


def a_run_page(folder: Path, found: Judgement) -> str:
    (folder / "metrics.csv").write_text("epoch,lr\n0,0.1\n")
    (folder / "curves.png").touch()
    (folder / "environment.json").write_text(
        '{"machine": "m", "cores": 1, "gpus": [], "python": "3", "versions": {}, "packages": {}}'
    )
    return run_page(folder, load_recipe("ferplus-small"), read_spec(model_file("ferplus-small")), found)


def test_rivals_are_judged_and_compared(mien, drawn):
    drawn.write("d.parquet")
    test = drawn.split("test")
    write_predictions(answers(drawn, 0.95), "good.csv")
    write_predictions(answers(test, 0.3, seed=1), "bad.parquet")
    code, out, _ = mien("evaluate", "good.csv", "--data", "d.parquet", "--split", "test", "--out", "r.html")
    assert code == 0
    assert "macro recall" in out
    assert "Valence and arousal" in out
    assert "<html" in Path("r.html").read_text()
    code, out, _ = mien("evaluate", "bad.parquet", "--data", "d.parquet", "--split", "test", "--json")
    assert json.loads(out)["scores"]["expression"]["rows"] == len(test)
    code, out, _ = mien("compare", "bad.parquet", "good.csv", "--data", "d.parquet", "--split", "test")
    assert code == 0
    assert out.index("good.csv") < out.index("bad.parquet")
    assert "yes" in out
    code, _, err = mien("compare", "good.csv", "--data", "d.parquet")
    assert (code, "two or more" in err) == (2, True)
    code, _, err = mien("evaluate", "good.csv", "--data", "d.parquet", "--split", "test", "--out", "r.html")
    assert (code, "exists already" in err) == (2, True)


def test_fewer_labels_leave_rows_out(mien, drawn):
    drawn.write("d.parquet")
    write_predictions(answers(drawn, 0.9), "a.csv")
    code, out, _ = mien(
        "evaluate", "a.csv", "--data", "d.parquet", "--split", "test", "--labels", "affectnet7", "--json"
    )
    assert code == 0
    found, test = json.loads(out), drawn.split("test")
    kept = len(project(test, "affectnet7"))
    assert found["scores"]["expression"]["rows"] == kept
    assert f"{len(test) - kept} rows whose label is none of these are left out" in found["notes"]


def test_rows_that_are_not_judged_or_read_whole_are_told(mien):
    grey = cv2.imencode(".png", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
    label = LabelSet(("neutral", "happiness")).onehot("neutral")
    rows = [Sample(f"r{i}", grey, label, split="test") for i in range(4)]
    rows.append(Sample("broken", b"no picture", label, split="test"))
    faces = make_manifest(rows, Header(source="rafdb", labels=("neutral", "happiness")))
    faces.take(range(4)).write("faces.parquet")
    words = ("evaluate", "ferplus-nano", "--split", "test", "--labels", "neutral,happiness", "--json")
    code, out, _ = mien(*words, "--data", "faces.parquet")
    assert code == 0
    assert "in 4 of 4 pictures no face was found: the whole picture was read" in json.loads(out)["notes"]
    faces.write("all.parquet")
    code, out, _ = mien("data", "prepare", "all.parquet", "--recipe", "ferplus-nano", "--out", "chips.parquet")
    assert code == 1
    assert "in 4 no face was found: the whole picture was taken" in out
    code, out, _ = mien(*words, "--data", "chips.parquet")
    assert code == 0
    assert "in 4 of 4 pictures no face was found: the whole picture was read" in json.loads(out)["notes"]
    gone = "1 more row gave no chip when the pictures were prepared; nobody judges these"
    assert gone in json.loads(out)["notes"]


def test_constant_annotations_have_a_ccc_of_zero_without_a_sign(mien, drawn):
    said = answers(drawn, 0.9)
    at = drawn.table.schema.get_field_index("valence")
    table = drawn.table.set_column(at, "valence", pa.array([0.3] * len(drawn), pa.float32()))
    constant = Manifest(drawn.header, table)
    constant.write("d.parquet")
    write_predictions(said, "a.csv")
    found = judge("a", said, constant)
    assert (abs(found.scores.affect.ccc[0]) < 1e-12, np.isnan(found.scores.affect.corr[0])) == (True, True)
    assert (span((-1e-17, 1e-17), False), span((-1e-6, 0.0))) == ("0.000 to 0.000", "0.0 to 0.0")
    out = mien("evaluate", "a.csv", "--data", "d.parquet", "--split", "train")[1]
    assert "-0.000" not in out


def test_groups_and_a_page_without_faces_from_the_command_line(mien, drawn):
    drawn.write("d.parquet")
    write_predictions(answers(drawn, 0.8), "a.csv")
    words = ("evaluate", "a.csv", "--data", "d.parquet", "--split", "train")
    code, out, _ = mien(*words, "--slice", "label", "--slice", "contrast", "--no-faces", "--out", "r.html")
    assert code == 0
    assert "By contrast" in out
    page = check_page(Path("r.html").read_text())
    assert not page.all("img")
    assert "mien evaluate a.csv" in page.text
    assert "a table of answers, made elsewhere" in page.text
    assert mien(*words, "--slice", "age")[0] == 2
    code, _, err = mien(*words, "--robustness")
    assert (code, "only a model can be shown corrupted faces" in err) == (2, True)
    code, _, err = mien(*words, "--card", "c.md")
    assert (code, "is no .onnx model" in err) == (2, True)
    assert not Path("c.md").exists()
    code, _, err = mien(*words, "--out", "r.pdf")
    assert (code, "a report is .html, .md or .json" in err) == (2, True)


def test_comparisons_are_written_as_page_text_and_json(mien, drawn):
    drawn.write("d.parquet")
    for name, right in (("a.csv", 0.9), ("b.csv", 0.4)):
        write_predictions(answers(drawn, right, seed=2), name)
    words = ("compare", "b.csv", "a.csv", "--data", "d.parquet", "--split", "train")
    for suffix in ("html", "md", "json"):
        assert mien(*words, "--out", f"c.{suffix}")[0] == 0
    assert "a.csv is really better" in check_page(Path("c.html").read_text()).text
    assert "### Leaderboard" in Path("c.md").read_text()
    assert [one["model"] for one in json.loads(Path("c.json").read_text())["judgements"]] == ["a.csv", "b.csv"]
    assert mien(*words, "--out", "c.md")[0] == 2


def test_comparisons_tell_what_copies_make_of_them(mien, drawn):
    """In the terminal, in the text and on the page alike."""
    same = drawn.split("test").table
    names = pa.array([f"again {name}" for name in same["id"].to_pylist()[:9]])
    train = same.slice(0, 9).set_column(same.schema.get_field_index("id"), "id", names)
    Manifest(
        drawn.header, train.set_column(train.schema.get_field_index("split"), "split", pa.array(["train"] * 9))
    ).write("t.parquet")
    drawn.write("d.parquet")
    for name, right in (("a.csv", 0.9), ("b.csv", 0.4)):
        write_predictions(answers(drawn, right, seed=2), name)
    words = ("compare", "b.csv", "a.csv", "--data", "d.parquet", "--split", "test", "--train", "t.parquet")
    found = json.loads(mien(*words, "--json")[1])["judgements"][0]
    assert found["copies"] >= 9
    accuracy = f"{found['without_copies']['expression']['accuracy']:.1%}".replace("%", " %")
    low, high = (f"{100 * edge:.1f}" for edge in found["without_intervals"]["accuracy"])
    told = " ".join(mien(*words)[1].split())
    assert f"{found['copies']} judged rows have an identical or near copy" in told
    assert f" {accuracy} {low}\u2013{high} " in told
    assert [mien(*words, "--out", f"c.{suffix}")[0] for suffix in ("html", "md")] == [0, 0]
    text = Path("c.md").read_text()
    assert "| accuracy without copies | 95 % | really behind |" in text
    assert f"| {accuracy} | {low} to {high} |" in text
    page = check_page(Path("c.html").read_text()).text
    assert "accuracy without copies" in page
    assert accuracy in page
    assert "without copies" not in mien(*words[:-2])[1]


def test_a_model_is_judged_under_corruptions(mien, tmp_path):
    model = tmp_path / "m.onnx"
    export_onnx(a_run(tmp_path / "run") / "weights.safetensors", model)
    synthetic(24, seed=0).write("d.parquet")
    words = (
        "evaluate",
        model,
        "--data",
        "d.parquet",
        "--split",
        "train",
        "--robustness",
        "--tta",
        "flip",
        "--card",
        "c.md",
    )
    code, out, err = mien(*words, "--out", "r.html")
    assert code == 0, err
    assert "Under corruptions" in out
    assert (
        len([a for a in check_page(Path("r.html").read_text()).all("svg") if "under" in a.get("aria-label", "")]) == 8
    )
    card = Path("c.md").read_text()
    assert "accuracy kept under corruptions" in card
    assert "--card" not in card
    for part in ("Intended use", "Measured", "Limits", "Law, and where not to use it", "Licence"):
        assert f"## {part}" in card
