"""From a recipe to a model file, on drawn faces: nothing to a working model in seconds."""

import msgspec
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn

from mien.data.manifest import Header, Sample, make_manifest
from mien.errors import ConfigError, DataError, ExportError, ModelError, OutputError
from mien.evaluation.metrics import expected_calibration_error, score_expression
from mien.evaluation.predictions import Predictions
from mien.export.onnx import export_onnx, verify
from mien.labels import LabelSet
from mien.models.backbones import BACKBONES, Layers
from mien.models.network import build_network
from mien.models.weights import TorchSession, load_weights, save_weights
from mien.recipe import load_recipe
from mien.runtime.classify import Classifier
from mien.runtime.sessions import OnnxSession
from mien.sections import AugmentSection, NetworkSection
from mien.spec import CropSpec, ModelSpec
from mien.training import loop
from mien.training.augment import augment, centre
from mien.training.fit import fit
from mien.training.losses import class_weights, soft_cross_entropy
from test_data import write_parquet

SMALL = [
    "network.backbone=mien-nano",
    "schedule.epochs=3",
    "trainer.batch=8",
    "data.validation=0.2",
    "schedule.warmup=0",
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_parquet(folder)
    return folder


def small_run(data, run, **options):
    return fit(load_recipe("ferplus-small", SMALL), data, run, threads=1, bar=False, **options)


def test_a_killed_run_resumes_to_the_same_weights(data, tmp_path, monkeypatch):
    whole, _ = load_weights(small_run(data, tmp_path / "whole"))

    class Killed(BaseException):
        pass

    real = loop._EpochLog.on_train_epoch_end

    def kill(self, trainer, pl_module):
        real(self, trainer, pl_module)
        if trainer.current_epoch == 1:
            raise Killed

    monkeypatch.setattr(loop._EpochLog, "on_train_epoch_end", kill)
    with pytest.raises(Killed):
        small_run(data, tmp_path / "cut")
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    assert (tmp_path / "cut" / "last.ckpt").is_file()
    monkeypatch.setattr(loop._EpochLog, "on_train_epoch_end", real)
    (tmp_path / "cut" / "metrics.csv").unlink()
    resumed, _ = load_weights(small_run(data, tmp_path / "cut", resume=True))
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    epochs = [line.split(",")[0] for line in (tmp_path / "cut" / "metrics.csv").read_text().splitlines()]
    assert epochs == ["epoch", "2"]  # the finished ones were not done again


def test_the_model_file_answers_as_the_network(data, tmp_path):
    weights = small_run(data, tmp_path / "run")
    difference = export_onnx(weights, tmp_path / "m.onnx")
    assert difference < 1e-4
    assert (tmp_path / "m.json").is_file()
    network, spec = load_weights(weights)
    chips = np.random.default_rng(1).integers(0, 255, (5, 48, 48, 3)).astype(np.uint8)
    ours, theirs = (
        Classifier(TorchSession(network, spec)).run(chips),
        Classifier(OnnxSession(tmp_path / "m.onnx", 1)).run(chips),
    )
    assert np.allclose(ours[0], theirs[0], atol=1e-5)
    assert np.allclose(ours[1], theirs[1], atol=1e-5)
    assert (np.abs(ours[1]) <= 1).all()


def test_a_file_that_disagrees_is_refused(data, tmp_path):
    network, spec = load_weights(small_run(data, tmp_path / "run"))
    export_onnx(tmp_path / "run" / "weights.safetensors", tmp_path / "m.onnx")
    with torch.no_grad():
        network.expression.bias += torch.arange(8.0)
    with pytest.raises(ExportError, match="differ from the network's"):
        verify(TorchSession(network, spec), OnnxSession(tmp_path / "m.onnx", 1))


def test_runs_are_not_overwritten_and_recipes_not_swapped(data, tmp_path):
    small_run(data, tmp_path / "run")
    with pytest.raises(OutputError, match="pass --resume"):
        small_run(data, tmp_path / "run")
    assert fit(
        load_recipe("ferplus-small", [*SMALL, "about=other words"]), data, tmp_path / "run", resume=True
    ).is_file()
    with pytest.raises(ConfigError, match="another recipe"):
        fit(load_recipe("ferplus-small", [*SMALL, "seed=1"]), data, tmp_path / "run", resume=True, bar=False)


def test_a_pickle_posing_as_weights_is_never_loaded(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="never loaded"):
        load_weights(tmp_path / "w.safetensors")


def test_weights_of_another_network_are_refused(data, tmp_path):
    network, spec = load_weights(small_run(data, tmp_path / "run"))
    other = msgspec.structs.replace(spec, network={"backbone": "mien-small"})
    save_weights(tmp_path / "w.safetensors", network, other)
    with pytest.raises(ModelError, match="weights and spec disagree"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_odd_sizes(name):
    crop = CropSpec(width=66, height=88)
    pool = "flatten" if name in {"cnn", "mlp"} else "average"
    network = build_network(NetworkSection(backbone=name, pool=pool), LabelSet(("x", "y", "z")), crop)
    answer = network(torch.zeros(2, 3, 88, 66))
    assert answer.logits.shape == (2, 3)
    assert answer.affect is None


def test_a_backbone_of_ones_own_is_taken_by_its_name(monkeypatch, tmp_path):
    """As docs/training.md tells."""
    own = lambda channels, _: Layers([nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU()], 16)  # noqa: E731
    monkeypatch.setitem(BACKBONES, "mine", own)
    section, labels, crop = NetworkSection(backbone="mine"), LabelSet(("x", "y")), CropSpec(width=32, height=32)
    network = build_network(section, labels, crop)
    spec = ModelSpec(name="mine", labels=labels.names, crop=crop, network=msgspec.to_builtins(section))
    save_weights(tmp_path / "w.safetensors", network, spec)
    export_onnx(tmp_path / "w.safetensors", tmp_path / "m.onnx")
    monkeypatch.delitem(BACKBONES, "mine")
    assert OnnxSession(tmp_path / "m.onnx").spec.labels == ("x", "y")
    with pytest.raises(ConfigError, match="unknown backbone 'mine'"):
        load_weights(tmp_path / "w.safetensors")


def test_a_mirror_image_gets_the_same_answer():
    section = NetworkSection(backbone="mien-nano", mirror=True)
    network = build_network(section, LabelSet(("x", "y")), load_recipe("ferplus-small").crop).eval()
    chips = torch.rand(3, 3, 48, 48) * 255
    assert torch.allclose(network(chips).logits, network(chips.flip(3)).logits, atol=1e-5)
    assert not torch.allclose(network.train()(chips).logits, network(chips.flip(3)).logits, atol=1e-5)


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"network\.backbone: unknown backbone 'mien-smal'; did you mean 'mien-small'"
    ):
        build_network(NetworkSection(backbone="mien-smal"), LabelSet(("x", "y")), load_recipe("ferplus-small").crop)


def test_without_augmentation_a_chip_stays_as_it_is():
    chips = torch.randint(0, 255, (4, 1, 60, 60), dtype=torch.uint8)
    off = AugmentSection(flip=0)
    assert torch.allclose(augment(chips, off, 6), centre(chips, 6), atol=0.05)
    mirrored = augment(chips, AugmentSection(flip=1), 6)
    assert torch.allclose(mirrored, centre(chips, 6).flip(-1), atol=0.05)


def test_augmentation_repeats_with_its_seed_and_stays_in_range():
    chips = torch.randint(0, 255, (4, 1, 48, 48), dtype=torch.uint8)
    section = load_recipe("ferplus-small").augment
    torch.manual_seed(3)
    a = augment(chips, section, 0)
    torch.manual_seed(3)
    assert torch.equal(a, augment(chips, section, 0))
    assert a.shape == (4, 3, 48, 48)
    assert a.min() >= 0
    assert a.max() <= 255


def test_the_loss_is_cross_entropy_on_hard_targets():
    logits, truth = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    hard = torch.eye(4)[truth]
    expected = torch.nn.functional.cross_entropy(logits, truth, label_smoothing=0.1)
    assert torch.allclose(soft_cross_entropy(logits, hard, torch.ones(4), 0.1), expected)
    weights = class_weights(hard, 1.0)
    assert torch.allclose((weights * hard).sum(dim=1).mean(), torch.tensor(1.0))
    assert class_weights(hard[:, [0, 1, 2, 3]] * torch.tensor([1.0, 1, 1, 0]), 0.5)[3] == 0


def test_scores_agree_with_scikit_learn_in_any_order():
    rng = np.random.default_rng(0)
    labels = LabelSet(("x", "y", "z"))
    truth, p = rng.integers(0, 3, 90), rng.dirichlet((1, 1, 1), 90).astype(np.float32)
    samples = [Sample(str(i), b"", np.eye(3, dtype=np.float32)[t]) for i, t in enumerate(truth)]
    manifest = make_manifest(samples, Header(source="s", labels=labels.names))
    order = rng.permutation(90)
    said = Predictions(labels, [str(i) for i in order], p[order], np.full((90, 2), np.nan))
    scores = score_expression(said, manifest)
    assert abs(scores.accuracy - accuracy_score(truth, p.argmax(1))) < 1e-9
    assert np.sum(scores.confusion) == 90
    assert scores.confusion[0][1] == ((truth == 0) & (p.argmax(1) == 1)).sum()


def test_calibration_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert abs(expected_calibration_error(p, np.array([0, 1, 0, 0]), bins=10) - (0.5 * 0.4 + 0.5 * 0.4)) < 1e-9


def test_predictions_that_are_no_probabilities_are_refused():
    labels = LabelSet(("x", "y"))
    affect = np.zeros((2, 2))
    with pytest.raises(DataError, match="not sum to one"):
        Predictions(labels, ["a", "b"], np.ones((2, 2)), affect)
    with pytest.raises(DataError, match="two rows"):
        Predictions(labels, ["a", "a"], np.full((2, 2), 0.5), affect)
