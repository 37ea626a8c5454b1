"""Model files on OpenVINO: .onnx as it is, or OpenVINO's own .xml with its .bin."""

from __future__ import annotations

import sys
import threading
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import MissingExtra, ModelError, ModelNotFound
from mien.runtime.choice import Choice
from mien.runtime.forms import check_form, first_line, in_batches, no_spec
from mien.spec import ModelSpec, decode_spec

__all__ = ["OpenVinoSession", "devices", "load_openvino"]

_CPU = Choice("openvino", "cpu", "asked for")
_REPORTER = "openvino_telemetry"


def load_openvino() -> Any:
    """The module `openvino`. Raises MissingExtra.

    Importing it would report the import to its makers over the network; without its reporting package it does not, so that
    package is kept out of the import. Nothing leaves this machine.
    """
    hidden = _REPORTER not in sys.modules
    if hidden:
        sys.modules[_REPORTER] = None  # type: ignore[assignment]
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtra.of("The engine openvino needs OpenVINO", "openvino") from error
    finally:
        if hidden:
            del sys.modules[_REPORTER]
    return openvino


def devices() -> list[str]:
    """OpenVINO's devices on this machine, such as CPU, GPU, NPU."""
    return list(load_openvino().Core().available_devices)


class OpenVinoSession:
    """A model file on OpenVINO. Several threads may ask it.

    threads: all cores by default.  choice: its device is one of OpenVINO's (cpu, gpu, npu).
    precision: what it computes with where the file does not say int8: 'f32', or 'bf16' ('f16' on gpu and npu), which is
        faster on processors made for it and less exact.
    Raises ModelNotFound, ModelError (no spec, newer form, altered, a device that is not there), MissingExtra.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        threads: int | None = None,
        choice: Choice = _CPU,
        precision: str = "f32",
    ) -> None:
        self.choice, self._where = choice, str(path)
        ov = load_openvino()
        model = _read(Path(path))
        self.spec = _spec(model, str(path))
        inputs = _shapes(model.inputs)
        check_form(str(path), self.spec, inputs, _shapes(model.outputs))
        self._batch = inputs["chips"][0] or 0
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model = ov.Core().compile_model(model, choice.device.upper(), settings)
        except RuntimeError as error:
            raise ModelError(
                f"{path}: does not start on OpenVINO's {choice.device} ({_last_line(error)}); --device cpu does"
            ) from error
        self._local = threading.local()

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See mien.runtime.sessions.Session."""
        probabilities, affect = self.run_all(chips)[:2]
        return probabilities, affect

    def run_all(self, chips: np.ndarray) -> tuple[np.ndarray, ...]:
        """See mien.runtime.sessions.FullSession."""
        if self._batch and len(chips) != self._batch:
            return tuple(in_batches(chips, self._batch, True, self._run))
        return tuple(self._run(chips))

    def _run(self, chips: np.ndarray) -> list[np.ndarray]:
        wanted = (3, self.spec.crop.height, self.spec.crop.width)
        if chips.shape[1:] != wanted:  # OpenVINO would take them
            raise ModelError(
                f"{self._where}: fails on {chips.shape[0]} chips (they are {chips.shape[1:]}, not {wanted})"
            )
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        try:
            said = self._local.request.infer({"chips": np.ascontiguousarray(chips, np.float32)})
        except RuntimeError as error:
            raise ModelError(f"{self._where}: fails on {chips.shape[0]} chips ({_last_line(error)})") from error
        found = {port.any_name: np.array(value) for port, value in said.items()}
        return [found[name] for name in ("probabilities", "affect", *self.spec.outputs)]


def _read(path: Path) -> Any:
    """OpenVINO's graph of a file. Raises ModelNotFound, ModelError."""
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file; `mien models list` shows those known by name")
    ov = load_openvino()
    from openvino.frontend import FrontEndManager

    own = path.suffix.lower() == ".xml"
    if own and not path.with_suffix(".bin").is_file():
        raise ModelNotFound(f"{path.with_suffix('.bin')}: is missing; OpenVINO's form is two files, .xml and .bin")
    try:
        if own:
            return ov.Core().read_model(path)
        reader = FrontEndManager().load_by_framework("onnx")  # no other reader tries its luck at a broken file
        return reader.convert(reader.load(str(path)))
    except (RuntimeError, ov.frontend.GeneralFailure, ov.frontend.OpConversionFailure) as error:
        raise ModelError(f"{path}: OpenVINO cannot read it ({_last_line(error)})") from error


def _spec(model: Any, where: str) -> ModelSpec:
    for place in (["mien"], ["framework", "mien"]):
        if model.has_rt_info(place):
            return decode_spec(str(model.get_rt_info(place).value), where)
    raise no_spec(where)


def _shapes(ports: Any) -> dict[str, list[Any]]:
    return {
        port.any_name: [side.get_length() if side.is_static else None for side in port.partial_shape] for port in ports
    }


def _last_line(error: Exception) -> str:
    """OpenVINO's errors begin with places in its own source; the reason comes last."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return first_line(lines[-1] if lines else type(error).__name__)
