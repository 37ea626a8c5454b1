"""Export to ONNX, verified: the file answers as the network does, or there is no file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch

from mien.errors import ExportError
from mien.export.graphs import TOLERANCE, model_files, store, trial_chips
from mien.export.verify import Allowed, compare, refuse
from mien.models.face import OUTPUTS, FaceGraph, FaceNetwork
from mien.models.network import ExportGraph
from mien.models.weights import TorchSession, load_detector, load_weights
from mien.runtime.sessions import OnnxSession, open_onnx
from mien.spec import DetectorSpec, ModelSpec, Output

__all__ = ["TOLERANCE", "export_detector", "export_onnx", "verify", "verify_detector"]

_OPSET = 17


def export_onnx(
    weights: str | PathLike[str],
    out: str | PathLike[str],
    metrics: dict[str, float] | None = None,
    overwrite: bool = False,
    outputs: Sequence[Output] = (),
) -> float:
    """Write `out` (.onnx) and its spec beside it (.json); returns the largest difference of a probability.

    weights: a weights.safetensors.  metrics: figures for the spec.  outputs: optional ones, see ModelSpec.
    Raises ModelNotFound, ModelError, OutputError, ConfigError (no maps in this network), ExportError (beyond TOLERANCE:
    nothing is written).
    """
    network, spec = load_weights(weights)
    spec = msgspec.structs.replace(spec, metrics=metrics or spec.metrics, outputs=tuple(outputs))
    with model_files(out, spec, overwrite) as part:
        _write(ExportGraph(network, spec).eval(), spec, part)
        return verify(TorchSession(network, spec), OnnxSession(part, 1))


def export_detector(
    weights: str | PathLike[str],
    out: str | PathLike[str],
    metrics: dict[str, float] | None = None,
    overwrite: bool = False,
) -> float:
    """Write a face detector as `out` (.onnx), for pictures of any size, and its spec beside it; otherwise as export_onnx."""
    network, spec = load_detector(weights)
    spec = msgspec.structs.replace(spec, metrics=metrics or spec.metrics)
    graph = FaceGraph(network).eval()
    axes = {"input": {0: "n", 2: "height", 3: "width"}} | {name: {0: "n", 1: "cells"} for name in OUTPUTS}
    with model_files(out, spec, overwrite) as part:
        _trace(graph, torch.zeros(2, 3, 96, 64), ["input"], OUTPUTS, axes, spec, part)
        return verify_detector(network, part)


def verify_detector(network: FaceNetwork, file: Path, seed: int = 0) -> float:
    """The largest difference of a score over pictures of noise in three sizes. Raises ExportError beyond TOLERANCE."""
    session, rng, worst = open_onnx(file, 1), np.random.default_rng(seed), 0.0
    luma = torch.tensor([0.114, 0.587, 0.299]).reshape(1, 3, 1, 1)
    for shape in ((1, 3, 64, 64), (2, 3, 96, 160), (1, 3, 256, 320)):
        picture = rng.uniform(0, 255, shape).astype(np.float32)
        with torch.inference_mode():
            answer = network((torch.from_numpy(picture) * luma).sum(1, keepdim=True)).numpy()
        found = dict(zip(OUTPUTS, session.run(OUTPUTS, {"input": picture}), strict=True))
        theirs = np.concatenate(
            [np.concatenate([found[f"{part}_{s}"] for part in ("cls", "bbox", "kps")], axis=2) for s in (8, 16, 32)],
            axis=1,
        )
        answer[..., 0] = 1 / (1 + np.exp(-answer[..., 0]))
        worst = max(worst, float(np.abs(answer - theirs).max()))
    if not worst <= 10 * TOLERANCE:
        raise ExportError(f"the file's answers differ from the network's by {worst:.2g}; nothing was written")
    return worst


def _write(graph: ExportGraph, spec: ModelSpec, path: Path) -> None:
    example = torch.zeros(2, 3, spec.crop.height, spec.crop.width)
    outputs = ["probabilities", "affect", *spec.outputs]
    _trace(graph, example, ["chips"], outputs, {name: {0: "n"} for name in ("chips", *outputs)}, spec, path)


def _trace(
    graph: torch.nn.Module,
    example: torch.Tensor,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    spec: ModelSpec | DetectorSpec,
    path: Path,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                graph,
                (example,),
                str(path),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
        except (RuntimeError, TypeError) as error:
            raise ExportError(
                f"{spec.name}: the network cannot be traced into opset {_OPSET} ({str(error).splitlines()[0][:200]}); build it of "
                "operators that ONNX has"
            ) from error
    store(onnx.load(str(path)), spec, path)


def verify(network: TorchSession, file: OnnxSession, count: int = 64, seed: int = 0) -> float:
    """The largest difference of a probability (of maps and features: of their largest value) over chips of noise and
    gradients. Raises ExportError beyond TOLERANCE."""
    found = compare(network, file, trial_chips(network.spec.crop, count, seed))
    refuse(found, Allowed(TOLERANCE), "the network's")
    return found.largest
