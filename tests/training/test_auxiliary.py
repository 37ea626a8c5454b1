"""A second head for other labels of the same pictures, and small chips first."""

import csv
import shutil

import numpy as np
import pytest
import torch
from drawing import drawn_recipe, figures, trained

from builders import drawn_face
from mien.data.manifest import Manifest
from mien.data.sources import ferplus, read_source
from mien.errors import ConfigError, DataError, DatasetNotFound
from mien.evaluation.predictions import Predictions, write_predictions
from mien.evaluation.tables import read_predictions
from mien.labels import CODES, label_set
from mien.models.network import Answer, Network
from mien.models.weights import load_weights
from mien.recipe import load_recipe
from mien.runtime.sessions import read_spec
from mien.sections import DistilSection, LossSection
from mien.training.auxiliary import second_labels
from mien.training.chips import check_sources
from mien.training.losses import Loss

WORDS = (
    "data={sources: [fer2013], labels: [happiness, sadness], auxiliary: ferplus, validation: 0.2}",
    "crop.points=[[0.3166, 0.3939], [0.6834, 0.3939], [0.5, 0.5964], [0.344, 0.7443], [0.656, 0.7443]]",
)


def a_face(row):
    """Mouth up or down by the row's first bit, dark or bright by its second."""
    chip = drawn_face(48, mouth=0.5 if row % 2 else -0.5, seed=row)
    return (chip * (1.0 if row // 2 % 2 else 0.35)).astype(np.uint8)


@pytest.fixture(scope="module")
def twice_labelled(tmp_path_factory):
    """FER2013 says what the mouth does, FER+'s votes how bright the picture is; every fifth picture is 'unknown' to FER+."""
    folder = tmp_path_factory.mktemp("twice")
    columns = [*CODES["ferplus"][:8], "unknown", "NF"]
    with (
        (folder / "fer2013.csv").open("w", newline="") as one,
        (folder / "fer2013new.csv").open("w", newline="") as two,
    ):
        labels, votes = csv.writer(one), csv.writer(two)
        labels.writerow(["emotion", "pixels", "Usage"])
        votes.writerow(["Usage", "Image name", *columns])
        for row in range(160):
            grey = a_face(row)[..., 0]
            labels.writerow([3 if row % 2 else 4, " ".join(map(str, grey.ravel())), "Training"])
            said = dict.fromkeys(columns, 0)
            said["unknown" if row % 5 == 0 else "surprise" if row // 2 % 2 else "neutral"] = 10
            votes.writerow(["Training", f"fer{row:07}.png", *said.values()])
    return folder


@pytest.fixture(scope="module")
def run(twice_labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("auxiliary") / "run"
    recipe = drawn_recipe(*WORDS, "schedule.epochs=16", "augment={flip: 0.5}", "trainer.batch=16", "optimizer.lr=0.006")
    said = []
    trained(recipe, twice_labelled, folder, tell=said.append)
    assert "data.auxiliary: ferplus labels 128 of 160 pictures" in said
    return folder


def test_two_heads_learn_from_one_pass(run):
    last = figures(run)[-1]
    assert float(last["val/accuracy"]) > 0.9
    assert float(last["val/auxiliary_accuracy"]) > 0.9
    assert float(last["val/auxiliary"]) < 0.5
    assert float(last["train/auxiliary"]) < 0.5


def test_each_head_leaves_a_file_of_its_own(run):
    first, other = (load_weights(run / f"{name}.safetensors") for name in ("weights", "auxiliary"))
    assert first[1].labels == ("happiness", "sadness")
    assert other[1].labels == ferplus.CARD.labels
    assert other[1].name == "ferplus-small-ferplus"
    heads = {"expression.weight", "expression.bias"}
    assert first[0].state_dict().keys() == other[0].state_dict().keys() >= heads
    for name, value in first[0].state_dict().items():
        assert name in heads or torch.equal(value, other[0].state_dict()[name])
    second = "ferplus (distribution), the same pictures, sha256 "
    assert [line[: len(second)] == second for line in first[1].trained_on] == [False, True]
    assert [line[: len(second)] == second for line in other[1].trained_on] == [True, False]
    assert all("labels MIT (Microsoft)" in spec.licence for _, spec in (first, other))
    bright, dark = torch.full((1, 3, 32, 32), 200.0), torch.full((1, 3, 32, 32), 30.0)
    said = [int(other[0](x).logits.argmax()) for x in (bright, dark)]
    assert [other[1].labels[k] for k in said] == ["surprise", "neutral"]


def test_its_labels_stay_in_the_run(run, tmp_path):
    """A resumed run reads them from there, and the chips of the run know which pictures have none."""
    stored, chips = read_predictions(run / "auxiliary.parquet"), Manifest.read(run / "chips.parquet")
    recipe = drawn_recipe(*WORDS)
    assert len(stored.ids) == 128
    assert check_sources(recipe, [run / "chips.parquet"], kept=True)[0] == [run / "chips.parquet"]
    again = second_labels(recipe, tmp_path / "gone", run, chips.ids)
    unknown = again.targets(chips.ids).isnan().all(dim=1)
    assert [int(one.split(":")[1].rsplit("-", 1)[-1]) % 5 == 0 for one in chips.ids] == unknown.tolist()


def test_a_table_of_its_labels_teaches_the_second_head(twice_labelled, tmp_path):
    ids = ferplus.read(twice_labelled, "distribution").ids
    labels = label_set("affectnet8")
    fear = np.full((len(ids), 8), 0.01)
    fear[:, labels.names.index("fear")] = 0.93
    write_predictions(Predictions(labels, ids, fear, np.full((len(ids), 2), np.nan)), tmp_path / "told.parquet")
    recipe = drawn_recipe(*WORDS, "distil.weight=1.0", "distil.temperature=1", "schedule.epochs=6", "trainer.batch=16")
    trained(recipe, twice_labelled, tmp_path / "run", teachers=[tmp_path / "told.parquet"])
    network, spec = load_weights(tmp_path / "run" / "auxiliary.safetensors")
    said = network(torch.rand(20, 3, 32, 32) * 255).logits.argmax(1)
    assert {spec.labels[k] for k in said.tolist()} == {"fear"}
    assert load_weights(tmp_path / "run" / "weights.safetensors")[1].labels == ("happiness", "sadness")


def test_what_cannot_be(twice_labelled, drawn, tmp_path):
    words = ("data.auxiliary=ferplus", "schedule.epochs=1")
    with pytest.raises(ConfigError, match="is a manifest, which holds one set of labels; give the place of ferplus"):
        trained(drawn_recipe(*words), drawn, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="unknown source; did you mean 'ferplus'"):
        trained(drawn_recipe("data.sources=[fer2013]", "data.auxiliary=ferpuls"), twice_labelled, tmp_path / "b")
    with pytest.raises(DatasetNotFound, match=r"data.auxiliary: no ferplus at .*set data.auxiliary=none"):
        trained(drawn_recipe(*WORDS), tmp_path, tmp_path / "d")
    assert not list(tmp_path.iterdir())
    recipe = drawn_recipe(*WORDS)
    with pytest.raises(ConfigError, match=r"data.sources: names 1 \(fer2013\), --data was given 3 times"):
        trained(recipe, [twice_labelled] * 3, tmp_path / "c")
    with pytest.raises(
        DataError, match=r"no row of ferplus labels one of the 1 pictures to train on; its ids are like"
    ):
        second_labels(recipe, twice_labelled, tmp_path, ["elsewhere:1"])
    with pytest.raises(ConfigError, match=r"data\.auxiliary: a second expression head needs the first"):
        drawn_recipe("data.auxiliary=ferplus", "network.expression=false", "network.affect=trained")


def test_places_of_sources_and_of_the_other_labels(twice_labelled, tmp_path):
    manifest, other = tmp_path / "m.parquet", tmp_path / "other"
    read_source("fer2013", twice_labelled).write(manifest)
    two = drawn_recipe(*WORDS, "data.sources=[fer2013, expw]")
    assert check_sources(two, [twice_labelled, other]) == ([twice_labelled, other], twice_labelled)
    assert check_sources(two, [manifest, other, twice_labelled]) == ([manifest, other], twice_labelled)
    own = drawn_recipe(*WORDS, "data.sources=[own]")
    assert check_sources(own, [manifest, twice_labelled]) == ([manifest], twice_labelled)
    with pytest.raises(ConfigError, match=r"data.sources: names 1 \(fer2013\), --data was given 0 times"):
        check_sources(drawn_recipe(*WORDS), [])
    with pytest.raises(ConfigError, match="m.parquet is a manifest"):
        check_sources(two, [manifest, other])


def test_a_run_to_start_from_gives_both_heads(run, twice_labelled, tmp_path):
    said = []
    recipe = drawn_recipe(*WORDS, "schedule.epochs=1", "optimizer.lr=0", "schedule.warmup=0", "trainer.batch=16")
    trained(recipe, twice_labelled, tmp_path / "on", init=run, tell=said.append)
    assert f"--init {run}: begins afresh: nothing" in said
    assert float(figures(tmp_path / "on")[-1]["val/auxiliary_accuracy"]) > 0.9


def test_each_file_of_a_run_is_exported_under_its_own_name(run, tmp_path, mien):
    mine = tmp_path / "run"
    shutil.copytree(run, mine)
    assert mien("export", mine)[0] == mien("export", mine / "auxiliary.safetensors")[0] == 0
    counts = [len(read_spec(mine / name).labels) for name in ("model.onnx", "auxiliary.onnx")]
    assert counts == [2, 8]
    place = mine / "named.onnx"
    code, _, err = mien("export", mine / "auxiliary.safetensors", "--name", "voted", "--out", place)
    assert code == 0, err
    assert read_spec(place).name == "voted"
    assert read_spec(mine / "auxiliary.onnx").name == "ferplus-small-ferplus"


def test_the_loss_is_a_weighted_sum_over_rows_that_are_labelled():
    torch.manual_seed(0)
    logits, others = torch.randn(4, 3), torch.randn(4, 5)
    targets, beside = torch.eye(3)[[0, 1, 2, 0]], torch.eye(5)[[4, 3, 2, 1]]
    beside[2:] = torch.nan
    loss = Loss(LossSection(auxiliary=0.3), DistilSection(), torch.ones(3), torch.ones(5))
    silent = torch.full((4, 2), torch.nan)
    total, parts = loss(Answer(logits, None, others), targets, silent, None, (beside, None))
    first = torch.nn.functional.cross_entropy(logits, targets)
    second = torch.nn.functional.cross_entropy(others[:2], beside[:2])
    assert torch.isclose(parts["auxiliary"], second)
    assert torch.isclose(total, first + 0.3 * second)


def test_chips_grow_with_the_epochs(drawn, tmp_path, monkeypatch):
    seen, forward = [], Network.forward

    def watched(self, chips):
        if self.training and tuple(chips.shape[2:]) not in seen:
            seen.append(tuple(chips.shape[2:]))
        return forward(self, chips)

    monkeypatch.setattr(Network, "forward", watched)
    trained(drawn_recipe("schedule={epochs: 3, sides: [0.5, 0.75, 1]}"), drawn, tmp_path / "run")
    assert seen == [(16, 16), (24, 24), (32, 32)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["schedule={epochs: 3, sides: [0.5, 0.75]}"], "sides: the last must be 1, the whole chip; got 0.75"),
        (
            ["schedule={epochs: 1, sides: [0.5, 1]}"],
            "sides: 2 of them and only 1 epochs; raise schedule.epochs or leave",
        ),
        (["schedule={epochs: 3, sides: [0, 1]}"], "expected a number from 0.1 to 1, got 0"),
        (
            ["network={backbone: cnn, pool: flatten}", "schedule={epochs: 3, sides: [0.5, 1]}"],
            "takes chips of one size",
        ),
    ],
)
def test_sides_that_cannot_be(words, says):
    with pytest.raises(ConfigError, match=says):
        drawn_recipe(*words)


def test_sides_that_a_network_does_not_take(drawn, tmp_path):
    words = (
        "network={backbone: fcn, pool: average}",
        "crop.width=48",
        "crop.height=48",
        "schedule={epochs: 2, sides: [0.5, 1]}",
    )
    with pytest.raises(ConfigError, match=r"schedule.sides: 0.5 shows chips of 24x24, which fcn does not take"):
        trained(drawn_recipe(*words), drawn, tmp_path / "run")
    with pytest.raises(ConfigError, match="schedule.sides: not for detectors"):
        load_recipe("mien-face", ["schedule.sides=[0.5, 1]"])


def test_a_manifest_and_the_folder_of_the_other_labels(twice_labelled, tmp_path):
    read_source("fer2013", twice_labelled).write(tmp_path / "clean.parquet")
    recipe, said = drawn_recipe(*WORDS, "schedule.epochs=1", "trainer.batch=16"), []
    trained(recipe, [tmp_path / "clean.parquet", twice_labelled], tmp_path / "run", tell=said.append)
    assert "data.auxiliary: ferplus labels 128 of 160 pictures" in said
    assert (tmp_path / "run" / "auxiliary.safetensors").is_file()


def test_a_search_trains_both_heads(twice_labelled, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    from mien.training.tune import tune

    recipe = drawn_recipe(*WORDS, "schedule.epochs=1", "trainer.batch=16")
    found = tune(recipe, [twice_labelled], tmp_path / "t", 1, ["loss.auxiliary=0.5,0.6"], threads=1)
    assert [trial.state for trial in found] == ["complete"]
    assert (tmp_path / "t" / "auxiliary.parquet").is_file()
    with pytest.raises(ConfigError, match="--search data.auxiliary: all trials share the same chips and labels"):
        tune(recipe, [twice_labelled], tmp_path / "u", 1, ["data.auxiliary=none,ferplus"], threads=1)
