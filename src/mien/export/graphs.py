"""What every writing of a model file shares: the spec inside and beside it, the comparison before it gets its name. No torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from google.protobuf.message import DecodeError

from mien.errors import ExportError, ModelError
from mien.export.verify import apart
from mien.files import whole_files
from mien.runtime.forms import no_spec
from mien.spec import CropSpec, DetectorSpec, ModelSpec, decode_spec, encode

__all__ = [
    "HALF_TOLERANCE",
    "TOLERANCE",
    "agree",
    "drop_unread",
    "halve",
    "model_files",
    "open_graph",
    "store",
    "trial_chips",
    "write_model",
]

#: Largest difference of a probability between what a file should answer and what it does.
TOLERANCE = 1e-4
#: The same where the file keeps its weights in half precision.
HALF_TOLERANCE = 0.01
_LARGE = 1024


def open_graph(path: str | PathLike[str]) -> tuple[onnx.ModelProto, ModelSpec]:
    """A model file's graph and spec. Raises ModelError (no ONNX file, no mien model, a detector)."""
    try:
        model = onnx.load(str(path))
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: not a readable ONNX file ({error})") from error
    text = next((entry.value for entry in model.metadata_props if entry.key == "mien"), None)
    if text is None:
        raise no_spec(str(path))
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=0)
    if opset > onnx.defs.onnx_opset_version():
        raise ModelError(
            f"{path}: written in opset {opset}; the installed onnx knows up to {onnx.defs.onnx_opset_version()}: pip install -U onnx"
        )
    return model, decode_spec(text, str(path))


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no output needs, such as the valence and arousal of an ensemble's members."""
    wanted, kept = {item.name for item in graph.output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(_read(node))
    constants = [item for item in graph.initializer if item.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads, those of its branches included."""
    yield from node.input
    for attribute in node.attribute:
        for branch in (attribute.g, *attribute.graphs):
            yield from (item.name for item in branch.output)
            for inner in branch.node:
                yield from _read(inner)


def store(model: onnx.ModelProto, spec: ModelSpec | DetectorSpec, path: Path) -> None:
    """Put the spec into a graph, leave out what nothing needs, check the graph's form, write it."""
    drop_unread(model.graph)
    onnx.helper.set_model_props(model, {"mien": encode(spec).decode()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_model(
    model: onnx.ModelProto,
    spec: ModelSpec,
    out: str | PathLike[str],
    check: Callable[[Path], float],
    overwrite: bool = False,
) -> float:
    """Write `out` (.onnx) and its spec beside it (.json), if `check` of the written file raises nothing; returns its figure.

    Raises OutputError, ExportError.
    """
    with model_files(out, spec, overwrite) as part:
        store(model, spec, part)
        return check(part)


@contextmanager
def model_files(out: str | PathLike[str], spec: ModelSpec | DetectorSpec, overwrite: bool = False) -> Iterator[Path]:
    """The place to write the graph of `out` (.onnx) to; it and its spec (.json) get their names together, or neither does.

    Raises OutputError.
    """
    out = Path(out)
    with whole_files([out, out.with_suffix(".json")], overwrite) as (graph, beside):
        yield graph
        beside.write_bytes(encode(spec) + b"\n")


def trial_chips(crop: CropSpec, count: int = 64, seed: int = 0) -> Iterator[np.ndarray]:
    """Chips to compare two models on: noise, then gradients; float32 (count, 3, h, w) from 0 to 255."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0, 255, (count, 3, crop.height, crop.width))
    slope = np.linspace(0, 255, crop.width)[None, None, None, :] * rng.uniform(0, 1, (count, 3, 1, 1))
    yield noise.astype(np.float32)
    yield np.ascontiguousarray(np.broadcast_to(slope, noise.shape), np.float32)


def agree(
    wanted: np.ndarray, got: np.ndarray, scale: float = 1.0, of: str = "the network's", allowed: float = TOLERANCE
) -> float:
    """The largest difference in units of `scale`. Raises ExportError beyond what is allowed, or if one is NaN where the other is not."""
    worst = apart(wanted, got, scale)
    if not worst <= allowed:
        raise ExportError(
            f"the file's answers differ from {of} by {worst:.2g} (allowed {allowed}); nothing was written"
        )
    return worst


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its large weights stored as float16 and cast to float32 in the graph: half the size; ONNX Runtime
    casts once, when it opens the file, so that it answers as fast as before."""
    model = copy.deepcopy(model)
    graph, casts = model.graph, []
    for place, tensor in enumerate(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LARGE:
            continue
        small = onnx.numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half")
        casts.append(onnx.helper.make_node("Cast", [small.name], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.initializer[place].CopyFrom(small)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model
