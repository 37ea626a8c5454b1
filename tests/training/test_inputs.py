"""What training takes besides a recipe and one dataset: teachers, transforms, several sources; and what it refuses."""

import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from drawing import drawn_recipe, figures, told_to_stop, trained

from mien.data.manifest import Header, Manifest
from mien.data.split import merge
from mien.data.synthetic import synthetic
from mien.errors import ConfigError, DataError, ModelError, ModelNotFound, OutputError, TrainingError
from mien.evaluation.predictions import Predictions, write_predictions
from mien.labels import LabelSet, label_set
from mien.models.network import Answer, ExportGraph
from mien.sections import DistilSection, LossSection
from mien.training import loop
from mien.training.chips import two_sides
from mien.training.fit import fit
from mien.training.losses import Loss
from mien.training.module import ExpressionModule
from mien.training.origins import Learned, learned_rows
from mien.training.teachers import read_teachers
from mien.training.transforms import as_batches

ONE = "schedule.epochs=1"


def sure_answers(ids, labels, wanted):
    """Predictions that put 0.9 on `wanted`."""
    p = np.full((len(ids), len(labels)), 0.1 / (len(labels) - 1))
    p[np.arange(len(ids)), wanted] = 0.9
    return Predictions(LabelSet(labels), list(ids), p, np.full((len(ids), 2), np.nan))


@pytest.mark.parametrize(
    ("recipe", "data", "threads", "message"),
    [
        ("drawn", "d.parquet", None, "recipe: of type str; give mien.recipe.load_recipe"),
        (drawn_recipe(), synthetic(8), None, "data: give the file of the manifest"),
        (drawn_recipe(), "d.parquet", 0, "threads: 0: give a whole number"),
    ],
)
def test_what_fit_cannot_take_is_told_before_a_folder_is_made(recipe, data, threads, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit(recipe, data, tmp_path / "run", threads=threads)
    assert not (tmp_path / "run").exists()


def test_stored_answers_teach_by_id(drawn, tmp_path):
    """All rows are told to be fear: a student that learns from teachers alone says fear."""
    manifest = Manifest.read(drawn)
    labels = label_set("affectnet8").names
    shuffled = tuple(reversed(labels))
    told = sure_answers(manifest.ids[::-1], shuffled, np.full(len(manifest), shuffled.index("fear")))
    write_predictions(told, tmp_path / "told.parquet")
    recipe = drawn_recipe("distil.weight=1.0", "schedule.epochs=4", "augment.mixup=0.2", "trainer.batch=16")
    trained(recipe, drawn, tmp_path / "run", teachers=[tmp_path / "told.parquet"])
    from mien.evaluation.tables import read_predictions

    said = read_predictions(tmp_path / "run" / "predictions.parquet")
    assert (said.probabilities.argmax(1) == labels.index("fear")).all()
    assert '"teachers": [\n    {' in (tmp_path / "run" / "environment.json").read_text()


def test_teachers_that_know_some_rows_or_none(tmp_path):
    labels, recipe = label_set("affectnet7"), drawn_recipe("data.labels=affectnet7")
    ids = [f"a:{i}" for i in range(6)]
    for name, first in (("one", 0), ("two", 2)):
        write_predictions(sure_answers(ids[first : first + 3], labels.names, [0, 1, 2]), tmp_path / f"{name}.csv")
    said: list[str] = []
    taught = read_teachers([tmp_path / "one.csv", tmp_path / "two.csv"], ids, labels, recipe, said.append)
    assert taught.told.shape == (6, 14)
    assert taught.told.unflatten(1, (2, 7)).isnan().all(2).tolist() == [
        [False, True], [False, True], [False, False], [True, False], [True, False], [True, True]
    ]  # fmt: skip
    assert "knows 3 of 6 training rows; the others have their labels alone" in said[0]
    with pytest.raises(DataError, match=r"knows none of the 6 training rows; its ids are like \['a:0'\]"):
        read_teachers([tmp_path / "one.csv"], [f"b:{i}" for i in range(6)], labels, recipe)
    with pytest.raises(ConfigError, match="says nothing of contempt"):
        read_teachers([tmp_path / "one.csv"], ids, label_set("affectnet8"), recipe)
    (tmp_path / "affect.csv").write_text("id,valence,arousal\n" + "".join(f"{name},0.1,0.2\n" for name in ids))
    for names in ("affectnet7", "affectnet8"):
        with pytest.raises(ConfigError, match="answers valence and arousal alone"):
            read_teachers([tmp_path / "affect.csv"], ids, label_set(names), recipe)


def test_rows_that_no_teacher_knows_have_their_labels_with_full_weight():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 3), torch.eye(3)[[0, 1, 2, 0, 1]]
    teacher = torch.full((5, 3), 1 / 3)
    teacher[3:] = torch.nan
    loss = Loss(LossSection(), DistilSection(weight=0.7), torch.ones(3))

    def value(rows, by):
        return loss(Answer(logits[rows], None), targets[rows], torch.full((len(targets[rows]), 2), torch.nan), by)[0]

    whole = value(slice(0, 5), teacher)
    parts = (3 * value(slice(0, 3), teacher[:3]) + 2 * value(slice(3, 5), None)) / 5
    assert torch.isclose(whole, parts)


def test_torchvision_changes_each_chip_in_its_own_way(drawn, tmp_path):
    from torchvision.transforms import v2

    change = as_batches(v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomRotation(20)]))
    chips = torch.rand(1, 3, 20, 20).expand(16, -1, -1, -1) * 255
    torch.manual_seed(1)
    made = change(chips)
    torch.manual_seed(1)
    assert torch.equal(made, change(chips))
    assert len({chip.numpy().tobytes() for chip in made}) > 8
    with pytest.raises(
        ConfigError, match=r"transform: gives \(3, 20, 20\) torch.float32 .*the network does that itself"
    ):
        as_batches(v2.ToDtype(torch.float32, scale=True))(chips)
    trained(drawn_recipe(ONE), drawn, tmp_path / "run", transform=v2.RandomErasing(1.0))
    assert len(figures(tmp_path / "run")) == 1


def test_albumentations_works_on_pictures(monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations", reason="albumentations is not installed")
    change = as_batches(albumentations.Compose([albumentations.Rotate(20, p=1), albumentations.GaussNoise(p=0.5)]))
    chips = torch.rand(1, 3, 20, 24).expand(8, -1, -1, -1) * 255
    torch.manual_seed(1)
    made = change(chips)
    torch.manual_seed(1)
    assert torch.equal(made, change(chips))
    assert made.shape == chips.shape
    assert made.dtype == torch.float32
    assert len({chip.numpy().tobytes() for chip in made}) > 4
    with pytest.raises(ConfigError, match="leave out what converts, scales, normalises"):
        as_batches(albumentations.Compose([albumentations.Normalize()]))(chips)


def test_other_transforms_must_keep_the_form():
    with pytest.raises(ConfigError, match="str cannot be called"):
        as_batches("flip")
    with pytest.raises(ConfigError, match="it must keep the form"):
        as_batches(lambda chips: chips[..., 1:])(torch.zeros(2, 3, 8, 8))


def test_two_sources_are_merged_in_the_run(tmp_path):
    synthetic(80, labels=("happiness", "sadness"), seed=1).write(tmp_path / "a.parquet")
    synthetic(80, labels=("sadness", "anger"), seed=2).write(tmp_path / "b.parquet")
    recipe = drawn_recipe("data.sources=[table, table]", "data.labels=[happiness, sadness, anger]", ONE)
    trained(recipe, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "run")
    counts = Manifest.read(tmp_path / "run" / "chips.parquet").counts()
    assert counts["sadness"] == counts["happiness"] + counts["anger"] > 0
    with pytest.raises(ConfigError, match=r"data.sources: names 2 \(table, table\), --data was given 1 times"):
        trained(recipe, tmp_path, tmp_path / "other")
    with pytest.raises(ConfigError, match="data.sources: tabel: unknown source; did you mean 'table'"):
        trained(drawn_recipe("data.sources=[tabel]"), tmp_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_rows_that_cannot_teach_what_is_asked(drawn, tmp_path):
    with pytest.raises(
        DataError, match=r"a batch of 500 and only \d+ rows to train on; lower it \(--set trainer.batch="
    ):
        trained(drawn_recipe("trainer.batch=500"), drawn, tmp_path / "batch")
    manifest = Manifest.read(drawn)
    labels = (*manifest.header.labels, "boredom")
    wide = [None if row is None else [*row, 0.0] for row in manifest.table["target"].to_pylist()]
    import pyarrow as pa

    at = manifest.table.schema.get_field_index("target")
    table = manifest.table.set_column(at, "target", pa.array(wide, manifest.table.schema.field("target").type))
    header = Header(source="own", labels=labels, framing=manifest.header.framing)
    Manifest(header, table).write(tmp_path / "wide.parquet")
    with pytest.raises(
        DataError, match=r"no row to train on is labelled boredom; leave that out \(--set 'data.labels="
    ):
        trained(drawn_recipe(f"data.labels=[{', '.join(labels)}]"), tmp_path / "wide.parquet", tmp_path / "class")
    told: list[str] = []
    few = drawn_recipe("data.labels=[happiness, sadness]", ONE, "trainer.batch=8")
    trained(few, drawn, tmp_path / "few", tell=told.append)
    assert "rows are left out: neutral, surprise, fear, disgust, anger, contempt not in data.labels" in told[0]


def test_no_memory_left_says_what_to_do(drawn, tmp_path):
    def hungry(_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried")

    with pytest.raises(
        TrainingError, match=r"memory ran out; lower trainer.batch \(now 32\) and raise trainer.accumulate"
    ):
        trained(drawn_recipe(ONE), drawn, tmp_path / "run", transform=hungry)


def test_a_checkpoint_of_another_network_names_what_differs(drawn, one_epoch, tmp_path):
    trained(drawn_recipe(ONE, "network.hidden=[8]"), drawn, tmp_path / "two")
    (one_epoch / "weights.safetensors").unlink()
    (tmp_path / "two" / "last.ckpt").replace(one_epoch / "last.ckpt")
    with pytest.raises(TrainingError, match=r"the checkpoint of another network: .*hidden"):
        trained(drawn_recipe(ONE), drawn, one_epoch, resume=True)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_posing_as_a_checkpoint_is_not_run(drawn, one_epoch):
    (one_epoch / "weights.safetensors").unlink()
    torch.save({"state_dict": Evil()}, one_epoch / "last.ckpt")
    with pytest.raises(TrainingError, match="damaged"):
        trained(drawn_recipe(ONE), drawn, one_epoch, resume=True)


def test_an_interrupted_save_leaves_the_checkpoint_before(drawn, tmp_path, monkeypatch):
    import lightning

    real, calls = lightning.Trainer.save_checkpoint, []

    def full(self, path, **options):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(self, path, **options)

    whole = trained(drawn_recipe(), drawn, tmp_path / "whole").read_bytes()
    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", full)
    with pytest.raises(OutputError, match="No space left on device.; make room, then --resume"):
        trained(drawn_recipe(), drawn, tmp_path / "run")
    assert trained(drawn_recipe(), drawn, tmp_path / "run", resume=True).read_bytes() == whole


def test_fsdp_without_gpus_says_so(drawn, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="trainer.strategy: fsdp shards over GPUs and there is none here; use ddp"):
        trained(drawn_recipe("trainer.strategy=fsdp", ONE), drawn, tmp_path / "run")


def test_deterministic_and_tensorboard(drawn, tmp_path):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    pytest.importorskip("tensorboard", reason="tensorboard (extra logs) is not installed")
    logger = loggers.TensorBoardLogger(tmp_path, name="tb", version="")
    trained(drawn_recipe(ONE, "trainer.deterministic=true"), drawn, tmp_path / "run", loggers=[logger])
    torch.use_deterministic_algorithms(False)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    logged = figures(tmp_path / "run")[0]
    assert abs(events.Scalars("val/loss")[0].value - float(logged["val/loss"])) < 1e-4


def test_weights_and_biases_stays_in_the_run(mien, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb (extra logs) is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    synthetic(80, seed=3).write(tmp_path / "d.parquet")
    words = ["--set", "schedule={epochs: 1, warmup: 0}", "--set", "trainer.batch=16", "--threads", "1"]
    code, out, _ = mien("train", "drawn", "--data", "d.parquet", "--out", "run", "--wandb", *words)
    assert code == 0, out
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_time_left_in_words():
    assert loop._span(5000) == "83 min"


def test_a_failed_start_leaves_the_folder_free(drawn, tmp_path):
    with pytest.raises(DataError, match="a batch of 500"):
        trained(drawn_recipe(ONE, "trainer.batch=500"), drawn, tmp_path / "run")
    with pytest.raises(ModelNotFound, match="no finished run"):
        trained(drawn_recipe(ONE), drawn, tmp_path / "run", init=tmp_path / "nothing")
    with pytest.raises(DataError, match="--teacher .*no such table"):
        trained(drawn_recipe(ONE), drawn, tmp_path / "run", teachers=[tmp_path / "nothing.csv"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
    assert trained(drawn_recipe(ONE), drawn, tmp_path / "run").is_file()


def test_one_process_at_a_time_trains_in_a_folder(drawn, tmp_path):
    run, refused = tmp_path / "run", []

    def meanwhile(line):
        if line.startswith("epoch"):
            with pytest.raises(OutputError) as caught:
                trained(drawn_recipe(ONE), drawn, run, resume=True)
            refused.append(str(caught.value))
            with pytest.raises(OutputError, match="another process trains there"):
                trained(drawn_recipe(ONE, "seed=7"), drawn, run)
            assert "seed: 0" in (run / "recipe.yaml").read_text()

    trained(drawn_recipe(ONE), drawn, run, tell=meanwhile)
    who = rf"{re.escape(str(run))}: another process trains there \(process {os.getpid()} on .*\); wait for it, or choose another --out"
    assert len(refused) == 1
    assert re.fullmatch(who, refused[0])
    assert not list(run.glob(".*"))


def test_a_run_remembers_what_it_started_from(drawn, one_epoch, tmp_path):
    """Resumed without --init and --teacher it goes on with them, and refuses others."""
    manifest = Manifest.read(drawn)
    labels = label_set("affectnet8").names
    told = tmp_path / "told.csv"
    write_predictions(sure_answers(manifest.ids, labels, np.zeros(len(manifest), int)), told)
    recipe, start = drawn_recipe("distil.weight=0.9"), {"init": one_epoch, "teachers": [told]}
    whole = trained(recipe, drawn, tmp_path / "whole", **start).read_bytes()
    with pytest.raises(TrainingError, match="stopped by SIGTERM after epoch 1"):
        trained(recipe, drawn, tmp_path / "cut", transform=told_to_stop(2, signal.SIGTERM), **start)
    with pytest.raises(ConfigError, match="--teacher: the run started from .*told.csv, not from these files"):
        trained(recipe, drawn, tmp_path / "cut", resume=True, teachers=[one_epoch])
    assert trained(recipe, drawn, tmp_path / "cut", resume=True, transform=lambda x: x).read_bytes() == whole


def test_an_init_that_has_learned_from_the_held_out_rows_is_told_of(drawn, tmp_path):
    said: list[str] = []
    wanted = (ONE, "data.validation=0.2")
    trained(drawn_recipe(*wanted), drawn, tmp_path / "first")
    for name, fold in (("same", 0), ("other", 1)):
        recipe = drawn_recipe(*wanted, f"data.fold={fold}", "seed=1")
        trained(recipe, drawn, tmp_path / name, init=tmp_path / "first", tell=said.append)
    held = len(two_sides(Manifest.read(tmp_path / "first" / "chips.parquet"), drawn_recipe(*wanted, "data.fold=1"))[1])
    (line,) = [line for line in said if "has learned from" in line]
    assert f"--init {tmp_path / 'first'}: has learned from {held} of the {held} held-out rows" in line
    said.clear()
    trained(recipe, drawn, tmp_path / "third", init=tmp_path / "same", tell=said.append)  # that began with the first
    assert sum(f"has learned from {held} of the {held} held-out" in line for line in said) == 1


def test_of_a_run_that_cannot_be_read_any_more_no_rows_are_known(drawn, one_epoch, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(one_epoch, mine)
    assert learned_rows(mine) == learned_rows(mine / "weights.safetensors")
    assert len(learned_rows(mine).rows) > 0
    assert learned_rows(mine).doubt == ""
    nothing = tmp_path / "nothing"
    assert learned_rows(drawn, mine, nothing).unknown == tuple(f"{p} (no run with its chips)" for p in (drawn, nothing))
    assert learned_rows(drawn, mine, nothing).rows == learned_rows(mine).rows
    text = (mine / "recipe.yaml").read_text()
    (mine / "recipe.yaml").write_text(text.replace("validation: 0.0", "validation: 0.2"))
    unknown = Learned(frozenset(), (f"{mine} (its chips are not those of its recipe)",))
    assert learned_rows(mine) == unknown  # other rows than its weights name
    (mine / "recipe.yaml").write_text("of: another time")
    assert learned_rows(mine) == unknown


def test_an_ancestor_of_which_nobody_knows_the_rows_is_told_of(drawn, one_epoch, tmp_path):
    """A weights file of its own, and a run that began with it."""
    apart = shutil.copy(one_epoch / "weights.safetensors", tmp_path / "apart.safetensors")
    said: list[str] = []
    trained(drawn_recipe(ONE), drawn, tmp_path / "first", init=one_epoch, tell=said.append)
    assert not any("nobody knows" in line for line in said)
    for name, start in (("on", apart), ("further", tmp_path / "on")):
        trained(drawn_recipe(ONE), drawn, tmp_path / name, init=start, tell=said.append)
        [line] = [line for line in said if "nobody knows" in line]
        assert line.startswith(f"--init {start}: nobody knows which rows {apart} (no run with its chips) learned from")
        assert line.endswith("judge on rows that were never trained on")
        said.clear()


def test_a_run_whose_seed_chose_the_held_out_rows_is_not_resumed(drawn, tmp_path):
    recipe = drawn_recipe(ONE, "data.validation=0.2", "seed=3")
    run = tmp_path / "run"
    trained(recipe, drawn, run)
    (run / "weights.safetensors").unlink()
    text = (run / "recipe.yaml").read_text()
    assert "\n  fold: 0\n" in text
    (run / "recipe.yaml").write_text(text.replace("\n  fold: 0", ""))
    with pytest.raises(ConfigError, match="begun by an older mien, whose seed chose the held-out rows"):
        trained(recipe, drawn, run, resume=True)


def test_an_init_of_which_nothing_fits(drawn, one_epoch, tmp_path):
    """A perceptron has no kernels of its own that could differ."""
    recipe = drawn_recipe(ONE, "network={backbone: mlp, pool: flatten, hidden: [16]}")
    with pytest.raises(ModelError, match="no kernel has the name and shape"):
        trained(recipe, drawn, tmp_path / "run", init=one_epoch)


def test_held_out_rows_that_cannot_say_what_is_monitored(drawn, tmp_path):
    manifest = Manifest.read(drawn)
    one = manifest.split("validation")
    rows = [i for i, sample in enumerate(one) if sample.target.argmax() == 0]
    merge([manifest.split("train"), one.take(rows)]).write(tmp_path / "one.parquet")
    recipe = drawn_recipe("schedule={epochs: 2, warmup: 0, monitor: auroc, stop: 1}")
    with pytest.raises(ConfigError, match="schedule.monitor: the held-out rows give no auroc; they give .*accuracy"):
        trained(recipe, tmp_path / "one.parquet", tmp_path / "run")
    manifest.split("train").write(tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no rows in split .validation.; it has: train; set data.validation=0.1"):
        trained(drawn_recipe(ONE), tmp_path / "train.parquet", tmp_path / "other")


def test_a_teacher_does_not_say_what_an_unmade_face_shows(drawn, one_epoch, tmp_path, monkeypatch):
    given, taught = [], ExpressionModule._taught

    def seen(self, x, told, face):
        with torch.no_grad():
            given.append((taught(self, x, told, face), self.teachers[0](x)[0], face))
        return given[-1][0]

    monkeypatch.setattr(ExpressionModule, "_taught", seen)
    recipe = drawn_recipe(ONE, "augment.unmake=0.5", "augment.mixup=0.5")
    trained(recipe, drawn, tmp_path / "run", teachers=[one_epoch])
    used, said, face = (torch.cat(column) for column in zip(*given, strict=True))
    assert torch.allclose(used, face * said + (1 - face) / 8, atol=1e-5)
    assert face.min() == 0
    assert face.max() == 1
    assert ((face > 0.01) & (face < 0.99)).any()  # mixed of a face and none


def test_a_teacher_without_a_head_to_teach_is_refused(drawn, one_epoch, tmp_path):
    with pytest.raises(ConfigError, match="--teacher: teachers teach expressions, and network.expression is false"):
        trained(
            drawn_recipe(ONE, "network.expression=false", "network.affect=trained"),
            drawn,
            tmp_path / "run",
            teachers=[one_epoch],
        )


def test_a_teacher_is_compiled_and_laid_out_as_the_student(drawn, one_epoch, tmp_path, monkeypatch):
    compiled, asked = [], []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    answer = ExportGraph.forward

    def seen(self, x):
        if not torch.is_inference_mode_enabled():  # so it is asked for the run's own held-out rows at the end
            asked.append(x.is_contiguous(memory_format=torch.channels_last))
        return answer(self, x)

    monkeypatch.setattr(ExportGraph, "forward", seen)
    trained(drawn_recipe(ONE, "trainer.compile=true"), drawn, tmp_path / "run", teachers=[one_epoch])
    assert compiled == ["Network", "ExportGraph"]
    assert asked
    assert all(asked)


def test_compiling_that_fails_says_so(drawn, tmp_path, monkeypatch):
    from torch._dynamo.exc import InternalTorchDynamoError

    def failing(*_arguments, **_options):
        raise InternalTorchDynamoError("no such operation")

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "forward", failing))
    with pytest.raises(TrainingError, match="trainer.compile: torch.compile failed here .no such operation.; set trai"):
        trained(drawn_recipe(ONE, "trainer.compile=true"), drawn, tmp_path / "run")


@pytest.mark.parametrize("setting", ["trainer.accumulate=2", "trainer.precision=16-mixed"])
def test_what_sharpness_aware_steps_cannot_do(setting):
    with pytest.raises(ConfigError, match="optimizer.sam: not with trainer"):
        drawn_recipe("optimizer.sam=0.05", setting)
