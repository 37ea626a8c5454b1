"""Several models as one file, and `mien ensemble` as a person runs it, on drawn faces and networks that know nothing."""

import json

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders import LABELS, a_run
from mien.data.manifest import Manifest
from mien.data.synthetic import synthetic
from mien.errors import ConfigError, ExportError
from mien.evaluation.ensemble import averaged
from mien.evaluation.predictions import Predictions, write_predictions
from mien.evaluation.tables import read_predictions
from mien.export import ensemble as module
from mien.export.ensemble import export_ensemble
from mien.export.graphs import drop_unread
from mien.export.onnx import export_onnx
from mien.labels import LabelSet, affect_means
from mien.report.card import _passes
from mien.runtime.sessions import OnnxSession, read_spec
from mien.runtime.store import model_file
from mien.spec import CropSpec


def files(folder, count: int = 3, **section) -> list:
    """Model files of networks that were never trained."""
    found = []
    for number in range(count):
        run = a_run(folder / f"run{number}", number, **section)
        export_onnx(run / "weights.safetensors", folder / f"m{number}.onnx")
        found.append(folder / f"m{number}.onnx")
    return found


def chips(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
@pytest.mark.parametrize("affect", ["circumplex", "trained"])
def test_one_file_answers_as_its_members_do(mean, affect, tmp_path):
    members = files(tmp_path, affect=affect)
    assert export_ensemble(members, [2, 1, 1], tmp_path / "e.onnx", mean) < 1e-5
    session = OnnxSession(tmp_path / "e.onnx", 1)
    said = [OnnxSession(member, 1).run(chips()) for member in members]
    ids = [str(i) for i in range(4)]
    parts = [Predictions(LabelSet(LABELS), ids, *answer) for answer in said]
    wanted = averaged(parts, [2, 1, 1], logits=mean == "logits")
    probabilities, moved = session.run(chips())
    assert np.allclose(probabilities, wanted.probabilities, atol=1e-5)
    by_means = wanted.probabilities @ affect_means(LabelSet(LABELS))
    assert np.allclose(moved, by_means if affect == "circumplex" else wanted.affect, atol=1e-5)
    spec = session.spec
    assert (spec.affect, spec.ensemble.mean) == (affect, mean)
    assert [(m.name, m.weight, m.made_by) for m in spec.ensemble.members] == [
        ("tiny", 0.5, "seed 0"),
        ("tiny", 0.25, "seed 1"),
        ("tiny", 0.25, "seed 2"),
    ]
    assert msgspec.json.decode((tmp_path / "e.json").read_bytes(), type=type(spec)) == spec


def test_a_file_holds_nothing_that_no_answer_needs(tmp_path, capfd):
    export_ensemble(files(tmp_path, 2), [1, 1], tmp_path / "e.onnx")
    model = onnx.load(tmp_path / "e.onnx")
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    assert {item.name for item in graph.initializer} <= read
    assert all(read & set(node.output) for node in graph.node)
    ort.InferenceSession(str(tmp_path / "e.onnx"), providers=["CPUExecutionProvider"])
    assert "Removing initializer" not in capfd.readouterr().err


def test_what_a_branch_reads_is_kept():
    then = helper.make_graph([helper.make_node("Neg", ["kept"], ["n"])], "a", [], [value("n")])
    other = helper.make_graph([], "b", [], [value("made")])
    nodes = [
        helper.make_node("Abs", ["x"], ["made"]),
        helper.make_node("Neg", ["spare"], ["unread"]),
        helper.make_node("If", ["which"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = [numpy_helper.from_array(np.ones(1, np.float32), name) for name in ("kept", "spare")]
    graph = helper.make_graph(nodes, "g", [value("x"), value("which", TensorProto.BOOL)], [value("y")], constants)
    drop_unread(graph)
    assert [node.op_type for node in graph.node] == ["Abs", "If"]
    assert [item.name for item in graph.initializer] == ["kept"]


def value(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [1])


def test_members_without_weight_stay_outside(tmp_path):
    members = files(tmp_path)
    export_ensemble(members, [1, 0, 1], tmp_path / "e.onnx")
    assert [m.made_by for m in read_spec(tmp_path / "e.onnx").ensemble.members] == ["seed 0", "seed 2"]
    with pytest.raises(ConfigError, match=r"only m0\.onnx has a weight above 0; that is no ensemble"):
        export_ensemble(members, [1, 0, 0], tmp_path / "f.onnx")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"labels": LABELS[:7]}, "labels of .* is neutral, .*, of"),
        ({"affect": "trained"}, "affect of .* is trained, of .* circumplex"),
        ({"crop": CropSpec(width=40, height=32)}, r"crop\.width of .* is 40, of .* 32; one file has one crop\.width"),
        ({"expression": False, "affect": "trained"}, "answers valence and arousal alone"),
    ],
)
def test_members_that_do_not_fit_into_one_file_are_named(other, message, tmp_path):
    [first] = files(tmp_path, 1)
    run = a_run(tmp_path / "other", **other)
    export_onnx(run / "weights.safetensors", tmp_path / "o.onnx")
    with pytest.raises(ConfigError, match=message):
        export_ensemble([first, tmp_path / "o.onnx"], [1, 1], tmp_path / "e.onnx")
    assert not (tmp_path / "e.onnx").exists()


def test_a_file_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    members = files(tmp_path, 2)
    monkeypatch.setattr(module, "LEAST", 0.3)  # a graph that is not the mean
    with pytest.raises(ExportError, match="differ from the mean of its members"):
        export_ensemble(members, [1, 1], tmp_path / "e.onnx", "logits")
    assert not (tmp_path / "e.onnx").exists()
    assert not (tmp_path / "e.json").exists()


@pytest.fixture
def here(tmp_path, mien):
    """`mien` in a folder with drawn faces, two model files and a run."""
    synthetic(200, seed=3, side=32).write(tmp_path / "d.parquet")
    files(tmp_path, 2)
    a_run(tmp_path / "r", 7)
    return mien


def test_from_runs_and_files_to_one_file_that_says_how_it_was_chosen(here):
    words = ("ensemble", "m0.onnx", "m1.onnx", "r", "--data", "d.parquet", "--split", "test")
    chosen = ("--weights", "fitted", "--select", "validation", "--mean", "logits")
    code, out, err = here(*words, *chosen, "--out", "e.onnx", "--predictions", "e.parquet", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["chosen_on"] == "synthetic, validation: 40 rows, fitted"
    assert found["optimistic"] is False
    assert sum(member["weight"] for member in found["members"]) == pytest.approx(1, abs=1e-3)
    assert read_spec("e.onnx").ensemble.chosen_on == found["chosen_on"]
    told = read_predictions("e.parquet")
    code, out, _ = here("evaluate", "e.onnx", "--data", "d.parquet", "--split", "test", "--json")
    assert json.loads(out)["scores"]["expression"]["accuracy"] == pytest.approx(found["ensemble"]["accuracy"])
    assert told.ids == Manifest.read("d.parquet").split("test").ids


def test_choosing_on_the_rows_that_judge_is_said(here):
    words = ("ensemble", "m0.onnx", "m1.onnx", "--data", "d.parquet", "--split", "test")
    code, out, _ = here(*words, "--weights", "greedy", "--select", "test")
    assert code == 0
    assert "CAUTION: the weights were chosen on the rows that judge" in out
    assert "weights chosen on: synthetic, test: 40 rows, greedy" in out
    code, out, _ = here(*words, "--tta", "flip")
    assert code == 0
    assert "CAUTION" not in out
    assert "gain over the best member here" in out


def test_a_file_tells_no_figures_that_it_does_not_reach(here):
    """Averaged views are no part of the file."""
    words = (
        "ensemble",
        "m0.onnx",
        "m1.onnx",
        "--data",
        "d.parquet",
        "--split",
        "test",
        "--overwrite",
        "--out",
        "e.onnx",
    )
    assert here(*words)[0] == 0
    assert len(read_spec("e.onnx").metrics) == 3
    assert here(*words, "--tta", "flip")[0] == 0
    assert read_spec("e.onnx").metrics == {}


def test_a_file_is_as_coarse_as_its_coarsest_member(tmp_path):
    members = [model_file("ferplus-nano"), model_file("ferplus-nano-int8")]
    export_ensemble(members, [1, 1], tmp_path / "e.onnx")
    spec = read_spec(tmp_path / "e.onnx")
    assert spec.precision == "int8"
    assert spec.quantized_on
    assert _passes(spec) == "The answers of 2 members, averaged inside the graph"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m0.onnx",), "needs two or more members"),
        (("m0.onnx", "m0.onnx"), "named twice; let it count more with --weights"),
        (("m0.onnx", "m1.onnx", "--weights", "fitted"), "name their split with --select"),
        (("m0.onnx", "m1.onnx", "--weights", "greedey"), "did you mean 'greedy'"),
        (("m0.onnx", "m1.onnx", "--weights", "1,2,3"), "expected 2 numbers"),
        (("m0.onnx", "m1.onnx", "--select", "test"), "chooses nothing"),
        (("m0.onnx", "m1.onnx", "--mean", "logit"), "did you mean 'logits'"),
        (("m0.onnx", "p.csv", "--out", "e.onnx"), "a table of answers and no model"),
        (("m0.onnx", "m1.onnx", "--out", "e.txt"), "ends in .onnx"),
    ],
)
def test_wrong_words_are_one_line(here, words, message):
    code, _, err = here("ensemble", *words, "--data", "d.parquet", "--split", "test")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_tables_of_answers_are_members_too(here):
    manifest = Manifest.read("d.parquet").split("test")
    truth = manifest.targets() * 0.9 + 0.1 / 8
    write_predictions(Predictions(manifest.labels, manifest.ids, truth, manifest.affect()), "good.csv")
    words = ("ensemble", "m0.onnx", "good.csv", "--data", "d.parquet", "--split", "test", "--json")
    code, out, _ = here(*words, "--weights", "0,1")
    found = json.loads(out)
    assert (code, found["ensemble"]["accuracy"], found["best"]) == (0, 1.0, "good.csv")
    assert found["gain"]["difference"] == 0
