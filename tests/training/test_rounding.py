"""Training that feels rounding: the grids of an int8 file, gradients that pass, and networks that bear it."""

import numpy as np
import pytest
import torch
from drawing import drawn_recipe, trained

from builders import a_run
from mien.data.manifest import Manifest
from mien.data.prepare import chips, prepare
from mien.data.synthetic import synthetic
from mien.errors import ConfigError, ExportError, TrainingError
from mien.export import targets
from mien.export.onnx import export_onnx
from mien.export.quantize import answers, folded, layers, quantized
from mien.models.weights import load_weights
from mien.recipe import load_recipe, recipe_text
from mien.runtime.sessions import read_spec
from mien.sections import QuantizeSection
from mien.training.rounding import rounded_answer, rounded_input, rounded_layers, rounded_weight

EIGHT = QuantizeSection(bits=8)


def faces(count: int = 128, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


def test_every_channel_of_a_weight_has_a_grid_of_its_own():
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([0.01, 1, 10, 100]).reshape(4, 1, 1, 1)
    rounded = rounded_weight(weight, 7)
    for before, after in zip(weight, rounded, strict=True):
        step = before.abs().max() / 64
        assert torch.allclose(after / step, (after / step).round(), atol=1e-4)
        assert (before - after).abs().max() <= step / 2 + 1e-6


def test_the_grid_of_an_input_holds_zero_and_its_own_ends():
    x = torch.linspace(-1, 3, 1001)
    rounded = rounded_input(x, 8)
    assert len(rounded.unique()) <= 256
    assert 0 in rounded
    assert (x - rounded).abs().max() <= 4 / 255
    assert rounded_input(torch.zeros(5), 8).tolist() == [0] * 5


def test_first_layer_and_heads_are_left_and_gradients_pass(tmp_path):
    network, _ = load_weights(a_run(tmp_path, hidden=(16,)) / "weights.safetensors")
    names = list(rounded_layers(network))
    assert "expression" not in names
    assert any(name.startswith("hidden") for name in names)
    assert len(names) == sum(isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) for layer in network.modules()) - 2
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rounded_answer(network, faces(4), EIGHT).logits.square().sum().backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in network.modules())


def test_it_rounds_what_the_file_rounds(tmp_path):
    run = a_run(tmp_path / "run")
    export_onnx(run / "weights.safetensors", tmp_path / "m.onnx")
    import onnx

    whole = folded(onnx.load(tmp_path / "m.onnx"))
    network, spec = load_weights(run / "weights.safetensors")
    assert len(rounded_layers(network)) == len(layers(whole.graph))
    x = faces()
    with torch.inference_mode():
        ours = torch.softmax(rounded_answer(network, x, EIGHT).logits / spec.temperature, dim=1).numpy()
        exact = torch.softmax(network(x).logits / spec.temperature, dim=1).numpy()
    theirs = answers(quantized(whole, x.numpy()), x.numpy())[:, :-2]
    assert np.abs(ours - theirs).mean() < 0.6 * np.abs(exact - theirs).mean() + 1e-4


def _loss(run, rows: Manifest, section: QuantizeSection) -> float:
    """Cross-entropy on drawn faces when rounded."""
    network, spec = load_weights(run / "weights.safetensors")
    prepared = prepare(rows, spec.crop).chips
    x = torch.from_numpy(chips(prepared)).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
    with torch.inference_mode():
        logits = rounded_answer(network.eval(), x, section).logits
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(prepared.targets().argmax(1))))


def test_a_network_learns_to_bear_coarse_rounding(drawn, tmp_path):
    coarse, rows = QuantizeSection(bits=3, weights=3), Manifest.read(drawn)
    trained(drawn_recipe("schedule.epochs=10"), drawn, tmp_path / "plain")
    settings = ("quantize={bits: 3, weights: 3}", "schedule.epochs=6", "optimizer.lr=0.002")
    trained(drawn_recipe(*settings), drawn, tmp_path / "taught", init=tmp_path / "plain")
    assert _loss(tmp_path / "taught", rows, coarse) < 0.8 * _loss(tmp_path / "plain", rows, coarse)


def test_what_cannot_be_asked_is_told():
    with pytest.raises(ConfigError, match="quantize.bits: expected 0 or a number from 2 to 8, got 1"):
        load_recipe("ferplus-nano", ["quantize.bits=1"])
    with pytest.raises(ConfigError, match="trainer.compile: not with quantize.bits"):
        load_recipe("ferplus-nano", ["quantize.bits=8", "trainer.compile=true"])


def test_an_export_that_loses_too_much_trains_on_and_exports_that(one_epoch, mien, tmp_path, monkeypatch):
    synthetic(400, seed=1).write(tmp_path / "many.parquet")
    (one_epoch / "recipe.yaml").write_text(recipe_text(drawn_recipe()))
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # more threads than tests may have take turns
    asked: list[object] = []

    def refuse(*given):
        asked.append(given)
        if len(asked) == 1:
            raise ExportError("too many labels flipped")

    monkeypatch.setattr(targets, "refuse", refuse)
    words = ("export", one_epoch, "--to", "onnx-int8", "--calibrate", "many.parquet")
    code, out, err = mien(*words, "--out", "m.onnx", "--finetune", "taught")
    assert code == 0, err
    assert "too many labels flipped; training on with rounding: taught" in err
    assert "begins afresh: nothing" in err
    recipe = load_recipe(tmp_path / "taught" / "recipe.yaml")
    assert recipe.data.sources == drawn_recipe().data.sources
    assert (recipe.quantize.bits, recipe.optimizer.lr) == (8, pytest.approx(0.004 * 0.02))
    assert read_spec("m.onnx").precision == "int8"
    assert "of 120 labels flipped" in out


@pytest.mark.parametrize(("words", "sources"), [((), ("fer2013",)), (("--source", "ferplus"), ("ferplus",))])
def test_it_trains_on_with_the_labels_that_the_run_learned(words, sources, mien, tmp_path, monkeypatch):
    a_run(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text(recipe_text(drawn_recipe("data.sources=[fer2013]")))
    synthetic(400, seed=1).write(tmp_path / "many.parquet")
    recipes = []

    def refuse(*_):
        raise ExportError("too many labels flipped")

    def fit(recipe, *_, **__):
        recipes.append(recipe)
        raise TrainingError("enough")

    monkeypatch.setattr(targets, "refuse", refuse)
    monkeypatch.setattr("mien.training.fit.fit", fit)
    words = ("--to", "onnx-int8", "--calibrate", "many.parquet", "--finetune", "taught", *words)
    for model in ("run", "run/weights.safetensors"):
        code, _, err = mien("export", model, *words)
        assert (code, "enough" in err) == (2, True), err
    assert [one.data.sources for one in recipes] == [sources] * 2


def test_what_has_no_recipe_to_train_on_by_is_told_before_the_work(mien, tmp_path):
    a_run(tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    export_onnx(weights, tmp_path / "tiny.onnx")
    weights.rename(tmp_path / "soup.safetensors")
    words = ("--to", "onnx-int8", "--calibrate", "none", "--out", "m.onnx", "--finetune", "taught")
    code, _, err = mien("export", "soup.safetensors", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "--finetune: soup.safetensors is no run with its recipe beside it" in err
    assert "--init soup.safetensors" in err
    code, _, err = mien("export", "tiny.onnx", *words)
    assert (code, "tiny.onnx was made by no recipe that is known here ('tiny')" in err) == (2, True)
    a_run(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text(recipe_text(drawn_recipe("data.sources=[ferplus, rafdb]")))
    code, _, err = mien("export", "run", *words)
    assert (code, "run learned from ferplus, rafdb; give --calibrate one manifest of them" in err) == (2, True)
