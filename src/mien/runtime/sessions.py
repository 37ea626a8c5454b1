"""Sessions run a model file; the file itself says what it is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mien.errors import ModelError, ModelNotFound
from mien.spec import ModelSpec, decode_spec

__all__ = ["FullSession", "OnnxSession", "Session", "open_onnx", "open_session", "read_spec"]

_ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidProtobuf,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.NoSuchFile,
    ort_errors.RuntimeException,
)


class Session(Protocol):
    """Anything that turns chips into answers."""

    spec: ModelSpec

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3, h, w) float32 RGB 0..255 -> (n, c) probabilities, (n, 2) affect as (valence, arousal) or NaN."""


@runtime_checkable
class FullSession(Session, Protocol):
    """A Session that also gives the optional outputs that its spec names."""

    def run_all(self, chips: np.ndarray) -> tuple[np.ndarray, ...]:
        """Probabilities, affect, then each of `spec.outputs`, in that order."""


def open_onnx(path: str | PathLike[str], threads: int | None = None) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU. Raises ModelNotFound, ModelError."""
    path = Path(path)
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file; `mien models list` shows those known by name")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as error:
        raise ModelError(f"{path}: not a readable ONNX file ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


class OnnxSession:
    """A mien model file on ONNX Runtime. Raises ModelNotFound, ModelError (no spec, newer form, altered)."""

    def __init__(self, path: str | PathLike[str], threads: int | None = None) -> None:
        self._where = str(path)
        self._session = open_onnx(path, threads)
        text = self._session.get_modelmeta().custom_metadata_map.get("mien")
        if text is None:
            raise ModelError(
                f"{path}: an ONNX file, but no mien model: it carries no 'mien' metadata; see `mien export`"
            )
        self.spec = decode_spec(text, str(path))
        self._check(str(path))

    def _check(self, where: str) -> None:
        crop = self.spec.crop
        inputs = {item.name: list(item.shape) for item in self._session.get_inputs()}
        outputs = {item.name: list(item.shape) for item in self._session.get_outputs()}
        if set(inputs) != {"chips"} or inputs["chips"][1:] != [3, crop.height, crop.width]:
            raise ModelError(
                f"{where}: altered: its input is {inputs}, its spec says chips 3x{crop.height}x{crop.width}"
            )
        more = self.spec.outputs
        widths = {name: shape[-1] for name, shape in outputs.items() if shape and name not in more}
        if widths != {"probabilities": len(self.spec.labels), "affect": 2} or set(more) - set(outputs):
            raise ModelError(
                f"{where}: altered: its outputs are {outputs}, its spec names {len(self.spec.labels)} labels"
                f"{' and ' + ', '.join(more) if more else ''}"
            )

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Session."""
        probabilities, affect = self._run(chips, ["probabilities", "affect"])
        return probabilities, affect

    def run_all(self, chips: np.ndarray) -> tuple[np.ndarray, ...]:
        """See FullSession."""
        return tuple(self._run(chips, ["probabilities", "affect", *self.spec.outputs]))

    def _run(self, chips: np.ndarray, names: list[str]) -> list[np.ndarray]:
        try:
            return self._session.run(names, {"chips": chips})
        except _ORT_ERRORS as error:
            raise ModelError(f"{self._where}: fails on {chips.shape[0]} chips ({_first_line(error)})") from error


def open_session(path: str | PathLike[str], threads: int | None = None) -> Session:
    """The session for a model file."""
    return OnnxSession(path, threads)


def read_spec(path: str | PathLike[str]) -> ModelSpec:
    """What a model file says of itself."""
    return OnnxSession(path, 1).spec
