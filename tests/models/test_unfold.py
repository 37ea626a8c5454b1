"""From a model file back to a network that can learn."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
import torch

from mien.errors import ModelError, ModelNotFound
from mien.labels import label_set
from mien.models.face import OUTPUTS, FaceNetwork
from mien.models.network import ExportGraph, build_network
from mien.models.unfold import unfold, unfold_detector
from mien.models.weights import save_weights, start_from
from mien.recipe import load_recipe
from mien.runtime.sessions import OnnxSession, open_onnx
from mien.runtime.store import ENTRIES, locate, model_file

DETECTOR = locate(ENTRIES["mien-face"])


@pytest.fixture(scope="module")
def chips():
    rng = np.random.default_rng(0)
    rough = rng.uniform(0, 255, (128, 3, 6, 6)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(rough), (48, 48), mode="bilinear")


@pytest.mark.parametrize("name", ["ferplus-small", "ferplus-nano"])
def test_a_shipped_model_becomes_a_network_that_answers_as_it_does(name, chips):
    network, spec = unfold(model_file(name), chips)
    wanted = OnnxSession(model_file(name), 1).run(chips.numpy())[0]
    with torch.no_grad():
        still = ExportGraph(network.eval(), spec)(chips)[0].numpy()
        learning = ExportGraph(network, spec).train()
        for module in learning.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        moved = learning(chips)[0].numpy()
    assert np.abs(wanted - still).max() < 1e-3
    assert np.abs(wanted - moved).max() < 1e-3  # the norms' statistics are those of the chips
    assert any(module.weight.std() > 0.01 for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_a_run_starts_from_a_model_by_name_with_new_labels(chips):
    recipe = load_recipe("fer2013-small", ["network.backbone=mien-small"])
    network = build_network(recipe.network, label_set(recipe.data.labels), recipe.crop)
    told = start_from(network, "ferplus-small", chips=chips)
    assert told["fresh"] == ["expression.bias", "expression.weight"]
    assert told["path"] == "ferplus-small"
    source = unfold(model_file("ferplus-small"), chips)[0].state_dict()
    assert torch.equal(
        network.state_dict()["backbone.layers.4.first.0.weight"], source["backbone.layers.4.first.0.weight"]
    )


@pytest.fixture
def narrow(tmp_path, chips):
    """A narrow network whose norms know some chips, its file, and what it says of them."""
    network, spec = unfold(model_file("ferplus-nano"), chips)
    section = msgspec.structs.replace(load_recipe("fer2013-nano").network, backbone="mien-nano")
    if spec.network["backbone"] != "mien-nano":  # untrained will do
        network = build_network(section, label_set("affectnet8"), spec.crop).train()
        network(chips)
        spec = msgspec.structs.replace(spec, network=msgspec.to_builtins(section))
    save_weights(tmp_path / "narrow.safetensors", network, spec)
    with torch.no_grad():
        return tmp_path / "narrow.safetensors", network.eval()(chips).logits


def test_a_wider_network_begins_as_the_narrow_one_and_uses_its_room(chips, narrow):
    file, wanted = narrow
    recipe = load_recipe("fer2013-nano", ["network.backbone=mien-nano-wide", "network.dropout=0"])
    network = build_network(recipe.network, label_set("affectnet8"), recipe.crop)
    told = start_from(network, file)
    assert told["fresh"] == []
    assert "backbone.layers.5.0.weight" in told["widened"]
    with torch.no_grad():
        assert torch.allclose(network.eval()(chips).logits, wanted, atol=1e-4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    beyond = network.get_parameter("backbone.layers.5.0.weight")[48:].clone()
    for _ in range(2):  # the first step lets the new channels be heard, the second teaches them
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.train()(chips).logits, torch.arange(128) % 8).backward()
        optimizer.step()
    assert (network.get_parameter("backbone.layers.5.0.weight")[48:] - beyond).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("labels", "settings", "fresh"),
    [
        ("affectnet7", ["network.backbone=mien-nano-wide"], {"expression.weight", "expression.bias"}),
        (("calm", "glad", *"abcdefgh"), ["network.backbone=mien-nano-wide"], {"expression.weight", "expression.bias"}),
        (("calm", "glad", *"abcdefgh"), ["network.backbone=mien-nano"], {"expression.weight", "expression.bias"}),
    ],
)
def test_a_head_of_other_classes_is_never_widened(narrow, labels, settings, fresh):
    recipe = load_recipe("fer2013-nano", settings)
    network = build_network(recipe.network, label_set(labels), recipe.crop)
    told = start_from(network, narrow[0])
    assert set(told["fresh"]) == fresh
    assert not [name for name in told["widened"] if name.startswith("expression.")]
    assert bool(told["widened"]) == ("mien-nano-wide" in settings[0])


@pytest.mark.parametrize("setting", ["network.channels=3", "network.hidden=[32]"])
def test_a_network_of_other_inputs_or_hidden_layers_is_not_widened(narrow, setting):
    recipe = load_recipe("fer2013-nano", ["network.backbone=mien-nano-wide", setting])
    with pytest.raises(ModelError, match="another network"):
        start_from(build_network(recipe.network, label_set("affectnet8"), recipe.crop), narrow[0])


@pytest.mark.parametrize("backbone", ["mien-small", "mien-pico", "fcn"])
def test_a_network_with_other_layers_or_less_room_takes_nothing_over(backbone, narrow):
    recipe = load_recipe("fer2013-nano", [f"network.backbone={backbone}"])
    network = build_network(recipe.network, label_set("affectnet8"), recipe.crop)
    with pytest.raises(ModelError, match="another network"):
        start_from(network, narrow[0])


def test_a_model_of_another_size_and_an_unknown_name(chips):
    recipe = load_recipe("fer2013-nano")
    network = build_network(recipe.network, label_set(recipe.data.labels), recipe.crop)
    with pytest.raises(ModelError, match="another network"):
        start_from(network, "ferplus-small", chips=chips)
    with pytest.raises(ModelNotFound, match="no finished run, no weights file, no model"):
        start_from(network, "ferplus-smal", chips=chips)


def test_an_ensemble_is_no_one_network(tmp_path, chips):
    from mien.export.ensemble import export_ensemble

    names = ["ferplus-small", "ferplus-nano"]
    export_ensemble([model_file(name) for name in names], [1, 1], tmp_path / "both.onnx")
    with pytest.raises(ModelError, match="start from a run"):
        unfold(tmp_path / "both.onnx", chips)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(1)
    rough = rng.uniform(0, 255, (32, 1, 12, 12)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(rough), (64, 96), mode="bilinear")


def test_the_shipped_detector_becomes_a_network_that_answers_as_it_does(scenes):
    network, spec = unfold_detector(DETECTOR, scenes)
    assert spec.name == "mien-face"
    session = open_onnx(DETECTOR, 1)
    wanted = session.run(OUTPUTS, {session.get_inputs()[0].name: scenes.repeat(1, 3, 1, 1).numpy()})
    with torch.no_grad():
        still, learning = network(scenes), network.train()(scenes)
    for answer in (still, learning):
        assert np.abs(wanted[0][..., 0] - torch.sigmoid(answer[:, :96, 0]).numpy()).max() < 1e-3
        assert np.abs(wanted[2] - answer[:, :96, 1:5].numpy()).max() < 1e-2


def test_a_detector_starts_from_the_shipped_one_with_more_blocks(scenes):
    section = load_recipe("mien-face").network
    network = FaceNetwork(msgspec.structs.replace(section, early=section.early + 1)).eval()
    told = start_from(network, "mien-face", part="", chips=scenes)
    assert told["fresh"]
    assert all(name.startswith(f"more.{section.early - 1}.") for name in told["fresh"])
    with torch.no_grad():
        same = unfold_detector(DETECTOR, scenes)[0](scenes)
        assert torch.allclose(network(scenes), same, atol=1e-4)  # blocks that have not learned change nothing


def test_a_detector_does_not_start_from_a_model_of_expressions(scenes):
    with pytest.raises(ModelError, match="ferplus-nano"):
        start_from(FaceNetwork(load_recipe("mien-face").network), "ferplus-nano", part="", chips=scenes)


def _without_kernels(model):
    for tensor in model.graph.initializer:
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, node)
    del model.graph.initializer[:]


def _one_size(model):
    for i, side in enumerate((1, 3, 320, 320)):
        model.graph.input[0].type.tensor_type.shape.dim[i].dim_value = side


def _another_output(model):
    model.graph.output[0].name = "scores"
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "cls_8" else name for name in node.output]
        node.input[:] = ["scores" if name == "cls_8" else name for name in node.input]


def _unknown_network(model):
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"widths"', '"widhts"')


@pytest.mark.parametrize("alter", [_without_kernels, _one_size, _another_output, _unknown_network])
def test_an_altered_detector_is_one_clear_error(alter, scenes, tmp_path):
    model = onnx.load(DETECTOR)
    alter(model)
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(ModelError, match=r"altered\.onnx: "):
        unfold_detector(tmp_path / "altered.onnx", scenes)


def test_a_detector_of_another_kind_and_an_unknown_name():
    network = FaceNetwork(load_recipe("mien-face").network)
    with pytest.raises(ModelNotFound, match="no finished run, no weights file, no model"):
        start_from(network, "yunet", part="")
    told = start_from(network, "mien-face", part="")  # no scenes: noise
    assert told["fresh"] == []
