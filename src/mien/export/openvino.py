"""OpenVINO's own form: two files, .xml and .bin, with the spec inside. No torch."""

from __future__ import annotations

from pathlib import Path

import onnx

from mien.errors import ExportError, OutputError
from mien.runtime.openvino import load_openvino
from mien.spec import ModelSpec, encode

__all__ = ["write_openvino"]


def write_openvino(model: onnx.ModelProto, spec: ModelSpec, place: Path) -> None:
    """Write a graph as `place` (.xml) and its weights beside it (.bin), at full precision.

    The reader alone is used: OpenVINO's converter would report to its makers. Raises MissingExtra, ExportError (an operator
    that OpenVINO does not know), OutputError.
    """
    ov = load_openvino()
    source = place.with_suffix(".onnx")
    onnx.save(model, str(source))
    try:
        read = ov.Core().read_model(source)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read this graph ({str(error).strip().splitlines()[-1][:160]})") from error
    finally:
        source.unlink()
    read.set_rt_info(encode(spec).decode(), "mien")
    try:
        ov.save_model(read, place, compress_to_fp16=False)
    except RuntimeError as error:
        raise OutputError(f"{place}: cannot be written ({str(error).strip().splitlines()[-1][:160]})") from error
