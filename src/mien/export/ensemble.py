"""Several model files as one: the members' graphs inside, their weighted mean as the answer. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

import mien
from mien.errors import ConfigError
from mien.evaluation.ensemble import LEAST, mean_answer
from mien.export.graphs import agree, open_graph, trial_chips, write_model
from mien.labels import LabelSet, affect_means
from mien.runtime.sessions import OnnxSession
from mien.spec import EnsembleSpec, Mean, MemberSpec, ModelSpec

__all__ = ["export_ensemble", "same_form"]


#: From the finest on: a file of several members is as coarse as the coarsest.
_COARSE = ("float32", "float16", "int8")


def export_ensemble(
    files: Sequence[str | PathLike[str]],
    weights: Sequence[float],
    out: str | PathLike[str],
    mean: Mean = "probabilities",
    chosen_on: str = "",
    metrics: dict[str, float] | None = None,
    overwrite: bool = False,
) -> float:
    """Write one file that answers as the weighted mean of model files does; returns the largest difference from that.

    weights: made to add up to 1; members of weight 0 are left out.  chosen_on, metrics: for the spec.
    Valence and arousal are the members' mean; those of `circumplex` members follow from the mean's probabilities.
    Raises ConfigError (members differ in labels, crop or affect), ModelError, OutputError, ExportError.
    """
    kept = [(Path(file), float(weight)) for file, weight in zip(files, weights, strict=True) if weight > 0]
    if len(kept) < 2:
        raise ConfigError(
            f"ensemble: only {kept[0][0].name if kept else 'no member'} has a weight above 0; that is no ensemble, use the model itself"
        )
    total = sum(weight for _, weight in kept)
    share = np.array([weight / total for _, weight in kept], np.float64)
    opened = [open_graph(file) for file, _ in kept]
    specs = [spec for _, spec in opened]
    same_form([str(file) for file, _ in kept], specs)
    spec = _spec(Path(out).stem, specs, share, mean, chosen_on, metrics or {})
    graph = _merged([model for model, _ in opened], share, spec)
    members = [OnnxSession(file, 1) for file, _ in kept]
    return write_model(graph, spec, out, lambda part: _verify(members, share, OnnxSession(part, 1)), overwrite)


def same_form(names: Sequence[str], specs: Sequence[ModelSpec]) -> None:
    """Raises ConfigError unless all models answer the same labels on the same chips, with affect of the same kind."""
    first = specs[0]
    for name, spec in zip(names, specs, strict=True):
        if not spec.expression:
            raise ConfigError(f"ensemble: {name} answers valence and arousal alone; members need probabilities")
        for what, ours, theirs in (
            ("labels", spec.labels, first.labels),
            ("affect", spec.affect, first.affect),
            *((f"crop.{key}", *pair) for key, pair in _crops(spec, first).items()),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"ensemble: {what} of {name} is {_words(ours)}, of {names[0]} {_words(theirs)}; one file has one {what}"
                )


def _crops(first: ModelSpec, second: ModelSpec) -> dict[str, tuple[object, object]]:
    a, b = msgspec.to_builtins(first.crop), msgspec.to_builtins(second.crop)
    return {key: (a[key], b[key]) for key in a if key != "border"}


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _spec(
    name: str, specs: Sequence[ModelSpec], share: np.ndarray, mean: Mean, chosen_on: str, metrics: dict[str, float]
) -> ModelSpec:
    members = tuple(
        MemberSpec(name=spec.name, weight=round(float(weight), 6), made_by=spec.made_by)
        for spec, weight in zip(specs, share, strict=True)
    )
    return ModelSpec(
        name=name,
        labels=specs[0].labels,
        crop=msgspec.structs.replace(specs[0].crop, border=0),
        affect=specs[0].affect,
        licence="; ".join(dict.fromkeys(spec.licence for spec in specs if spec.licence)),
        trained_on=tuple(dict.fromkeys(place for spec in specs for place in spec.trained_on)),
        metrics=metrics,
        precision=max((spec.precision for spec in specs), key=_COARSE.index),
        quantized_on="; ".join(dict.fromkeys(spec.quantized_on for spec in specs if spec.quantized_on)),
        made_by=f"mien {mien.__version__}, mien ensemble of {len(specs)} models",
        ensemble=EnsembleSpec(mean=mean, members=members, chosen_on=chosen_on),
    )


def _merged(models: Sequence[onnx.ModelProto], share: np.ndarray, spec: ModelSpec) -> onnx.ModelProto:
    opsets = {entry.domain: entry.version for model in models for entry in model.opset_import}
    newest = max(entry.version for model in models for entry in model.opset_import if not entry.domain)
    opsets[""] = newest
    nodes: list[onnx.NodeProto] = []
    values: list[onnx.TensorProto] = []
    for number, model in enumerate(models):
        prefix = f"member{number}/"
        own = next(entry.version for entry in model.opset_import if not entry.domain)
        model = version_converter.convert_version(model, newest) if own != newest else model
        graph = compose.add_prefix(model, prefix).graph
        nodes += [helper.make_node("Identity", ["chips"], [f"{prefix}chips"]), *graph.node]
        values += graph.initializer
    mean_nodes, mean_values = _mean(share, spec)
    chips = helper.make_tensor_value_info("chips", TensorProto.FLOAT, ["n", 3, spec.crop.height, spec.crop.width])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("probabilities", len(spec.labels)), ("affect", 2))
    ]
    graph = helper.make_graph([*nodes, *mean_nodes], spec.name, [chips], outputs, [*values, *mean_values])
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    merged = helper.make_model(graph, opset_imports=imports, producer_name="mien")
    merged.ir_version = max(model.ir_version for model in models)
    return merged


def _mean(share: np.ndarray, spec: ModelSpec) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants from the members' outputs to the ensemble's."""
    assert spec.ensemble is not None
    logits = spec.ensemble.mean == "logits"
    values = [_value(f"weight{number}", np.float32(weight)) for number, weight in enumerate(share)]
    nodes = []
    for number in range(len(share)):
        said = f"member{number}/probabilities"
        if logits:
            nodes.append(helper.make_node("Max", [said, "least"], [f"said{number}"]))
            nodes.append(helper.make_node("Log", [f"said{number}"], [f"log{number}"]))
            said = f"log{number}"
        nodes.append(helper.make_node("Mul", [said, f"weight{number}"], [f"part{number}"]))
    parts = [f"part{number}" for number in range(len(share))]
    if logits:
        values.append(_value("least", np.float32(LEAST)))
        nodes.append(helper.make_node("Sum", parts, ["mean"]))
        nodes.append(helper.make_node("Softmax", ["mean"], ["probabilities"], axis=1))
    else:
        nodes.append(helper.make_node("Sum", parts, ["probabilities"]))
    if spec.affect == "circumplex":
        values.append(_value("means", affect_means(LabelSet(spec.labels))))
        nodes.append(helper.make_node("MatMul", ["probabilities", "means"], ["affect"]))
        return nodes, values
    moved = []
    for number in range(len(share)):
        moved.append(f"affect{number}")
        nodes.append(helper.make_node("Mul", [f"member{number}/affect", f"weight{number}"], [moved[-1]]))
    nodes.append(helper.make_node("Sum", moved, ["affect"]))
    return nodes, values


def _value(name: str, array: np.ndarray | np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, np.float32), name)


def _verify(members: Sequence[OnnxSession], share: np.ndarray, file: OnnxSession) -> float:
    spec, worst = file.spec, 0.0
    assert spec.ensemble is not None
    for chips in trial_chips(spec.crop):
        said = [member.run(chips) for member in members]
        wanted = mean_answer(np.stack([p for p, _ in said]).astype(np.float64), share, spec.ensemble.mean == "logits")
        if spec.affect == "circumplex":
            affect = wanted @ affect_means(LabelSet(spec.labels))
        else:
            affect = np.tensordot(share, np.stack([a for _, a in said]), 1)
        probabilities, moved = file.run(chips)
        worst = max(
            worst, *(agree(a, b, of="the mean of its members") for a, b in ((wanted, probabilities), (affect, moved)))
        )
    return worst
