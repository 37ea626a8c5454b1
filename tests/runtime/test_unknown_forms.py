"""Model files that the installed ONNX Runtime does not know."""

import onnx
import pytest

from mien.errors import ModelError, ModelNotFound
from mien.runtime.sessions import open_onnx
from mien.runtime.store import model_file


def newer_opset(model):
    model.opset_import[0].version = 99


def newer_form(model):
    model.ir_version = 99


def strange_operator(model):
    model.graph.node[3].op_type = "Frobnicate"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            newer_opset,
            r"written in opset 99; the installed ONNX Runtime .* knows up to \d+: pip install -U onnxruntime",
        ),
        (
            newer_form,
            r"written in ONNX form 99; the installed ONNX Runtime .* knows up to \d+: pip install -U onnxruntime",
        ),
        (strange_operator, "holds the operator Frobnicate, which the installed ONNX Runtime .* does not know"),
    ],
)
def test_what_onnx_runtime_does_not_know_is_named(change, says, tmp_path):
    model = onnx.load(str(model_file("ferplus-nano")))
    change(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=says):
        open_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["mien-face", "yunet"])
def test_a_detector_is_no_expression_model(name):
    with pytest.raises(ModelNotFound, match="is a face detector, no expression model; --detector takes it"):
        model_file(name)
