"""Export to ONNX, verified: the file answers as the network does, or there is no file."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
import torch

from mien.errors import ExportError
from mien.files import check_free, whole_file
from mien.models.network import ExportGraph
from mien.models.weights import TorchSession, load_weights
from mien.runtime.sessions import OnnxSession
from mien.spec import ModelSpec, encode

__all__ = ["TOLERANCE", "export_onnx", "verify"]

#: Largest difference of a probability between network and file.
TOLERANCE = 1e-4
_OPSET = 17


def export_onnx(
    weights: str | PathLike[str],
    out: str | PathLike[str],
    metrics: dict[str, float] | None = None,
    overwrite: bool = False,
) -> float:
    """Write `out` (.onnx) and its spec beside it (.json); returns the largest difference of a probability.

    weights: a weights.safetensors.  metrics: figures for the spec.
    Raises ModelNotFound, ModelError, OutputError, ExportError (beyond TOLERANCE: nothing is written).
    """
    network, spec = load_weights(weights)
    spec = ModelSpec(
        **{**{name: getattr(spec, name) for name in spec.__struct_fields__}, "metrics": metrics or spec.metrics}
    )
    out = Path(out)
    beside = out.with_suffix(".json")
    check_free(beside, overwrite)
    with whole_file(out, overwrite) as part:
        _write(ExportGraph(network, spec).eval(), spec, part)
        difference = verify(TorchSession(network, spec), OnnxSession(part, 1))
    with whole_file(beside, overwrite=True) as part:
        part.write_bytes(encode(spec) + b"\n")
    return difference


def _write(graph: ExportGraph, spec: ModelSpec, path: Path) -> None:
    example = torch.zeros(2, 3, spec.crop.height, spec.crop.width)
    axes = {name: {0: "n"} for name in ("chips", "probabilities", "affect")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            input_names=["chips"],
            output_names=["probabilities", "affect"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"mien": encode(spec).decode()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def verify(network: TorchSession, file: OnnxSession, count: int = 64, seed: int = 0) -> float:
    """The largest difference of a probability over chips of noise and gradients. Raises ExportError beyond TOLERANCE."""
    crop = network.spec.crop
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0, 255, (count, 3, crop.height, crop.width))
    slope = np.linspace(0, 255, crop.width)[None, None, None, :] * rng.uniform(0, 1, (count, 3, 1, 1))
    worst = 0.0
    for chips in (noise.astype(np.float32), np.broadcast_to(slope, noise.shape).astype(np.float32)):
        ours, theirs = network.run(chips), file.run(np.ascontiguousarray(chips))
        for a, b in zip(ours, theirs, strict=True):
            worst = max(worst, float(np.nanmax(np.abs(a - b), initial=0)))
            if (np.isnan(a) != np.isnan(b)).any():
                raise ExportError("the file answers NaN where the network does not; nothing was written")
    if not worst <= TOLERANCE:
        raise ExportError(
            f"the file's answers differ from the network's by {worst:.2g} (allowed {TOLERANCE}); nothing was written"
        )
    return worst
