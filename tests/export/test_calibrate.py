"""Temperature and threshold: fitted against hand-worked cases, written into graphs of either form, stated by the spec."""

import json

import numpy as np
import pytest

from builders import a_run
from mien.data.synthetic import synthetic
from mien.errors import DataError, ModelError
from mien.evaluation.calibration import fit_temperature, sure_rows, tempered, threshold_for
from mien.evaluation.predictions import Predictions
from mien.export.calibrate import export_calibrated
from mien.export.ensemble import export_ensemble
from mien.export.onnx import export_onnx
from mien.faces import Expression
from mien.runtime.classify import Classifier
from mien.runtime.sessions import OnnxSession, read_spec
from mien.runtime.store import model_file
from test_runtime import a_model


def drawn_from(temperature: float, rows: int = 4000, classes: int = 5):
    """Answers whose logits are `temperature` times too large, and truths drawn from what they should be."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (p.cumsum(1) > rng.random((rows, 1))).argmax(1)
    return tempered(p, 1 / temperature), truth


@pytest.mark.parametrize("wanted", [0.6, 1.0, 2.5])
def test_the_temperature_that_was_put_in_comes_out(wanted):
    assert fit_temperature(*drawn_from(wanted)) == pytest.approx(wanted, rel=0.06)


def test_tempering_is_dividing_logits():
    logits = np.random.default_rng(0).normal(0, 3, (6, 4))
    softmax = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)  # noqa: E731
    assert np.allclose(tempered(softmax(logits), 1.7), softmax(logits / 1.7), atol=1e-12)
    assert np.allclose(tempered(tempered(softmax(logits), 1.7), 1 / 1.7), softmax(logits))


def test_the_threshold_is_the_lowest_that_is_enough():
    p, truth = drawn_from(1.0)
    found = threshold_for(p, truth, 0.9)
    confidence, hit = p.max(1), p.argmax(1) == truth
    certain = confidence >= found.value
    assert hit[certain].mean() == pytest.approx(found.precision)
    assert found.precision >= 0.9
    assert certain.mean() == pytest.approx(found.coverage)
    lower = np.unique(confidence[confidence < found.value])[::-1][:200]
    assert all(hit[confidence >= value].mean() < 0.9 for value in lower)
    with pytest.raises(DataError, match="no confidence is enough .*; ask for less, or leave it out"):
        threshold_for(np.full((50, 2), 0.5), np.ones(50, int), 0.9)


def test_rows_of_one_confidence_are_certain_together():
    p = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    truth = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    assert threshold_for(p, truth, 0.75, least=1).value == 0.9
    assert threshold_for(p, truth, 0.5, least=1).value == 0.6


def test_a_rounded_threshold_lets_no_more_rows_in():
    """The wrong row is a third of a millionth less sure than the last one that counts."""
    sure = np.array([0.9, 0.8, 0.6000005, 0.6000002])
    found = threshold_for(np.stack([sure, 1 - sure], axis=1), np.array([0, 0, 0, 1]), 1.0, least=1)
    assert (found.value, found.precision, found.coverage, found.rows) == (0.6000005, 1.0, 0.75, 3)


def test_too_few_rows_say_too_little():
    manifest = synthetic(40)
    said = Predictions(manifest.labels, manifest.ids, np.full((40, 8), 1 / 8), manifest.affect())
    with pytest.raises(DataError, match="40 rows with a clear label; fewer than 100"):
        sure_rows(said, manifest)


def models(folder):
    """A file with a constant `temperature`, an ensemble of two, and one whose temperature has no name."""
    for number in (0, 1):
        run = a_run(folder / f"r{number}", number)
        outputs = ("maps", "features") if not number else ()
        export_onnx(run / "weights.safetensors", folder / f"m{number}.onnx", outputs=outputs)
    export_ensemble([folder / "m0.onnx", folder / "m1.onnx"], [1, 1], folder / "e.onnx")
    a_model(folder / "plain.onnx")
    return {name: folder / name for name in ("m0.onnx", "e.onnx", "plain.onnx")} | {"ship": model_file("ferplus-small")}


@pytest.mark.parametrize("name", ["m0.onnx", "e.onnx", "plain.onnx", "ship"])
def test_a_file_is_calibrated_whatever_its_graph(name, tmp_path):
    file = models(tmp_path)[name]
    before = OnnxSession(file, 1)
    if name == "plain.onnx":
        assert before.spec.affect == "none"
    once = export_calibrated(file, tmp_path / "once.onnx", 1.5, 0.7, "d, validation, 200 rows: temperature")
    assert once.temperature == pytest.approx(1.5 * before.spec.temperature)
    assert (once.threshold, once.calibrated_on) == (0.7, "d, validation, 200 rows: temperature")
    assert not [key for key in once.metrics if key.endswith("ece")]
    assert len(once.metrics) == sum(not key.endswith("ece") for key in before.spec.metrics)
    twice = export_calibrated(tmp_path / "once.onnx", tmp_path / "twice.onnx", 1 / 1.5)
    assert twice.threshold == 0  # it was of the other temperature
    shape = (3, 3, before.spec.crop.height, before.spec.crop.width)
    chips = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    for a, b in zip(before.run(chips), OnnxSession(tmp_path / "twice.onnx", 1).run(chips), strict=True):
        assert np.allclose(a, b, atol=1e-5)
    assert (tmp_path / "twice.onnx").stat().st_size < file.stat().st_size + 3000


def test_a_named_temperature_is_changed_in_place(tmp_path):
    import onnx

    export_calibrated(models(tmp_path)["m0.onnx"], tmp_path / "c.onnx", 2.0)
    values = {v.name: v for v in onnx.load(str(tmp_path / "c.onnx")).graph.initializer}
    assert onnx.numpy_helper.to_array(values["temperature"]) == pytest.approx(2.6)
    assert "calibration/temperature" not in values


def test_a_model_without_expressions_has_no_confidence(tmp_path):
    run = a_run(tmp_path / "r", expression=False, affect="trained")
    export_onnx(run / "weights.safetensors", tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no confidence to calibrate"):
        export_calibrated(tmp_path / "m.onnx", tmp_path / "c.onnx", 2.0)


def test_a_run_without_expressions_is_named_as_it_was_given(mien, tmp_path):
    run = a_run(tmp_path / "r", expression=False, affect="trained")
    code, _, err = mien("calibrate", run, "--data", tmp_path / "none", "--out", tmp_path / "c.onnx")
    assert code == 2
    assert f"{run}: answers valence and arousal alone" in err


def test_certain_follows_the_spec(tmp_path):
    file = models(tmp_path)["m0.onnx"]
    export_calibrated(file, tmp_path / "never.onnx", threshold=1.0)
    chips = [np.zeros((32, 32, 3), np.uint8)]
    assert Classifier(OnnxSession(file, 1)).read(chips)[0].certain
    assert not Classifier(OnnxSession(tmp_path / "never.onnx", 1)).read(chips)[0].certain
    assert not Expression(("x", "y"), np.array([np.nan, np.nan])).certain


def test_an_old_threshold_goes_with_its_temperature(tmp_path):
    file = models(tmp_path)["m0.onnx"]
    export_calibrated(file, tmp_path / "a.onnx", 2.0, calibrated_on="A: temperature")
    both = export_calibrated(tmp_path / "a.onnx", tmp_path / "b.onnx", threshold=0.5, calibrated_on="B: threshold")
    assert (both.threshold, both.calibrated_on) == (0.5, "A: temperature; B: threshold")
    anew = export_calibrated(tmp_path / "b.onnx", tmp_path / "c.onnx", 1.5, calibrated_on="C: temperature")
    assert (anew.threshold, anew.calibrated_on) == (0.0, "C: temperature")


def test_calibrate_as_a_person_runs_it(mien, tmp_path):
    synthetic(560, seed=3, side=32).write(tmp_path / "d.parquet")
    a_run(tmp_path / "run", 3)
    words = ("calibrate", "run", "--data", "d.parquet", "--out", "c.onnx")
    code, out, err = mien(*words, "--precision", "0.1")
    assert (code, err) == (0, "")
    assert "temperature:" in out
    assert "certain answers are right in" in out
    spec = read_spec("c.onnx")
    assert spec.calibrated_on.startswith("synthetic, validation, 112 rows: temperature, threshold for precision 0.1")
    assert spec.temperature != 1.3
    assert json.loads((tmp_path / "c.json").read_text())["threshold"] == spec.threshold
    code, _, err = mien(*words)
    assert (code, "exists already" in err) == (2, True)
    code, _, err = mien(*words[:-1], "x.onnx", "--no-temperature")
    assert (code, "nothing to do" in err) == (2, True)
    code, _, err = mien(*words[:-1], "x.onnx", "--precision", "1")
    assert (code, "no confidence is enough" in err) == (2, True)
    assert not (tmp_path / "x.onnx").exists()
