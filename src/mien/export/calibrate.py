"""A model file with another temperature or threshold: the graph is edited, its answers compared. No torch."""

from __future__ import annotations

from os import PathLike

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from mien.errors import ModelError
from mien.evaluation.calibration import LEAST, tempered
from mien.export.graphs import agree, open_graph, trial_chips, write_model
from mien.labels import LabelSet, affect_means
from mien.runtime.sessions import OnnxSession
from mien.spec import ModelSpec

__all__ = ["export_calibrated"]

#: Figures that a new temperature makes untrue.
_OF_CONFIDENCE = ("ece", "nll", "brier", "cross_entropy")


def export_calibrated(
    file: str | PathLike[str],
    out: str | PathLike[str],
    factor: float = 1.0,
    threshold: float | None = None,
    calibrated_on: str = "",
    overwrite: bool = False,
) -> ModelSpec:
    """Write the model file `file` as `out`, its temperature multiplied by `factor`; returns the new spec.

    The constant `temperature` of the graph is changed where there is one; else the answers go through one more softmax, of
    their logarithms over the factor, which is the same. The spec states the whole temperature, the threshold and the rows behind
    both. Figures of confidence that a new temperature makes untrue leave it, and so does an old threshold; without a new
    temperature what the spec says stays, and `calibrated_on` is added to it.
    Raises ModelError, OutputError, ExportError (the file does not answer as it should: nothing is written).
    """
    model, spec = open_graph(file)
    if not spec.expression:
        raise ModelError(f"{file}: answers valence and arousal alone; there is no confidence to calibrate")
    kept = factor == 1
    metrics = {k: v for k, v in spec.metrics.items() if kept or k.rpartition("/")[2] not in _OF_CONFIDENCE}
    new = msgspec.structs.replace(
        spec,
        temperature=round(spec.temperature * factor, 6),
        threshold=threshold if threshold is not None else spec.threshold if kept else 0.0,
        calibrated_on="; ".join(filter(None, (spec.calibrated_on if kept else "", calibrated_on))),
        metrics=metrics,
    )
    if factor != 1 and not _changed(model.graph, factor):
        _inserted(model.graph, factor, str(file))
    before = OnnxSession(file, 1)
    write_model(model, new, out, lambda part: _verify(before, OnnxSession(part, 1), factor), overwrite)
    return new


def _changed(graph: onnx.GraphProto, factor: float) -> bool:
    """Multiply the constant that logits are divided by before `probabilities`, if it is there by its name."""
    last = next((node for node in graph.node if "probabilities" in node.output), None)
    if last is None or last.op_type != "Softmax":
        return False
    scaling = next((node for node in graph.node if last.input[0] in node.output), None)
    if scaling is None or scaling.op_type != "Div" or not scaling.input[1].endswith("temperature"):
        return False
    for value in graph.initializer:
        if value.name == scaling.input[1]:
            array = numpy_helper.to_array(value)
            value.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), value.name))
            return True
    return False


def _inserted(graph: onnx.GraphProto, factor: float, where: str) -> None:
    """Put one more softmax before `probabilities`; what else reads `probabilities` reads the new ones."""
    at = next((i for i, node in enumerate(graph.node) if "probabilities" in node.output), None)
    if at is None:
        raise ModelError(f"{where}: altered: no node gives `probabilities`")
    source = graph.node[at]
    source.output[list(source.output).index("probabilities")] = "uncalibrated"
    added = [
        helper.make_node("Max", ["uncalibrated", "calibration/least"], ["calibration/floor"]),
        helper.make_node("Log", ["calibration/floor"], ["calibration/logits"]),
        helper.make_node("Div", ["calibration/logits", "calibration/temperature"], ["calibration/scaled"]),
        helper.make_node("Softmax", ["calibration/scaled"], ["probabilities"], axis=1),
    ]
    for offset, node in enumerate(added):
        graph.node.insert(at + 1 + offset, node)
    for name, number in (("calibration/least", LEAST), ("calibration/temperature", factor)):
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))


def _verify(before: OnnxSession, after: OnnxSession, factor: float) -> float:
    spec, worst = before.spec, 0.0
    for chips in trial_chips(spec.crop):
        old, new = before.run_all(chips), after.run_all(chips)
        wanted = tempered(old[0].astype(np.float64), factor)
        affect = wanted @ affect_means(LabelSet(spec.labels)) if spec.affect == "circumplex" else old[1]
        worst = max(worst, *(agree(a, b, of="the calibrated ones") for a, b in ((wanted, new[0]), (affect, new[1]))))
        for a, b in zip(old[2:], new[2:], strict=True):
            worst = max(worst, agree(a, b, max(1.0, float(np.abs(a).max()))))
    return worst
