"""Serialised TensorRT engines (.engine, .plan), as `trtexec` builds them from what `mien export --to tensorrt` writes.

Written after the TensorRT 10 Python API and CUDA's runtime API; tested against a stand-in for both, not run on hardware.
"""

from __future__ import annotations

import threading
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import MissingExtra, ModelError, ModelNotFound
from mien.runtime.choice import Choice
from mien.runtime.forms import check_form, in_batches, spec_beside

__all__ = ["TensorRtSession"]

_CARD = Choice("tensorrt", "cuda", "asked for")


class TensorRtSession:
    """A TensorRT engine file, with its spec in NAME.json beside it. One thread at a time runs it; others wait.

    A batch larger than the engine was built for is run in parts; an engine of a fixed batch is fed full batches.
    Raises ModelNotFound, ModelError (not an engine for this card and TensorRT; altered), MissingExtra.
    """

    def __init__(self, path: str | PathLike[str], choice: Choice = _CARD) -> None:
        self.choice, self._where, self._lock = choice, str(path), threading.Lock()
        if not Path(path).is_file():
            raise ModelNotFound(f"{path}: no such engine file")
        self.spec = spec_beside(path)
        trt, self._cuda = _module("tensorrt"), _module("cuda.bindings.runtime")
        self._done(self._cuda.cudaSetDevice(choice.card))
        self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(Path(path).read_bytes())
        if self._engine is None:
            raise ModelError(
                f"{path}: no engine for this card and TensorRT {trt.__version__}; engines run only where they were built: "
                "build it here with trtexec (docs/export.md)"
            )
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        shapes = {name: list(self._engine.get_tensor_shape(name)) for name in names}
        check_form(
            str(path),
            self.spec,
            {"chips": shapes.pop("chips", [])},
            shapes,
        )
        self._outputs = list(shapes)
        self._fixed = self._engine.get_tensor_shape("chips")[0] > 0
        self._most = int(self._engine.get_tensor_profile_shape("chips", 0)[2][0])

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See mien.runtime.sessions.Session."""
        probabilities, affect = self.run_all(chips)[:2]
        return probabilities, affect

    def run_all(self, chips: np.ndarray) -> tuple[np.ndarray, ...]:
        """See mien.runtime.sessions.FullSession."""
        with self._lock:
            self._done(self._cuda.cudaSetDevice(self.choice.card))  # CUDA's current card is a thread's own
            return tuple(in_batches(chips, self._most, self._fixed, self._batch))

    def _batch(self, chips: np.ndarray) -> list[np.ndarray]:
        given = np.ascontiguousarray(chips, np.float32)
        self._context.set_input_shape("chips", given.shape)
        answers = {name: np.empty(tuple(self._context.get_tensor_shape(name)), np.float32) for name in self._outputs}
        kinds = self._cuda.cudaMemcpyKind
        places: dict[str, Any] = {}
        try:
            for name, array in {"chips": given, **answers}.items():
                places[name] = self._done(self._cuda.cudaMalloc(array.nbytes))
                self._context.set_tensor_address(name, int(places[name]))
            self._done(
                self._cuda.cudaMemcpy(places["chips"], given.ctypes.data, given.nbytes, kinds.cudaMemcpyHostToDevice)
            )
            if not self._context.execute_async_v3(0):
                raise ModelError(f"{self._where}: fails on {len(chips)} chips")
            self._done(self._cuda.cudaDeviceSynchronize())
            for name, array in answers.items():
                self._done(
                    self._cuda.cudaMemcpy(array.ctypes.data, places[name], array.nbytes, kinds.cudaMemcpyDeviceToHost)
                )
        finally:
            for place in places.values():
                self._cuda.cudaFree(place)
        return [answers[name] for name in ("probabilities", "affect", *self.spec.outputs)]

    def _done(self, answer: Any) -> Any:
        """What a call of CUDA's runtime gives after its status. Raises ModelError."""
        status, *rest = answer
        if int(status) != 0:
            raise ModelError(f"{self._where}: CUDA says {status}; is the card free, and has it memory left?")
        return rest[0] if rest else None


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"TensorRT engines need {name}. Install it with: pip install tensorrt cuda-python (JetPack brings TensorRT)"
        ) from error
