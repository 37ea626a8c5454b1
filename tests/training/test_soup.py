"""The average of several runs' weights."""

import shutil

import msgspec
import numpy as np
import pytest
import torch
from drawing import drawn_recipe, trained

from mien.data.manifest import Manifest
from mien.errors import ConfigError, DataError, ModelNotFound, OutputError
from mien.models.weights import load_weights, save_weights
from mien.runtime.sessions import read_spec
from mien.training import ending
from mien.training.augment import centre
from mien.training.dataset import ChipDataset
from mien.training.soup import soup


@pytest.fixture(scope="module")
def pair(drawn, _one_epoch, tmp_path_factory):
    """A run, and one that learned on from it."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "write_curves", lambda _metrics, out, _title: out.write_bytes(b""))
        recipe = drawn_recipe("schedule.epochs=2", "seed=1", "optimizer.lr=0.02")
        trained(recipe, drawn, folder / "on", init=_one_epoch)
    return _one_epoch, folder / "on"


def tensors(path):
    return load_weights(path)[0].state_dict()


def test_weights_are_averaged_and_norms_and_temperature_are_made_anew(pair, tmp_path):
    made = soup(pair, tmp_path / "soup.safetensors", shares=[1, 3], threads=1)
    first, second, mixed = (tensors(p) for p in (*(run / "weights.safetensors" for run in pair), made.path))
    kernel, norm = "backbone.layers.0.0.weight", "backbone.layers.0.1.running_mean"
    assert torch.allclose(mixed[kernel], (first[kernel] + 3 * second[kernel]) / 4, atol=1e-6)
    assert not torch.allclose(mixed[norm], (first[norm] + 3 * second[norm]) / 4, atol=1e-6)
    network, spec = load_weights(made.path)
    chips = Manifest.read(pair[0] / "chips.parquet").split("train")
    seen: list[torch.Tensor] = []
    hook = network.backbone.layers[0][0].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        network(centre(ChipDataset(chips).chips, drawn_recipe().crop.border))
    hook.remove()
    assert torch.allclose(mixed[norm], seen[0].mean(dim=(0, 2, 3)), atol=1e-3)
    assert list(made.scores) == [str(run) for run in pair] + ["soup.safetensors"]
    assert made.held == len(Manifest.read(pair[0] / "chips.parquet").split("validation"))
    assert [line.split(", sha256")[0] for line in spec.trained_on[-2:]] == [
        f"averaged from {pair[0].name} (share 0.25)",
        "averaged from on (share 0.75)",
    ]
    assert "mien soup of 2 runs" in spec.made_by


def test_a_run_averaged_with_its_copy_is_that_run(pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "copy")
    made = soup([pair[0], tmp_path / "copy"], tmp_path / "same.safetensors", threads=1)
    first, both = tensors(pair[0] / "weights.safetensors"), tensors(made.path)
    assert all(
        torch.allclose(first[name], both[name], atol=1e-6) for name in first
    )  # norms that agree keep their statistics


def test_the_spec_knows_all_that_taught_any_of_them(pair, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pair[1], other)
    network, spec = load_weights(other / "weights.safetensors")
    changed = msgspec.structs.replace(
        spec,
        licence=f"{spec.licence}; elsewhere: theirs alone",
        trained_on=(*spec.trained_on, "elsewhere, train split"),
        network={**spec.network, "dropout": 0.3, "pretrained": True, "freeze": 1},
    )
    save_weights(other / "weights.safetensors", network, changed, overwrite=True)
    mixed = load_weights(soup([pair[0], other], tmp_path / "s.safetensors", threads=1).path)[1]
    first = load_weights(pair[0] / "weights.safetensors")[1]
    assert mixed.licence == f"{first.licence}; elsewhere: theirs alone"
    assert {*first.trained_on, "elsewhere, train split"} < set(mixed.trained_on)
    assert any(line.startswith("began with") for line in mixed.trained_on)
    assert mixed.network == first.network


def test_the_command_tells_and_its_file_becomes_a_model(pair, tmp_path, mien):
    assert mien("soup", *pair, "--out", "s.safetensors", "--shares", "half")[::2] == (
        2,
        "mien: error: --shares half: expected numbers with commas, such as 0.7,0.3\n",
    )
    code, out, err = mien("soup", *pair, "--out", "s.safetensors", "--shares", "0.5,0.5", "--threads", "1")
    assert code == 0, err
    assert "macro recall" in out
    assert f"rows that {pair[0]} held out" in out
    assert mien("export", "s.safetensors", "--out", "s.onnx")[0] == 0
    assert read_spec(tmp_path / "s.onnx").labels == load_weights(tmp_path / "s.safetensors")[1].labels


def test_an_earlier_average_is_averaged_with_a_run(pair, tmp_path):
    before = soup(pair, tmp_path / "before.safetensors", threads=1).path
    said: list[str] = []
    again = soup([pair[1], before], tmp_path / "again.safetensors", shares=[1, 2], threads=1, tell=said.append)
    kernel = "backbone.layers.0.0.weight"
    first, second = (tensors(run / "weights.safetensors")[kernel] for run in pair)
    assert torch.allclose(tensors(again.path)[kernel], (first + 2 * second) / 3, atol=1e-6)
    assert any(
        line.startswith("averaged from before.safetensors (share 0.667)")
        for line in load_weights(again.path)[1].trained_on
    )
    assert any("nobody knows" in line for line in said)  # which rows the average learned from


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"runs": 1}, ConfigError, "two or more different runs"),
        ({"runs": "twice"}, ConfigError, "two or more different runs"),
        ({"runs": "nothing"}, ModelNotFound, "nothing: no finished run and no weights file"),
        ({"runs": "under two names"}, ConfigError, "one is named twice"),
        ({"runs": "file first"}, ConfigError, "a weights file has no chips, .* give a run first"),
        ({"out": "soup.onnx"}, ConfigError, "expected a file that ends in .safetensors"),
        ({"out": "nowhere/soup.safetensors"}, OutputError, "nowhere"),
        ({"shares": [1]}, ConfigError, "--shares: expected 2 positive numbers"),
        ({"shares": [1, 0]}, ConfigError, "--shares: expected 2 positive numbers"),
        ({"shares": [1, float("nan")]}, ConfigError, "--shares: expected 2 positive numbers"),
    ],
)
def test_what_cannot_be_averaged_is_told(pair, tmp_path, change, error, words):
    runs = {
        1: pair[:1],
        "twice": [pair[0], pair[0]],
        "nothing": [pair[0], tmp_path / "nothing"],
        "under two names": [pair[0], pair[0] / "weights.safetensors"],
        "file first": [pair[0] / "weights.safetensors", pair[1]],
    }.get(change.get("runs"), pair)
    with pytest.raises(error, match=words):
        soup(runs, tmp_path / change.get("out", "soup.safetensors"), change.get("shares"), threads=1)
    assert not (tmp_path / "soup.safetensors").exists()


def test_other_networks_and_runs_without_their_chips_are_told(pair, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pair[1], other)
    network, spec = load_weights(other / "weights.safetensors")
    turned = msgspec.structs.replace(spec, labels=tuple(reversed(spec.labels)))
    save_weights(other / "weights.safetensors", network, turned, overwrite=True)
    with pytest.raises(ConfigError, match=f"{other}: labels is .*, of {pair[0]} neutral, "):
        soup([pair[0], other], tmp_path / "s.safetensors", threads=1)
    save_weights(other / "weights.safetensors", network, spec, overwrite=True)
    (other / "chips.parquet").unlink()
    said: list[str] = []
    soup([pair[0], other], tmp_path / "s.safetensors", threads=1, tell=said.append)  # the first one's are enough
    assert [f"nobody knows which rows {other} (no run with its chips) learned from" in line for line in said] == [True]
    with pytest.raises(DataError, match="its chips.parquet is gone"):
        soup([other, pair[0]], tmp_path / "t.safetensors", threads=1)


def test_a_run_that_began_with_what_nobody_knows_is_told_of(pair, drawn, tmp_path):
    apart = shutil.copy(pair[0] / "weights.safetensors", tmp_path / "apart.safetensors")
    trained(drawn_recipe("schedule.epochs=1"), drawn, tmp_path / "on", init=apart)
    said: list[str] = []
    soup([pair[0], tmp_path / "on"], tmp_path / "s.safetensors", threads=1, tell=said.append)
    [line] = said
    assert line.startswith(f"nobody knows which rows {apart} (no run with its chips) learned from: where the held-out")


def test_held_out_rows_that_taught_a_run_are_told_of(drawn, tmp_path):
    runs = []
    for fold in (0, 1):
        runs.append(tmp_path / f"f{fold}")
        trained(drawn_recipe("schedule.epochs=1", "data.validation=0.2", f"data.fold={fold}"), drawn, runs[-1])
    said: list[str] = []
    made = soup(runs, tmp_path / "s.safetensors", threads=1, tell=said.append)
    (line,) = said
    assert f"{made.held} of the {made.held} held-out rows have taught one of the runs" in line
    assert np.isfinite(made.scores["s.safetensors"].expression.nll)
