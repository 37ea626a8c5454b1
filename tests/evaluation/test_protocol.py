"""The field's official protocols, on look-alike data: FER2013's three splits, FER+'s three rules, AffectNet's 8 and 7 classes."""

import json

import numpy as np
import pytest

import lookalikes
from mien.data.sources import read_source
from mien.data.split import split
from mien.evaluation.predictions import Predictions, write_predictions
from mien.labels import KNOWN_SETS, LabelSet


@pytest.fixture(scope="session")
def lookalike(tmp_path_factory):
    """Folders with FER2013 and FER+ as CSV, and with AffectNet."""
    root = tmp_path_factory.mktemp("lookalikes")
    lookalikes.fer2013_csv(root / "fer")
    lookalikes.ferplus_csv(root / "fer")
    lookalikes.affectnet(root / "affectnet")
    return root


def perfect(manifest):
    """What a model that is always right would say; of rows without a label, anything."""
    targets = np.nan_to_num(manifest.targets(), nan=1 / len(manifest.labels)).astype(float)
    return Predictions(manifest.labels, manifest.ids, targets, np.nan_to_num(manifest.affect()))


def judged(mien, manifest, data, source, *words):
    write_predictions(perfect(manifest), "p.csv", overwrite=True)
    code, out, err = mien("evaluate", "p.csv", "--data", data, "--source", source, *words, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("split", ["Training", "PublicTest", "PrivateTest"])
def test_fer2013_knows_its_own_splits(mien, lookalike, split):
    whole = read_source("fer2013", lookalike / "fer")
    found = judged(mien, whole, lookalike / "fer", "fer2013", "--split", split)
    wanted = whole.split(lookalikes.SPLITS[split])
    assert found["scores"]["expression"]["rows"] == len(wanted)
    assert found["scores"]["expression"]["accuracy"] == 1
    assert f"split {lookalikes.SPLITS[split]}" in found["made"]["data"]


@pytest.mark.parametrize("rule", ["majority", "distribution", "plain"])
@pytest.mark.parametrize("split", ["PublicTest", "PrivateTest"])
def test_ferplus_is_judged_by_each_rule(mien, lookalike, rule, split):
    whole = read_source("ferplus", lookalike / "fer", rule)
    found = judged(mien, whole, lookalike / "fer", "ferplus", "--split", split, "--rule", rule)
    scores = found["scores"]["expression"]
    assert scores["rows"] == len(whole.split(lookalikes.SPLITS[split]))
    assert scores["accuracy"] == 1
    assert f"rule {rule}" in found["made"]["data"]
    people = found["scores"]["agreement"]
    assert people["raters"] > 2
    assert people["model"] <= people["most"]


def test_affectnet_has_eight_classes_and_seven(mien, lookalike):
    whole = read_source("affectnet", lookalike / "affectnet")
    eight = judged(mien, whole, lookalike / "affectnet", "affectnet", "--split", "validation")
    seven = judged(mien, whole, lookalike / "affectnet", "affectnet", "--split", "validation", "--labels", "affectnet7")
    assert (eight["scores"]["expression"]["rows"], seven["scores"]["expression"]["rows"]) == (8, 7)
    assert len(seven["scores"]["expression"]["labels"]) == 7
    assert set(eight["scores"]["affect_by"]) == set(whole.labels) - {"contempt"}  # its affect is -2: not annotated


def test_eight_answers_on_seven_classes_need_to_be_told(mien, lookalike):
    whole = read_source("fer2013", lookalike / "fer")
    said = perfect(whole)

    eight = LabelSet(KNOWN_SETS["affectnet8"])
    moved = Predictions(eight, said.ids, said.labels.project(said.probabilities, eight), said.affect)
    write_predictions(moved, "p8.csv")
    words = ("evaluate", "p8.csv", "--data", lookalike / "fer", "--source", "fer2013", "--split", "PrivateTest")
    code, _, err = mien(*words)
    assert (code, "choose a common set with --labels" in err) == (2, True)
    assert mien(*words, "--labels", "affectnet7")[0] == 0


def test_copies_in_a_training_manifest_are_left_out(mien, lookalike):
    whole = read_source("fer2013", lookalike / "fer")
    test = whole.split("test")

    split(test.take(range(3)), {"train": 1.0}, seed=0).write("train.parquet")
    write_predictions(perfect(whole), "p.csv")
    words = (
        "evaluate",
        "p.csv",
        "--data",
        lookalike / "fer",
        "--source",
        "fer2013",
        "--split",
        "PrivateTest",
        "--json",
    )
    found = json.loads(mien(*words, "--train", "train.parquet")[1])
    assert found["copies"] >= 3
    code, _, err = mien("evaluate", "p.csv", "--data", "train.parquet")
    assert (code, "it has: train; name one with --split" in err) == (2, True)
    assert (
        found["without_copies"] is None or found["without_copies"]["expression"]["rows"] == len(test) - found["copies"]
    )
    assert json.loads(mien(*words)[1])["copies"] is None
