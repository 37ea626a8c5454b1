"""Every recipe loads and builds; the parts that recipes choose from do what they say."""

import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch
from drawing import drawn_recipe, figures, trained
from torch import nn

from mien.data.manifest import Manifest
from mien.data.synthetic import synthetic
from mien.errors import ConfigError, DataError, ModelError, OutputError, TrainingError
from mien.evaluation.predictions import Predictions
from mien.export.onnx import export_onnx
from mien.faces import face_record
from mien.labels import LabelSet, label_set
from mien.models.network import Answer, build_network
from mien.models.summary import summarise
from mien.models.unfold import unfold
from mien.models.weights import load_weights, save_weights
from mien.recipe import Recipe, load_recipe, recipe_names, recipe_text
from mien.runtime.read import load
from mien.sections import (
    AugmentSection,
    DataSection,
    DistilSection,
    LossSection,
    NetworkSection,
    OptimizerSection,
    ScheduleSection,
)
from mien.spec import CropSpec, ModelSpec
from mien.training.augment import augment
from mien.training.dataset import ChipDataset, EpochSampler
from mien.training.ending import _judged
from mien.training.loop import Freezer
from mien.training.losses import Loss, ccc_loss, class_weights, distilled, focal_loss, soft_cross_entropy
from mien.training.mixing import mixed, unmade
from mien.training.module import ExpressionModule
from mien.training.optimizers import Sam, parameter_groups, rate_at

EXPRESSION = [name for name in recipe_names() if isinstance(load_recipe(name), Recipe)]
#: Worked out by hand where the network is known: torchvision's published counts less the 1,000-class layer, plus ours.
PARAMETERS = {
    "affectnet-affect-mobilenetv2": 3_537_666,
    "affectnet-affect-mobilenetv2-from-classifier": 3_537_666,
    "affectnet7-fcn": 428_135,
    "affectnet8-affect-convnext": 27_827_819,
    "affectnet8-affect-resnet50": 23_528_522,
    "affectnet8-affect-xception": 20_827_442,
    "affectnet8-mobilenetv2": 3_543_816,
    "drawn": 80_722,
    "fer2013-3-efficientnet_b0": 4_664_959,
    "fer2013-3-efficientnet_b0-frozen": 4_664_959,
    "fer2013-3-efficientnet_b0-max": 4_664_959,
    "fer2013-cnn": 51_933_223,
    "fer2013-fcn": 428_135,
    "fer2013-mlp": 154_148_871,
    "fer2013-nano": 407_719,
    "fer2013-resnet101": 42_514_503,
    "fer2013-resnet34": 21_288_263,
    "fer2013-resnet50": 23_522_375,
    "fer2013-small": 3_564_071,
    "fer2013-vgg16": 134_289_223,
    "fer2013-vgg19": 139_598_919,
    "fer2013-visformer_small": 39_455_975,
    "fer2013-vit_base_patch16_224": 85_804_039,
    "fer2013-vit_base_r50_s16_224": 97_895_495,
    "ferplus-nano": 407_832,
    "ferplus-small": 1_756_784,
}


@pytest.mark.parametrize("name", EXPRESSION)
def test_every_recipe_builds(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert any(words in recipe.about for words in ("The original", "reproduces nobody's system", "reads drawings"))
    (tmp_path / "r.yaml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe
    whole, *layers = summarise(recipe.network, label_set(recipe.data.labels), recipe.crop)
    assert whole.parameters == PARAMETERS[name]
    assert whole.mmacs > 10
    assert {"backbone", "pool", "hidden"} <= {layer.name for layer in layers}


@pytest.mark.usefixtures("pictures")
def test_from_nothing_to_a_model_that_reads_drawn_faces(tmp_path):
    synthetic(640, seed=1).write(tmp_path / "drawn.parquet")
    recipe = drawn_recipe("schedule.epochs=10", "data.validation=0")
    weights = trained(recipe, tmp_path / "drawn.parquet", tmp_path / "run")
    assert float(figures(tmp_path / "run")[-1]["val/accuracy"]) > 0.8
    export_onnx(weights, tmp_path / "m.onnx")
    reader = load(tmp_path / "m.onnx", detector="whole", threads=1)
    fresh = list(synthetic(80, seed=99))
    labels = label_set("affectnet8")
    right = sum(
        reader(sample.image)[0].expression.label == labels.names[int(sample.target.argmax())] for sample in fresh
    )
    assert right > 0.8 * len(fresh)
    assert (tmp_path / "run" / "curves.png").stat().st_size > 5000
    assert "versions" in (tmp_path / "run" / "environment.json").read_text()


def test_both_heads_learn_and_the_regressor_starts_from_the_classifier(drawn, tmp_path):
    both = trained(drawn_recipe("network.affect=trained", "schedule.epochs=4"), drawn, tmp_path / "both")
    rows = figures(tmp_path / "both")
    assert float(rows[-1]["val/ccc"]) > float(rows[0]["val/ccc"])
    assert {"train/affect", "train/expression"} <= set(rows[0])
    alone = drawn_recipe("network.expression=false", "network.affect=trained", "loss.affect=mse", "schedule.epochs=1")
    chained = trained(alone, drawn, tmp_path / "chain", init=both)
    text = (tmp_path / "chain" / "environment.json").read_text()
    assert '"sha256"' in text
    assert '"fresh": []' in text  # its affect head was there already
    _, spec = load_weights(chained)
    assert (spec.affect, spec.expression) == ("trained", False)
    assert spec.trained_on[1].startswith("began with weights.safetensors, sha256 ")
    export_onnx(chained, tmp_path / "m.onnx")
    assert unfold(tmp_path / "m.onnx")[0].expression is None  # affect alone can be gone on from, too
    picture = next(iter(synthetic(1, labels=("anger", "fear")))).image
    [face] = load(tmp_path / "m.onnx", detector="whole", threads=1)(picture)
    assert face.expression.label == "unknown"
    assert not face.expression.certain
    assert -1 <= face.expression.valence <= 1
    assert face_record(face).expression.probabilities == {}
    with pytest.raises(ConfigError, match="a teacher needs an expression head"):
        trained(drawn_recipe(), drawn, tmp_path / "taught", teachers=[chained])
    with pytest.raises(ModelError, match="weights of another network: of 12 kernels 12"):
        trained(drawn_recipe("network.backbone=mien-small"), drawn, tmp_path / "other", init=both)
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="never loaded"):
        trained(drawn_recipe(), drawn, tmp_path / "pickled", init=tmp_path / "pickle.safetensors")


def test_a_student_learns_from_teachers_alone(drawn, tmp_path):
    teacher = trained(drawn_recipe("schedule.epochs=8", "trainer.batch=8"), drawn, tmp_path / "teacher")
    recipe = drawn_recipe("distil.weight=1.0", "schedule.epochs=8", "trainer.batch=8")
    trained(recipe, drawn, tmp_path / "student", teachers=[teacher, tmp_path / "teacher"])
    assert float(figures(tmp_path / "student")[-1]["val/accuracy"]) > 0.3
    with pytest.raises(ConfigError, match="--teacher .*on 32x32 chips; the recipe has"):
        trained(drawn_recipe("crop.width=40", "crop.height=40"), drawn, tmp_path / "wide", teachers=[teacher])


def test_own_classes_train_are_judged_and_exported(mien, tmp_path):
    from mien.data.manifest import Header, Manifest

    drawings = synthetic(90, labels=("happiness", "sadness", "anger"))
    header = Header(source="own", labels=("pain", "engagement", "Other"), framing=drawings.header.framing)
    Manifest(header, drawings.table).write(tmp_path / "own.parquet")
    recipe = drawn_recipe("data.labels=[pain, engagement, Other]", "schedule.epochs=1", "trainer.batch=16")
    told: list[str] = []
    weights = trained(recipe, tmp_path / "own.parquet", tmp_path / "run", tell=told.append)
    assert "no mean valence and arousal is known for pain, engagement, Other: both will be NaN" in told[0]
    export_onnx(weights, tmp_path / "m.onnx")
    face = load(tmp_path / "m.onnx", detector="whole", threads=1)(next(iter(drawings)).image)[0]
    assert set(face.expression.labels) == {"pain", "engagement", "Other"}
    assert np.isnan(face.expression.valence)
    for model in ("run", "m.onnx"):
        code, out, _ = mien(
            "evaluate", model, "--data", "own.parquet", "--split", "test", "--predictions", model + ".csv"
        )
        assert code == 0, out
        for name in ("pain", "engagement", "Other"):
            assert f"\n{name} " in out, name
    assert "p_Other" in (tmp_path / "m.onnx.csv").read_text()


def test_the_best_epoch_is_kept_and_training_stops_early(drawn, tmp_path):
    recipe = drawn_recipe(
        "trainer.keep=best",
        "schedule={name: plateau, epochs: 12, warmup: 0, monitor: accuracy, patience: 0, factor: 0.0001, stop: 2}",
        "optimizer.lr=0.00001",
    )
    weights = trained(recipe, drawn, tmp_path / "run")
    rows = figures(tmp_path / "run")
    assert len(rows) < 12
    assert float(rows[-1]["lr"]) < 1e-6
    network, _ = load_weights(weights)
    from mien.data.manifest import Manifest
    from mien.training.augment import centre

    held = ChipDataset(Manifest.read(tmp_path / "run" / "chips.parquet").split("validation"))
    with torch.inference_mode():
        said = network(centre(held.chips, 0)).logits.argmax(1)
    best = max(float(row["val/accuracy"]) for row in rows)
    assert abs(float((said == held.targets.argmax(1)).float().mean()) - best) < 1e-4


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        (["network.affect=trained", "network.expression=true"], DataError, "no row has valence and arousal"),
        (['data.labels=["happiness", "pain"]'], ConfigError, "synthetic has no pain"),
        (["schedule.monitor=ccc", "schedule.stop=2"], ConfigError, "'ccc' needs network.affect: trained"),
        (["network.hidden=[0]"], ConfigError, "network.hidden: expected a number from 1"),
        (["seed=-1"], ConfigError, "seed: expected a number from 0"),
        (["data.validation=0.3", "data.fold=3"], ConfigError, "fold: expected a number from 0 to 2, got 3"),
        (["data.validation=0.07", "data.fold=-1"], ConfigError, "fold: expected a number from 0 to 13, got -1"),
        (["data.validation=0", "data.fold=1"], ConfigError, "fold: needs validation above 0"),
        (["data.validation=1e-320"], ConfigError, "validation: expected a number from 1e-06 to 0.5"),
        (["crop.points=[["], ConfigError, "crop.points: not YAML"),
        (["data.sources=[]"], ConfigError, "data.sources: is empty"),
    ],
)
def test_what_cannot_work_says_so(settings, error, why, drawn, tmp_path):
    import pyarrow as pa

    from mien.data.manifest import Manifest

    manifest = Manifest.read(drawn)
    at = [manifest.table.schema.get_field_index(name) for name in ("valence", "arousal")]
    table = manifest.table
    for i, name in zip(at, ("valence", "arousal"), strict=True):
        table = table.set_column(i, name, pa.nulls(len(manifest), pa.float32()))
    Manifest(manifest.header, table).write(tmp_path / "plain.parquet")
    with pytest.raises(error, match=why):
        trained(drawn_recipe(*settings), tmp_path / "plain.parquet", tmp_path / "run")


def test_a_failed_start_does_not_block_the_next_and_a_damaged_checkpoint_says_so(drawn, tmp_path):
    with pytest.raises(DataError):
        trained(drawn_recipe(), tmp_path / "nothing.parquet", tmp_path / "run")
    trained(drawn_recipe("schedule.epochs=1", "schedule.warmup=0"), drawn, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    (tmp_path / "run" / "last.ckpt").write_bytes(b"cut off")
    with pytest.raises(TrainingError, match="damaged .*; delete it to start the run again"):
        trained(drawn_recipe("schedule.epochs=1", "schedule.warmup=0"), drawn, tmp_path / "run", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; give a folder"):
        trained(drawn_recipe(), drawn, tmp_path / "file")


def test_too_few_rows_say_nothing_of_a_temperature(drawn, tmp_path):
    weights = trained(drawn_recipe("schedule.epochs=1"), drawn, tmp_path / "run")
    assert load_weights(weights)[1].temperature == 1.0


def test_rows_without_a_chip_are_listed(tmp_path):
    whole = synthetic(60)
    rows = whole.table.to_pylist()
    rows[0]["image"]["bytes"] = b"no picture"
    import pyarrow as pa

    Manifest(whole.header, pa.Table.from_pylist(rows, schema=whole.table.schema)).write(tmp_path / "d.parquet")
    told = []
    recipe = drawn_recipe("schedule.epochs=1", "trainer.batch=8")
    trained(recipe, tmp_path / "d.parquet", tmp_path / "run", tell=told.append)
    assert told[0].startswith("1 of 52 rows gave no chip")
    assert "synthetic:0" in (tmp_path / "run" / "missed.csv").read_text()


@pytest.mark.parametrize(
    ("share", "note"), [(0, "3 more rows gave no chip"), (0.2, "3 rows of the train split, of which")]
)
def test_a_held_out_share_does_not_lack_what_the_whole_split_lacks(share, note):
    rows = synthetic(40, side=32).split("train")
    header = msgspec.structs.replace(rows.header, left_out={"no face found; no chip (train)": 3})
    lacking = Manifest(header, rows.table, rows.root)
    said = Predictions(rows.labels, rows.ids, np.full((len(rows), 8), 1 / 8), rows.affect())
    notes = _judged(drawn_recipe(f"data.validation={share}"), said, lacking).notes
    assert next(line for line in notes if "chip" in line).startswith(note)


def test_a_loss_that_is_no_number_stops_with_advice():
    network = build_network(NetworkSection(backbone="mien-nano"), LabelSet(("x", "y")), CropSpec(width=32, height=32))
    learner = ExpressionModule(network, drawn_recipe(), torch.ones(2))
    with pytest.raises(TrainingError, match=r"epoch 0, step 3: the loss is nan; lower optimizer\.lr"):
        learner.finite(torch.tensor(torch.nan), 3)


#: What each of two processes does: it trains, the second one is told to stop, both go on.
TWO = """
import os, signal
from mien.errors import TrainingError
from mien.recipe import load_recipe
from mien.training.fit import fit

calls = []
def transform(x):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return x
words = load_recipe("{recipe}"), "{data}", "{run}"
try:
    fit(*words, threads=1, bar=False, transform=transform)
except TrainingError as error:
    print(error, flush=True)
fit(*words, threads=1, bar=False, resume=True)
"""


def test_two_processes_give_what_one_gives(drawn, tmp_path):
    """The same global batch on a network without batch norm (the perceptron), averaged weights, a frozen layer, SIGTERM to one
    of the two within an epoch, and resumed: the same weights up to rounding."""
    common = [
        "network={backbone: mlp, pool: flatten, channels: 3, hidden: [16]}",
        "augment={flip: 0}",
        "network.freeze=1",
    ]
    common += ["optimizer={name: sgd, lr: 0.01, momentum: 0.9, decay: 0}", "schedule.epochs=2", "loss.uncertainty=true"]
    one = trained(drawn_recipe(*common, "trainer={batch: 32, ema: 0.9}"), drawn, tmp_path / "one")
    recipe = drawn_recipe(*common, "trainer={batch: 16, ema: 0.9, devices: 2, strategy: ddp}")
    (tmp_path / "two.yaml").write_text(recipe_text(recipe))
    (tmp_path / "two.py").write_text(TWO.format(recipe=tmp_path / "two.yaml", data=drawn, run=tmp_path / "two"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, str(tmp_path / "two.py")], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for who in ("SIGTERM", "another process"):
        assert f"stopped by {who} after epoch 1, step 2 of" in done.stdout
    a, b = (load_weights(path)[0].state_dict() for path in (one, tmp_path / "two" / "weights.safetensors"))
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-4), name
    for x, y in zip(figures(tmp_path / "one"), figures(tmp_path / "two"), strict=True):
        assert abs(float(x["val/loss"]) - float(y["val/loss"])) < 1e-3


def answer(n=6, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(n, c, generator=generator), torch.rand(n, c, generator=generator)
    affect, said = (torch.rand(n, 2, generator=generator) * 2 - 1 for _ in range(2))
    return logits, targets / targets.sum(1, keepdim=True), said, affect


def test_losses_are_those_of_their_papers():
    logits, targets, said, affect = answer()
    ones = torch.ones(4)
    assert torch.isclose(soft_cross_entropy(logits, targets, ones), nn.CrossEntropyLoss()(logits, targets))
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)(logits, targets)
    assert torch.isclose(soft_cross_entropy(logits, targets, ones, 0.1), smooth)
    assert torch.isclose(focal_loss(logits, targets, ones, 0.0), nn.CrossEntropyLoss()(logits, targets))
    p = torch.softmax(logits, 1)
    assert torch.isclose(focal_loss(logits, targets, ones, 2.0), -(targets * (1 - p) ** 2 * p.log()).sum(1).mean())
    certain = torch.tensor([[20.0, 0, 0, 0], [1, 0, 0, 0]], requires_grad=True)
    focal_loss(certain, torch.eye(4)[[0, 0]], ones, 0.5).backward()
    assert torch.isfinite(certain.grad).all()  # where the probability is 1, too
    from mien.evaluation.affect import concordance

    by_hand = np.mean([concordance(said[:, i].double().numpy(), affect[:, i].double().numpy()) for i in (0, 1)])
    assert abs(float(ccc_loss(said.double(), affect.double())) - (1 - by_hand)) < 1e-9
    assert ccc_loss(said[:1], said[:1]) == 0
    same = distilled(logits, torch.softmax(logits, 1), 2.0)
    assert same < distilled(logits.flip(1), torch.softmax(logits, 1), 2.0)


def test_what_is_unknown_counts_nothing():
    logits, targets, said, affect = answer()
    loss = Loss(LossSection(affect="mse", weight=0.5), DistilSection(), torch.ones(4))
    targets[2:], affect[:3] = torch.nan, torch.nan
    total, parts = loss(Answer(logits, said), targets, affect)
    assert torch.isclose(parts["expression"], nn.CrossEntropyLoss()(logits[:2], targets[:2]))
    assert torch.isclose(parts["affect"], nn.functional.mse_loss(said[3:], affect[3:]))
    assert torch.isclose(total, parts["expression"] + 0.5 * parts["affect"])
    nothing, _ = loss(Answer(logits, said), torch.full_like(targets, torch.nan), torch.full_like(affect, torch.nan))
    assert nothing == 0
    learned = Loss(LossSection(uncertainty=True), DistilSection(), torch.ones(4))
    assert [p.shape for p in learned.parameters()] == [(2,)]


def test_class_weights_by_frequency_and_effective_number():
    targets = torch.eye(3)[[0] * 6 + [1] * 3 + [2]]
    assert torch.allclose(class_weights(targets, 1.0), torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert torch.allclose(class_weights(targets, 0.0), torch.ones(3))
    raw = torch.tensor([(1 - 0.9) / (1 - 0.9**n) for n in (6, 3, 1)])
    assert torch.allclose(class_weights(targets, 0, 0.9), raw / (raw * torch.tensor([0.6, 0.3, 0.1])).sum())
    assert torch.allclose(class_weights(torch.full((4, 3), torch.nan), 1.0), torch.ones(3))


def test_two_ways_to_weigh_classes_are_refused_together():
    with pytest.raises(ConfigError, match="loss.effective: weighs classes instead of balance; leave one out"):
        load_recipe("drawn", ["loss.effective=0.99", "loss.balance=0.5"])
    assert load_recipe("drawn", ["loss.effective=0.99", "loss.balance=0"]).loss.effective == 0.99


def test_samplers_balance_and_cap():
    targets = torch.eye(3)[[0] * 80 + [1] * 15 + [2] * 5]
    section = DataSection(sources=("x",), sampler="balanced")
    rows = list(EpochSampler(targets, section, 0))
    share = torch.bincount(targets[rows].argmax(1)) / len(rows)
    assert len(rows) == 100
    assert share.min() > 0.2
    capped = EpochSampler(targets, DataSection(sources=("x",), sampler="capped", cap=10), 0)
    assert torch.bincount(targets[list(capped)].argmax(1)).tolist() == [10, 10, 5]
    assert len(capped) == 25
    first = list(capped)
    capped.set_epoch(1)
    assert list(capped) != first
    parts = [list(EpochSampler(targets, DataSection(sources=("x",)), 0, lambda r=r: (r, 2))) for r in (0, 1)]
    assert sorted(parts[0] + parts[1]) == list(range(100))


def test_every_change_of_chips_stays_in_range_and_changes_something():
    torch.manual_seed(0)
    chips = torch.randint(0, 255, (8, 3, 40, 36), dtype=torch.uint8)
    plain = augment(chips, AugmentSection(flip=0), 4)
    assert torch.allclose(plain, chips[..., 4:-4, 4:-4].float(), atol=1e-2)
    for name in ("invert", "clahe", "jpeg", "dark", "blur", "noise", "erase", "colour", "light"):
        changed = augment(chips, AugmentSection(**{"flip": 0, name: 0.9}), 4)
        assert changed.shape == (8, 3, 32, 28)
        assert changed.min() >= 0
        assert changed.max() <= 255
        assert not torch.allclose(changed, plain, atol=1), name
    assert torch.allclose(augment(chips, AugmentSection(flip=0, invert=1.0), 4), 255 - plain, atol=1e-2)


def test_unmade_chips_keep_their_pixels_but_are_no_class():
    torch.manual_seed(0)
    x = torch.rand(200, 3, 50, 48)
    targets = torch.eye(4)[torch.arange(200) % 4].repeat(1, 2)
    targets[0, 4:] = torch.nan  # a row that a stored teacher does not know
    affect = torch.zeros(200, 2)
    y, told, felt = unmade(x, targets, affect, 4, AugmentSection(unmake=0.5))
    changed = (y != x).flatten(1).any(1)
    assert 60 < changed.sum() < 140
    assert (told[changed].nan_to_num(0.25) == 0.25).all()
    assert torch.equal(told[~changed].nan_to_num(9), targets[~changed].nan_to_num(9))
    assert torch.isnan(told[0, 4:]).all()
    assert torch.equal(felt.isnan().all(1), changed)
    same = torch.tensor(
        [torch.equal(a.flatten().sort().values, b.flatten().sort().values) for a, b in zip(x, y, strict=True)]
    )
    assert 20 < (same & changed).sum() < changed.sum() - 20  # half were shuffled, half enlarged
    assert y.min() >= 0
    assert y.max() <= 1
    assert unmade(x, targets, affect, 4, AugmentSection())[0] is x


def test_mixing_shares_pixels_and_targets_alike():
    torch.manual_seed(1)
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 20, 20).contiguous()
    targets, affect = torch.eye(4), torch.zeros(4, 2)
    affect[0] = torch.nan
    for section in (AugmentSection(cutmix=1.0), AugmentSection(mixup=1.0)):
        out, soft, feel = mixed(x, targets, affect, section)
        assert torch.allclose(out.mean(dim=(1, 2, 3)), soft @ torch.arange(4.0), atol=1e-5)
        assert torch.allclose(soft.sum(1), torch.ones(4))
        assert feel.isnan().any(1).sum() >= 1


def test_rates_over_time():
    steps = 100
    cosine = ScheduleSection(epochs=10, warmup=1)
    assert rate_at(cosine, 0, steps) < 0.1
    assert rate_at(cosine, 10, steps) == 1.0
    assert rate_at(cosine, 100, steps) < 1e-9
    step = ScheduleSection(name="step", epochs=10, warmup=0, every=3, factor=0.5)
    assert [rate_at(step, s, steps) for s in (0, 29, 30, 60, 99)] == [1, 1, 0.5, 0.25, 0.125]
    assert rate_at(ScheduleSection(name="constant", epochs=10, warmup=0), 99, steps) == 1


def test_layers_learn_at_their_own_rates_and_decay_spares_biases():
    learner = nn.Module()
    crop = CropSpec(width=32, height=32)
    learner.network = build_network(NetworkSection(backbone="mien-nano"), LabelSet(("x", "y")), crop)
    groups = parameter_groups(learner, OptimizerSection(lr=1.0, backbone=0.5, layers=0.5, decay=0.1))
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in learner.network.parameters())
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert rates[id(learner.network.expression.weight)] == 1.0
    stages = [stage for stage in learner.network.backbone.stages if list(stage.parameters())]
    assert rates[id(next(stages[-1].parameters()))] == 0.5
    assert rates[id(next(stages[0].parameters()))] == 0.5 * 0.5 ** (len(stages) - 1)
    assert all(g["weight_decay"] == 0 for g in groups if g["params"][0].ndim == 1)


def test_sharpness_aware_steps_use_the_gradient_up_the_hill():
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    sam = Sam(torch.optim.SGD([w], lr=0.1), radius=0.5)
    seen = []

    def closure():
        sam.zero_grad()
        loss = (w**2).sum() / 2
        loss.backward()
        seen.append(w.detach().clone())
        return loss

    sam.step(closure)
    up = torch.tensor([3.0, 4.0]) * (1 + 0.5 / 5)
    assert torch.allclose(seen[1], up)
    assert torch.allclose(w.detach(), torch.tensor([3.0, 4.0]) - 0.1 * up)


def test_frozen_stages_stay_and_are_released_from_the_end(drawn, tmp_path):
    recipe = drawn_recipe("network.freeze=-1", "optimizer.sam=0.05", "schedule.epochs=1")
    weights = trained(recipe, drawn, tmp_path / "run")
    torch.manual_seed(recipe.seed)
    import lightning

    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    fresh = build_network(recipe.network, label_set("affectnet8"), recipe.crop)
    learned, _ = load_weights(weights)
    assert torch.equal(fresh.backbone.layers[0][0].weight, learned.backbone.layers[0][0].weight)
    assert torch.equal(fresh.backbone.layers[0][1].running_mean, learned.backbone.layers[0][1].running_mean)
    assert not torch.equal(fresh.expression.weight, learned.expression.weight)

    class Trainer:
        current_epoch = 2

    learner = nn.Module()
    learner.network = fresh
    Freezer(NetworkSection(freeze=-1, unfreeze=2)).on_train_epoch_start(Trainer, learner)
    stages = fresh.backbone.stages
    assert all(not p.requires_grad for p in stages[0].parameters())
    assert all(p.requires_grad for p in stages[-1].parameters())


def test_a_users_own_transform_runs_after_the_recipes(drawn, tmp_path):
    seen = []

    def transform(x):
        seen.append(tuple(x.shape[1:]))
        return x

    trained(drawn_recipe("schedule.epochs=1"), drawn, tmp_path / "run", transform=transform)
    assert set(seen) == {(3, 32, 32)}


def test_weights_of_a_regressor_alone_say_nothing_of_labels(tmp_path):
    crop = CropSpec(width=32, height=32)
    section = NetworkSection(backbone="mien-nano", expression=False, affect="trained")
    network = build_network(section, label_set("affectnet8"), crop).eval()
    import msgspec

    spec = ModelSpec(
        name="r",
        labels=label_set("affectnet8").names,
        crop=crop,
        affect="trained",
        network=msgspec.to_builtins(section),
    )
    save_weights(tmp_path / "w.safetensors", network, spec)
    assert load_weights(tmp_path / "w.safetensors")[0].expression is None


def test_unknown_timm_names_get_near_ones():
    crop = CropSpec(width=64, height=64)
    with pytest.raises(
        ConfigError, match=r"timm has no model of that name: 'timm:resnet33'; did you mean .*timm:resnet34"
    ):
        build_network(NetworkSection(backbone="timm:resnet33"), LabelSet(("x", "y")), crop)
    with pytest.raises(ConfigError, match="start from a run with --init"):
        build_network(NetworkSection(pretrained=True), LabelSet(("x", "y")), crop)
    with pytest.raises(ConfigError, match="does not take chips of 64x64"):
        build_network(NetworkSection(backbone="cnn", pool="average"), LabelSet(("x", "y")), crop)
