"""Sessions run a model file; the file itself says what it is. Here ONNX Runtime's; each other engine has a module."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mien.errors import ModelError, ModelNotFound
from mien.files import path_text
from mien.runtime.choice import Choice
from mien.runtime.engines import choose, fallback
from mien.runtime.forms import check_form, first_line, in_batches, no_spec, spec_beside
from mien.runtime.store import cache_folder
from mien.spec import ModelSpec, decode_spec

__all__ = [
    "ORT_ERRORS",
    "FileSession",
    "FullSession",
    "OnnxSession",
    "Session",
    "open_onnx",
    "open_session",
    "read_spec",
    "why_unopened",
]

_CPU = Choice("onnx", "cpu", "it reads every .onnx model and is always there")
ORT_ERRORS = (
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


class FileSession(FullSession, Protocol):
    """A Session over a file, which knows the engine that runs it."""

    choice: Choice


def open_onnx(path: str | PathLike[str], threads: int | None = None, choice: Choice = _CPU) -> ort.InferenceSession:
    """An ONNX Runtime session, on the CPU unless the choice says a card. Raises ModelNotFound, ModelError."""
    path = Path(path)
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file; `mien models list` shows those known by name")
    if path_text(path) != str(path):
        raise ModelError(f"{path}: its name is not UTF-8, as ONNX Runtime needs it; rename the file")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = _providers(choice)
    try:
        session = ort.InferenceSession(str(path), options, providers=wanted)
    except ORT_ERRORS as error:
        raise ModelError(f"{path}: {why_unopened(str(error))}") from error
    if choice.device != "cpu" and session.get_providers()[0] != wanted[0][0]:
        raise ModelError(
            f"{path}: {choice.engine} does not start on {choice.device}; CUDA, cuDNN and TensorRT must be of the versions "
            "that the installed ONNX Runtime was built for; --device cpu works without"
        )
    return session


def why_unopened(said: str) -> str:
    """Why ONNX Runtime does not open a file, from its message, with the next move where it is too new or lacks an operator."""
    here = f"the installed ONNX Runtime {ort.__version__}"
    if newer := re.search(
        r"(?:Opset|IR version:) (\d+)\b.*?(?:till opset|max supported IR version:) (\d+)", said, re.DOTALL
    ):
        what = "opset" if "Opset" in newer[0] else "ONNX form"
        return f"written in {what} {newer[1]}; {here} knows up to {newer[2]}: pip install -U onnxruntime"
    if lacking := re.search(r"No Op registered for (\S+)", said):
        return f"holds the operator {lacking[1]}, which {here} does not know; export the model without it"
    return f"not a readable ONNX file ({first_line(said)})"


def _providers(choice: Choice) -> list[Any]:
    """ONNX Runtime's providers in the order in which they are to be tried, with their options."""
    if choice.device == "cpu":
        return ["CPUExecutionProvider"]
    card = {"device_id": str(choice.card)}
    found: list[Any] = [("CUDAExecutionProvider", card), "CPUExecutionProvider"]
    if choice.engine == "tensorrt":  # building an engine takes minutes: it is kept
        place = cache_folder() / "tensorrt"
        place.mkdir(parents=True, exist_ok=True)
        kept = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(place)}
        found.insert(0, ("TensorrtExecutionProvider", card | kept))
    return found


class OnnxSession:
    """A mien model file on ONNX Runtime. Raises ModelNotFound, ModelError (no spec, newer form, altered).

    choice: where it runs; the CPU by default.  batch: how many chips the file takes in each call; 0: any number.
    """

    def __init__(self, path: str | PathLike[str], threads: int | None = None, choice: Choice = _CPU) -> None:
        self.choice, self._where = choice, str(path)
        self._session = open_onnx(path, threads, choice)
        text = self._session.get_modelmeta().custom_metadata_map.get("mien")
        if text is None:
            raise no_spec(str(path))
        self.spec = decode_spec(text, str(path))
        inputs = {item.name: list(item.shape) for item in self._session.get_inputs()}
        outputs = {item.name: list(item.shape) for item in self._session.get_outputs()}
        check_form(str(path), self.spec, inputs, outputs)
        count = inputs["chips"][0]
        self.batch = count if isinstance(count, int) else 0

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Session."""
        probabilities, affect = self._run(chips, ["probabilities", "affect"])
        return probabilities, affect

    def run_all(self, chips: np.ndarray) -> tuple[np.ndarray, ...]:
        """See FullSession."""
        return tuple(self._run(chips, ["probabilities", "affect", *self.spec.outputs]))

    def _run(self, chips: np.ndarray, names: list[str]) -> list[np.ndarray]:
        if self.batch and len(chips) != self.batch:
            return in_batches(chips, self.batch, True, lambda batch: self._run(batch, names))
        try:
            return self._session.run(names, {"chips": chips})
        except ORT_ERRORS as error:
            raise ModelError(f"{self._where}: fails on {chips.shape[0]} chips ({first_line(error)})") from error


def open_session(
    path: str | PathLike[str], threads: int | None = None, engine: str = "auto", device: str = "auto"
) -> FileSession:
    """The session for a model file, on the engine and device that mien.runtime.engines.choose gives.

    A card that was not asked for and does not start is left for the CPU; the session's `choice` says so.
    Raises ModelNotFound, ModelError, ConfigError, MissingExtra.
    """
    choice = choose(engine, device, path)
    if choice.engine == "openvino":
        from mien.runtime.openvino import OpenVinoSession

        return OpenVinoSession(path, threads, choice)
    if choice.engine == "tensorrt" and Path(path).suffix.lower() != ".onnx":
        from mien.runtime.tensorrt import TensorRtSession

        return TensorRtSession(path, choice)
    try:
        return OnnxSession(path, threads, choice)
    except ModelError as error:
        if choice.device == "cpu" or device != "auto":
            raise
        return OnnxSession(path, threads, fallback(choice, first_line(error)))


def read_spec(path: str | PathLike[str]) -> ModelSpec:
    """What a model file says of itself."""
    if Path(path).suffix.lower() in (".engine", ".plan"):
        return spec_beside(path)
    return open_session(path, 1, device="cpu").spec
