"""Weights on disk: safetensors with the ModelSpec in the metadata. No pickle is ever loaded."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mien.errors import ModelError, ModelNotFound
from mien.files import digest, whole_file
from mien.labels import LabelSet
from mien.models.backbones import ResidualNet
from mien.models.face import FaceNetwork
from mien.models.network import ExportGraph, Network, build_network
from mien.runtime.store import ENTRIES, locate
from mien.sections import DetectorNetworkSection, NetworkSection
from mien.spec import DetectorSpec, ModelSpec, decode_spec, encode, strict

__all__ = [
    "TorchSession",
    "load_detector",
    "load_weights",
    "save_weights",
    "start_from",
    "weights_file",
    "weights_kind",
    "weights_spec",
    "write_tensors",
]

N = TypeVar("N", bound=nn.Module)


def save_weights(
    path: str | PathLike[str], network: nn.Module, spec: ModelSpec | DetectorSpec, overwrite: bool = False
) -> None:
    """Write weights and spec, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_file(path, overwrite) as part:
        write_tensors(tensors, part, {"mien": encode(spec).decode()})


def write_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file that others may read as they may all files of this process: the library's own are for their owner alone."""
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(tensors, path, metadata=metadata)
    path.chmod(mode)


def load_weights(path: str | PathLike[str]) -> tuple[Network, ModelSpec]:
    """The network, in evaluation mode, and its spec. Raises ModelNotFound, ModelError."""
    tensors, text = _read(Path(path))
    spec = decode_spec(text, str(path))
    section = msgspec.structs.replace(
        strict(spec.network, NetworkSection, "network"), pretrained=False
    )  # these are its weights
    return _filled(build_network(section, LabelSet(spec.labels), spec.crop), tensors, path), spec


def load_detector(path: str | PathLike[str]) -> tuple[FaceNetwork, DetectorSpec]:
    """A face detector's network, in evaluation mode, and its spec. Raises ModelNotFound, ModelError."""
    tensors, text = _read(Path(path))
    spec = decode_spec(text, str(path), DetectorSpec)
    return _filled(FaceNetwork(strict(spec.network, DetectorNetworkSection, "network")), tensors, path), spec


def weights_kind(path: str | PathLike[str]) -> str:
    """'detector' or 'expression'. Raises ModelNotFound, ModelError."""
    return "detector" if '"kind": "detector"' in _read(Path(path))[1] else "expression"


def weights_spec(path: str | PathLike[str]) -> ModelSpec:
    """The spec of a weights file. Raises ModelNotFound, ModelError."""
    return decode_spec(_read(Path(path))[1], str(path))


def _read(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such weights file")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("mien")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); pickled checkpoints are never loaded") from error
    if text is None:
        raise ModelError(f"{path}: carries no mien spec; it was not written by mien")
    return tensors, text


def _filled(network: N, tensors: dict[str, torch.Tensor], path: str | PathLike[str]) -> N:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        wrong = [line.strip() for line in str(error).splitlines()[1:]]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ModelError(f"{path}: weights and spec disagree: {wrong[0][:300] if wrong else error}{more}") from error
    return network.eval()


def weights_file(path: str | PathLike[str]) -> tuple[Path, dict[str, str]]:
    """The weights of a run folder, a weights file, or a model file (.onnx, or the name of one that is known), and where they
    come from: path and sha256. Raises ModelNotFound."""
    file = Path(path)
    if file.is_dir():
        file = file / "weights.safetensors"
    elif (
        not file.is_file() and str(path) in ENTRIES and not ENTRIES[str(path)].urls
    ):  # others' files are never started from
        file = locate(ENTRIES[str(path)]) or file
    if not file.is_file():
        raise ModelNotFound(
            f"{path}: no finished run, no weights file, no model; a run ends with weights.safetensors, and "
            "`mien models list` shows the models"
        )
    return file, {"path": str(path), "sha256": digest(file)}


def start_from(
    network: nn.Module, path: str | PathLike[str], part: str = "backbone.", chips: torch.Tensor | None = None
) -> dict[str, Any]:
    """Take over every tensor of the same name and shape; returns the file's path and hash, what was left fresh and what was widened.

    One of our residual networks takes over a narrower one with the same layers, too. What it knows stays in the first channels;
    those beyond begin at random and are not heard until they learn, so where pooling and heads are the same the answers are
    kept (after Chen, Goodfellow and Shlens 2016, arXiv:1511.05641; there the new channels are copies).
    A run's second head comes from its auxiliary.safetensors.  part: the names' beginning of the kernels of which at least half must fit.  chips: for a model file: chips, or a detector's
    scenes, see mien.models.unfold. Raises ModelNotFound; ModelError if nothing fits or the file is neither.
    """
    file, origin = weights_file(path)
    second = file.with_name("auxiliary.safetensors")
    theirs = _tensors(file, chips, isinstance(network, FaceNetwork))
    if getattr(network, "auxiliary", None) is not None and file.name == "weights.safetensors" and second.is_file():
        theirs |= {
            name.replace("expression.", "auxiliary."): t
            for name, t in _tensors(second, chips, False).items()
            if name.startswith("expression.")
        }
    ours = network.state_dict()
    fits = {name: t for name, t in theirs.items() if name in ours and ours[name].shape == t.shape}
    wider = _widened(network, theirs, ours)
    fits |= wider
    kernels = [name for name, t in ours.items() if name.startswith(part) and t.ndim > 1]
    differ = [f"{name} {tuple(ours[name].shape)}" for name in kernels if name not in fits]
    if 2 * len(differ) > len(kernels):
        raise ModelError(
            f"{file}: weights of another network: of {len(kernels)} kernels {len(differ)} do not fit, "
            f"such as {'; '.join(differ[:3])}"
        )
    if not any(t.ndim > 1 for t in fits.values()):
        raise ModelError(f"{file}: weights of another network: no kernel has the name and shape of one of ours")
    network.load_state_dict(fits, strict=False)
    return {**origin, "fresh": sorted(set(ours) - set(fits)), "widened": sorted(wider)}


def _widened(
    network: nn.Module, theirs: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Their tensors in the first channels of ours; nothing reads the channels beyond, which stay as they began.

    Empty unless ours is one of our residual networks, has the same backbone tensors and hidden layers, each at least as large and some of them
    larger, and reads as many channels. A head is widened where it answers as many things.
    """
    if not isinstance(getattr(network, "backbone", None), ResidualNet) or _parts(theirs) != _parts(ours):
        return {}
    body = _parts(ours)
    stem = next(name for name in ours if name in body and ours[name].ndim == 4)
    grown = any(theirs[name].shape != ours[name].shape for name in body)
    if not grown or theirs[stem].shape[1] != ours[stem].shape[1] or not all(_holds(theirs[n], ours[n]) for n in body):
        return {}
    heads = {
        name for name in set(ours) & set(theirs) - body if ours[name].ndim and len(theirs[name]) == len(ours[name])
    }
    found = {}
    for name in body | heads:
        small, large = theirs[name], ours[name]
        if small.shape != large.shape and _holds(small, large):
            found[name] = large.clone()
            found[name][: len(small)] = 0
            found[name][tuple(slice(n) for n in small.shape)] = small
    return found


def _parts(tensors: dict[str, torch.Tensor]) -> set[str]:
    """The names of what lies before the heads."""
    return {name for name in tensors if name.startswith(("backbone.", "hidden."))}


def _holds(small: torch.Tensor, large: torch.Tensor) -> bool:
    """Whether a tensor fits inside another of the same kernel size."""
    return (
        small.ndim == large.ndim
        and all(a <= b for a, b in zip(small.shape, large.shape, strict=True))
        and small.shape[2:] == large.shape[2:]
    )


def _tensors(file: Path, chips: torch.Tensor | None, detector: bool) -> dict[str, torch.Tensor]:
    if file.suffix.lower() == ".onnx":
        from mien.models.unfold import unfold, unfold_detector

        if detector:
            return unfold_detector(file, chips)[0].state_dict()
        return unfold(file, chips)[0].state_dict()
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ModelError(f"{file}: not a safetensors file ({error}); pickled checkpoints are never loaded") from error


class TorchSession:
    """A Session (see mien.runtime.sessions) over a torch network: chips in, probabilities and affect out."""

    def __init__(self, network: Network, spec: ModelSpec) -> None:
        self.spec = spec
        self._graph = ExportGraph(network, spec).eval()

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3, h, w) float32 RGB 0..255 to (n, c) probabilities and (n, 2) affect."""
        probabilities, affect = self.run_all(chips)[:2]
        return probabilities, affect

    def run_all(self, chips: np.ndarray) -> tuple[np.ndarray, ...]:
        """Probabilities, affect, and the outputs that the spec names, in its order."""
        with torch.inference_mode():
            return tuple(
                part.numpy() for part in self._graph(torch.from_numpy(np.ascontiguousarray(chips, np.float32)))
            )
