"""From a model file back to a network that can learn: the norms that export folded into convolutions are put back."""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.errors import ConfigError, ModelError
from mien.labels import LabelSet
from mien.models.face import LUMA_BGR, OUTPUTS, SCALE, FaceGraph, FaceNetwork
from mien.models.network import ExportGraph, Network, build_network
from mien.runtime.forms import first_line, no_spec
from mien.runtime.sessions import ORT_ERRORS, OnnxSession, open_onnx
from mien.sections import DetectorNetworkSection, NetworkSection
from mien.spec import DetectorSpec, ModelSpec, decode_spec, strict

__all__ = ["unfold", "unfold_detector"]

#: How far the network's probabilities may be from the file's: weights may be stored as float16.
_TOLERANCE = 0.01
_NORM = nn.BatchNorm2d
S = TypeVar("S", NetworkSection, DetectorNetworkSection)


def unfold(path: str | PathLike[str], chips: Tensor | None = None) -> tuple[Network, ModelSpec]:
    """The network of a model file, in evaluation mode, and its spec.

    chips: (n, 3, h, w) RGB 0..255 of any size, a few hundred of those that it will learn from; noise, where it will not.
    Export folds each batch norm into the convolution before it; what it was cannot be known, so the norm that comes back has the statistics of these chips, and
    answers as the file does both in evaluation and, on such chips, in training.

    Raises ModelNotFound; ModelError (an ensemble, an altered or quantised file: its weights are not one network's).
    """
    session = OnnxSession(path, 1)
    spec = session.spec
    network = build_network(_section(spec, NetworkSection, path), LabelSet(spec.labels), spec.crop).eval()
    size = (spec.crop.height, spec.crop.width)
    chips = 255 * torch.rand(64, 3, *size, generator=torch.Generator().manual_seed(0)) if chips is None else chips
    chips = chips if chips.shape[2:] == size else F.interpolate(chips, size, mode="area")
    _take_over(network, chips, _weights(path), path)
    with torch.no_grad():
        ours = ExportGraph(network, spec).eval()(chips[:32])[:2]
    theirs = session.run(chips[:32].numpy())
    pairs = [
        (a.numpy(), b) for a, b in zip(ours, theirs, strict=True) if not np.isnan(b).all()
    ]  # a head that is not there
    _check(pairs, path)
    return network, spec


def unfold_detector(path: str | PathLike[str], scenes: Tensor | None = None) -> tuple[FaceNetwork, DetectorSpec]:
    """The network of a face detector's file, in evaluation mode, and its spec; see `unfold`.

    scenes: (n, 1, h, w) luminance 0..255, sides multiples of 32, a hundred of those that it will learn from; noise, where it
    will not. Raises ModelNotFound; ModelError (no detector of ours, an altered or quantised file, one of a fixed size).
    """
    session = open_onnx(path, 1)
    text = session.get_modelmeta().custom_metadata_map.get("mien")
    if text is None:
        raise no_spec(str(path))
    spec = decode_spec(text, str(path), DetectorSpec)
    network = FaceNetwork(_section(spec, DetectorNetworkSection, path)).eval()
    told = _weights(path)
    if not told:
        raise _other(path)
    stem, bias = told[0]
    if stem.shape[1:2] == (3,):  # export gave the one channel's kernel to three, each by its share of luminance
        luma = np.asarray(LUMA_BGR, np.float32).reshape(1, 3, 1, 1)
        stem = SCALE * (stem * luma).sum(1, keepdims=True) / (luma**2).sum()
    if scenes is None:
        scenes = 255 * torch.rand(32, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    _take_over(network, scenes, [(stem, bias), *told[1:]], path)
    some = scenes[:8].repeat(1, 3, 1, 1)
    with torch.no_grad():
        ours = FaceGraph(network).eval()(some)
    try:
        theirs = session.run(OUTPUTS, {session.get_inputs()[0].name: some.numpy()})
    except (*ORT_ERRORS, ValueError) as error:
        raise ModelError(f"{path}: does not answer as a detector of any size does ({first_line(error)})") from error
    scale = {
        "cls": 1.0,
        "obj": 1.0,
        "bbox": 0.1,
        "kps": 0.1,
    }  # a score may be off by 0.01, a place by a tenth of a cell
    _check(
        [
            (scale[name.split("_")[0]] * a.numpy(), scale[name.split("_")[0]] * b)
            for a, b, name in zip(ours, theirs, OUTPUTS, strict=True)
        ],
        path,
    )
    return network, spec


def _section(spec: ModelSpec | DetectorSpec, kind: type[S], path: str | PathLike[str]) -> S:
    try:
        return strict(spec.network, kind, "network")
    except ConfigError as error:
        raise ModelError(f"{path}: its spec names a network that this mien does not know ({error})") from error


def _other(path: str | PathLike[str]) -> ModelError:
    return ModelError(f"{path}: its weights are not those of the one network that its spec names; start from a run")


def _take_over(
    network: Any, chips: Tensor, told: list[tuple[np.ndarray, np.ndarray]], path: str | PathLike[str]
) -> None:
    """Every kernel and bias, layer by layer. Raises ModelError: they are not this network's."""
    layers = _in_order(network, chips[:1])
    if [tuple(layer.weight.shape) for layer, _ in layers] != [kernel.shape for kernel, _ in told]:
        raise _other(path)
    hooks = [_fill(layer, norm, *pair) for (layer, norm), pair in zip(layers, told, strict=True)]
    with torch.no_grad():
        network(chips)
    for hook in hooks:
        if hook is not None:
            hook.remove()


def _check(pairs: list[tuple[np.ndarray, np.ndarray]], path: str | PathLike[str]) -> None:
    worst = float(np.max([np.abs(a - b).max() for a, b in pairs]))  # NaN, if any is
    if not worst <= _TOLERANCE:
        raise ModelError(f"{path}: the network made of it answers otherwise (by {worst:.2g}); start from a run")


def _weights(path: str | PathLike[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of every convolution and fully connected layer, in the order of the graph, each once."""
    import onnx
    import onnx.numpy_helper as numpy_helper

    graph = onnx.load(str(path)).graph
    values = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in graph.initializer}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
        known = all(name in values for name in node.input[1:3])  # an altered file may compute them
        if node.op_type in {"Conv", "Gemm"} and len(node.input) > 1 and known:
            kernel = values[node.input[1]]
            bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(kernel), np.float32)
            found.setdefault(node.input[1], (kernel, bias))
    return list(found.values())


def _in_order(network: nn.Module, chip: Tensor) -> list[tuple[Any, _NORM | None]]:
    """Every convolution and fully connected layer as the network runs them, each with the norm that follows it."""
    layers: list[tuple[Any, _NORM | None]] = []
    made: dict[int, int] = {}
    alive: list[Tensor] = []

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, _NORM):
            place = made.get(id(inputs[0]))
            if place is not None:
                layers[place] = (layers[place][0], module)
        elif all(module is not layer for layer, _ in layers):
            made[id(output)] = len(layers)
            alive.append(output)
            layers.append((module, None))

    kinds = (nn.Conv2d, nn.Linear, _NORM)
    hooks = [module.register_forward_hook(seen) for module in network.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        network(chip)
    for hook in hooks:
        hook.remove()
    return layers


def _fill(layer: Any, norm: _NORM | None, kernel: np.ndarray, bias: np.ndarray) -> Any:
    """Put kernel and bias into a layer; a norm takes the bias, once it has seen what comes to it."""
    layer.weight.data.copy_(torch.from_numpy(kernel))
    if norm is None:
        if layer.bias is not None:
            layer.bias.data.copy_(torch.from_numpy(bias))
        return None
    if layer.bias is not None:
        layer.bias.data.zero_()

    once: list[bool] = []

    def measured(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if once:
            return
        once.append(True)
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), unbiased=False)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.weight.data.copy_(torch.sqrt(variance + module.eps))
        module.bias.data.copy_(torch.from_numpy(bias) + mean)

    return norm.register_forward_pre_hook(measured)
