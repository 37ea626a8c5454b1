"""What a network shows of its reasons: maps and features, in torch and in the file."""

import numpy as np
import pytest
import torch

from builders import a_run
from mien.errors import ConfigError, ExportError, ModelError
from mien.export.onnx import export_onnx
from mien.export.targets import make, target
from mien.export.verify import Allowed, compare, refuse
from mien.models.weights import TorchSession, load_weights
from mien.runtime.sessions import FullSession, OnnxSession
from test_runtime import a_model


def chips(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 3, 32, 32)).astype(np.float32)


def full(run, maps: bool = True):
    network, _ = load_weights(run / "weights.safetensors")
    network.requires_grad_(False)
    return network, network.full(torch.from_numpy(chips()), maps)


def test_class_activation_maps_average_to_the_logits(tmp_path):
    network, found = full(a_run(tmp_path))
    assert found.maps.shape == (3, 8, 4, 4)
    assert torch.allclose(found.maps.mean(dim=(2, 3)), found.logits, atol=1e-4)
    seen = network.backbone(network._scaled(torch.from_numpy(chips())))
    by_hand = torch.einsum("kc,nchw->nkhw", network.expression.weight, seen) + network.expression.bias[:, None, None]
    assert torch.allclose(found.maps, by_hand, atol=1e-4)


def test_features_are_what_the_head_sees(tmp_path):
    network, found = full(a_run(tmp_path, hidden=(16,), mirror=True), maps=False)
    assert found.maps is None
    assert found.features.shape == (3, 16)
    assert torch.allclose(network.expression(found.features), found.logits, atol=1e-5)
    assert torch.allclose(found.logits, network(torch.from_numpy(chips())).logits, atol=1e-6)


def test_the_maps_of_a_mirror_image_are_mirrored(tmp_path):
    network, found = full(a_run(tmp_path, mirror=True, pool="gem", hidden=(8,)))
    turned = network.full(torch.from_numpy(chips()).flip(3), True)
    assert torch.allclose(turned.maps.flip(3), found.maps, atol=1e-4)


@pytest.mark.parametrize("section", [{"pool": "average"}, {"pool": "gem", "mirror": True}, {"affect": "trained"}])
def test_the_file_gives_what_the_network_gives(section, tmp_path):
    run = a_run(tmp_path / "run", **section)
    assert export_onnx(run / "weights.safetensors", tmp_path / "m.onnx", outputs=("maps", "features")) < 1e-4
    session = OnnxSession(tmp_path / "m.onnx", 1)
    assert isinstance(session, FullSession)
    assert session.spec.outputs == ("maps", "features")
    network, _ = load_weights(run / "weights.safetensors")
    for ours, theirs in zip(
        session.run_all(chips()), TorchSession(network, session.spec).run_all(chips()), strict=True
    ):
        assert np.allclose(ours, theirs, atol=1e-4)
    assert [part.shape[1:] for part in session.run_all(chips(1))] == [(8,), (2,), (8, 4, 4), (48,)]
    assert len(session.run(chips())) == 2


@pytest.mark.parametrize(
    "section", [{"pool": "flatten", "backbone": "cnn"}, {"expression": False, "affect": "trained"}]
)
def test_a_network_without_maps_says_so(section, tmp_path):
    run = a_run(tmp_path / "run", **section)
    with pytest.raises(ConfigError, match="no class maps in it"):
        export_onnx(run / "weights.safetensors", tmp_path / "m.onnx", outputs=("maps",))
    assert not (tmp_path / "m.onnx").exists()
    export_onnx(run / "weights.safetensors", tmp_path / "m.onnx", outputs=("features",))


def test_a_spec_that_promises_more_than_the_graph_gives_is_refused(tmp_path):
    import msgspec

    from test_runtime import SPEC

    a_model(tmp_path / "m.onnx", msgspec.structs.replace(SPEC, outputs=("features",)))
    with pytest.raises(ModelError, match="its spec names 2 labels and features"):
        OnnxSession(tmp_path / "m.onnx", 1)


def test_export_offers_both(mien, tmp_path):
    a_run(tmp_path / "run")
    code, _, err = mien("export", "run", "--explain", "--features", "--out", "m.onnx")
    assert (code, err) == (0, "")
    assert OnnxSession("m.onnx", 1).spec.outputs == ("maps", "features")


def test_half_precision_halves_the_file_and_little_else(tmp_path):
    run = a_run(tmp_path / "run")
    whole = tmp_path / "whole.onnx"
    export_onnx(run / "weights.safetensors", whole)
    made = make(whole, target("onnx-fp16"), tmp_path, "half")
    half = made.files[0]
    assert 0 < made.difference.largest < 0.01
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    a, b = (OnnxSession(path, 1).run(chips(16))[0] for path in (whole, half))
    assert np.abs(a - b).max() < 0.01
    network = TorchSession(*load_weights(run / "weights.safetensors"))
    with pytest.raises(ExportError, match=r"differ from the network's by .*allowed 1e-09"):
        refuse(compare(network, OnnxSession(half, 1), [chips(16)]), Allowed(1e-9), "the network's")
