"""INT8: a model file whose large layers compute with eight bits, by ONNX Runtime's static quantisation. No torch.

The ranges of activations come from real faces (`calibrate`). Weights are rounded channel by channel to seven bits, not eight:
processors without VNNI add two products of eight-bit numbers in sixteen bits and overflow with the eighth; what seven bits
lose stands in docs/export.md. What stands before the first layer with weights (grey, scaling), that layer, and the heads
stay in float; more layers do where labels change too often or valence and arousal move too far, the worst first.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from mien.errors import ConfigError, ExportError
from mien.export.graphs import drop_unread
from mien.runtime.sessions import ORT_ERRORS, why_unopened

__all__ = ["LEAST", "answers", "float_weights", "folded", "heads_and_stem", "layers", "quantized", "ranked"]

#: Fewest faces whose activations may set the ranges.
LEAST = 100
#: Operators that compute with eight bits.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
_WEIGHTED = ("Conv", "Gemm", "MatMul", "ConvTranspose")
_BATCH = 64


def folded(model: onnx.ModelProto, where: str = "the model") -> onnx.ModelProto:
    """The same graph, every node with a name, with constants worked out (weights stored in half precision become float32) and norms merged into the
    layers before them. Raises ExportError: ONNX Runtime cannot open it (an unknown opset or operator)."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(place)
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except ORT_ERRORS as error:
            raise ExportError(f"{where}: {why_unopened(str(error))}") from error
        plain = onnx.load(str(place))
    domains = {node.domain for node in plain.graph.node}
    kept = [entry for entry in plain.opset_import if entry.domain in domains or not entry.domain]
    drop_unread(plain.graph)
    for number, node in enumerate(plain.graph.node):
        node.name = node.name or f"node{number}"
    del plain.opset_import[:]
    plain.opset_import.extend(kept)
    return plain


def quantized(model: onnx.ModelProto, chips: np.ndarray, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """A folded float model with its layers in int8, but for stem, heads and the nodes named in `keep`.

    chips: float32 (n, 3, h, w) of real faces, LEAST or more.
    Raises ConfigError (too few chips), ExportError (no layer that can be quantised).
    """
    if len(chips) < LEAST:
        raise ConfigError(f"--calibrate: {len(chips)} faces are too few to set ranges by; give {LEAST} or more")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    left = {*heads_and_stem(model.graph), *keep}
    if not layers(model.graph):
        raise ExportError("int8: the model has no layer besides its first and its heads; there is nothing to quantise")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole, place = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(whole))  # a graph in memory would be emptied
        quantize_static(
            str(whole),
            str(place),
            _Chips(chips),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(left),
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(str(place))


class _Chips:
    """Chips in batches, as ONNX Runtime's calibration asks for them."""

    def __init__(self, chips: np.ndarray) -> None:
        self._batches = iter([{"chips": chips[at : at + _BATCH]} for at in range(0, len(chips), _BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self._batches


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's advice, which is written to the root of all logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def heads_and_stem(graph: onnx.GraphProto) -> set[str]:
    """The names of the nodes from the input to the first layer with weights, and from the last such layer to the outputs."""
    constants = {item.name for item in graph.initializer}
    fed: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            fed.setdefault(name, []).append(node)
    maker = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    ahead, back = [item.name for item in graph.input], [item.name for item in graph.output]
    while ahead:
        for node in fed.get(ahead.pop(), ()):
            if node.name not in found:
                found.add(node.name)
                ahead += [] if _has_weights(node, constants) else list(node.output)
    behind: set[str] = set()
    while back:
        name = back.pop()
        if name in maker and maker[name].name not in behind:
            node = maker[name]
            behind.add(node.name)
            back += [] if _has_weights(node, constants) else list(node.input)
    return found | behind


def layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The layers with weights between stem and heads: those that int8 is for."""
    left = heads_and_stem(graph)
    return [node for node in graph.node if node.op_type in _WEIGHTED and node.name not in left]


def _has_weights(node: onnx.NodeProto, constants: set[str]) -> bool:
    return node.op_type in _WEIGHTED and any(name in constants for name in node.input[1:])


def ranked(model: onnx.ModelProto, small: onnx.ModelProto, chips: np.ndarray) -> list[str]:
    """The layers with weights that `small` computes in int8, first the one that costs most: whose return to float brings
    the probabilities of these chips (the affect, where there are none) nearest to those of `model`."""
    wanted = answers(model, chips)
    errors = {
        layer.name: float(np.nanmean(np.abs(answers(_without(small, model, layer), chips) - wanted)))
        for layer in layers(model.graph)
    }
    return sorted(errors, key=lambda name: errors[name])


def _without(small: onnx.ModelProto, model: onnx.ModelProto, layer: onnx.NodeProto) -> onnx.ModelProto:
    """A copy of `small` in which this layer's inputs and weights are not rounded."""
    freed = onnx.ModelProto()
    freed.CopyFrom(small)
    maker = {name: node for node in freed.graph.node for name in node.output}
    weights = {item.name: item for item in model.graph.initializer}
    node = next(item for item in freed.graph.node if item.name == layer.name)
    for place, name in enumerate(node.input):
        rounding = maker.get(name)
        if rounding is None or rounding.op_type != "DequantizeLinear":
            continue
        if layer.input[place] in weights:
            value = onnx.TensorProto()
            value.CopyFrom(weights[layer.input[place]])
            value.name = f"{value.name}.float"
            freed.graph.initializer.append(value)
            node.input[place] = value.name
        else:
            node.input[place] = maker[rounding.input[0]].input[0]
    return freed


def answers(model: onnx.ModelProto, chips: np.ndarray) -> np.ndarray:
    """(n, c + 2) probabilities and affect of a graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate(session.run(["probabilities", "affect"], {"chips": chips}), axis=1)


def float_weights(model: onnx.ModelProto) -> bool:
    """Whether every weight is float32: none in half precision or int8."""
    return all(
        numpy_helper.to_array(item).dtype.name not in ("float16", "int8", "uint8") for item in model.graph.initializer
    )
