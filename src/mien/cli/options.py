"""Options that verbs of looking and of judging share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mien.runtime.read import Reader

Engine = Annotated[str, typer.Option(help="What runs the model: auto, onnx, openvino or tensorrt.")]
Device = Annotated[str, typer.Option(help="Where: auto, cpu, cuda (cuda:1), and OpenVINO's gpu and npu.")]


def tell_choice(reader: Reader) -> tuple[str, str]:
    """The engine and the device of a reader of a model file; says so on stderr where a card was left for the CPU."""
    choice = reader.classifier.session.choice  # type: ignore[attr-defined]
    if choice.fallen:
        print(f"mien: {choice}", file=sys.stderr)
    return choice.engine, choice.device
