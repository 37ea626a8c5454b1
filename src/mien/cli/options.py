"""Options that verbs of looking and of judging share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.errors import ConfigError

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


def check_output(given: dict[str, bool | None], needed: Path | None, name: str) -> None:
    """Raises ConfigError: an option that says how an output is made, without that output."""
    for option, on in given.items():
        if on and needed is None:
            raise ConfigError(f"{option}: does nothing without {name}; name its file")
