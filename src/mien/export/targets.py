"""The forms a model is shipped in: from a float model file to each, compared before anything gets its name. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import msgspec
import numpy as np
import onnx

from mien.errors import ConfigError, near_miss
from mien.export.graphs import HALF_TOLERANCE, TOLERANCE, halve, open_graph, store, trial_chips
from mien.export.openvino import write_openvino
from mien.export.quantize import LEAST, answers, float_weights, folded, layers, quantized, ranked
from mien.export.tensorrt import build_line, for_tensorrt, with_batch
from mien.export.verify import Allowed, Difference, agreement, compare, label_changes, refuse
from mien.files import whole_files
from mien.runtime.sessions import open_session
from mien.spec import ModelSpec, Precision, encode

__all__ = ["TARGETS", "Made", "Rows", "Target", "make", "publish", "target"]

#: Share of labels that int8 may change, and least CCC of valence and of arousal with what they were, before more layers stay in
#: float; and at most this share of the layers.
_FLIPS, _CCC, _KEPT = 0.01, 0.995, 1 / 3


class Target(msgspec.Struct, frozen=True):
    """A form: the suffix of its first file, the engine that reads it, what it may change, how its weights are kept."""

    name: str
    suffix: str
    engine: str
    allowed: Allowed
    precision: Precision = "float32"

    @property
    def mark(self) -> str:
        """What is put behind a model's name where none is given: '' for plain ONNX, else such as '-int8'."""
        return "" if self.name == "onnx" else f"-{self.name.removeprefix('onnx-')}"


_EXACT = Allowed(TOLERANCE)
_ROUNDED = Allowed(None, flipped=0.02, points=0.5, ccc=0.99)
TARGETS = {
    one.name: one
    for one in (
        Target("onnx", ".onnx", "onnx", _EXACT),
        Target("onnx-fp16", ".onnx", "onnx", Allowed(HALF_TOLERANCE), "float16"),
        Target("onnx-int8", ".onnx", "onnx", _ROUNDED, "int8"),
        Target("openvino", ".xml", "openvino", _EXACT),
        Target("openvino-int8", ".xml", "openvino", _ROUNDED, "int8"),
        Target("tensorrt", ".onnx", "onnx", _EXACT),
    )
}


class Rows(msgspec.Struct, frozen=True):
    """Real faces for int8, float32 (n, 3, h, w) 0..255: `ranges` set the ranges, `held` others judge; name: where from."""

    name: str
    ranges: np.ndarray
    held: np.ndarray


@dataclass(frozen=True, slots=True)
class Made:
    """A target's files as they were made in a folder, not yet published: the first is what is opened.

    difference: from the float model; on what: `on`.  kept: layers that stayed in float besides stem and heads.
    line: the command that goes on from there, if there is one.  write: writes the files with another spec.
    """

    target: Target
    files: tuple[Path, ...]
    spec: ModelSpec
    difference: Difference
    on: str
    write: Callable[[ModelSpec], None]
    kept: tuple[str, ...] = ()
    line: str = ""

    def restated(self, **changed: Any) -> Made:
        """The same with these fields of the spec changed, in the file too."""
        spec = msgspec.structs.replace(self.spec, **changed)
        self.write(spec)
        return replace(self, spec=spec)


def target(name: str) -> Target:
    """A target by its name. Raises ConfigError."""
    if name not in TARGETS:
        raise ConfigError(f"--to: unknown target {name!r}; {near_miss(name, TARGETS)}")
    return TARGETS[name]


def make(base: Path, kind: Target, folder: Path, stem: str, rows: Rows | None = None, batch: int | None = None) -> Made:
    """A target's files, named `stem`, in a folder, compared with the float model file `base`.

    rows: for int8.  batch: for tensorrt, a graph for exactly so many chips.
    Raises ModelError, ConfigError (int8 without rows, from an int8 model), ExportError (beyond what the target may change, an
    operator or opset that the target does not know), MissingExtra, OutputError.
    """
    model, spec = open_graph(base)
    if kind.precision == "int8" and rows is None:
        raise ConfigError(f"--to {kind.name}: needs real faces to set ranges by; name a dataset with --calibrate")
    if spec.precision == "int8":
        raise ConfigError(
            f"{base}: is int8 already, which cannot be made exact again; give the float model it was made of"
        )
    place = folder / f"{stem}{kind.suffix}"
    plain = model if float_weights(model) else folded(model, str(base))
    exact = folder / f".{stem}.float.onnx"
    store(plain, msgspec.structs.replace(spec, precision="float32"), exact)
    wanted = open_session(exact, 1, "onnx", "cpu")
    said = msgspec.structs.replace(spec, precision=kind.precision)
    kept: tuple[str, ...] = ()
    if rows is not None and kind.precision == "int8":
        plain, kept = _int8(folded(plain, str(base)), rows)
        said = msgspec.structs.replace(said, metrics={}, quantized_on=f"{rows.name}, {len(rows.ranges)} faces")

    def write(spec: ModelSpec) -> None:
        _write(kind, plain, spec, place, batch)

    write(said)
    got = open_session(place, 1, kind.engine, "cpu")
    if rows is not None and kind.precision == "int8":
        on, trials = f"{len(rows.held)} other faces of {rows.name}", iter([rows.held])
    else:
        on, trials = "noise and gradients", trial_chips(spec.crop)
    difference = compare(wanted, got, trials)
    refuse(difference, kind.allowed, f"the float model on {on}")
    exact.unlink()
    files = (place, place.with_suffix(".bin")) if kind.suffix == ".xml" else (place,)
    line = build_line(place, spec.crop, batch) if kind.name == "tensorrt" else ""
    return Made(kind, files, said, difference, on, write, kept, line)


def _write(kind: Target, model: onnx.ModelProto, spec: ModelSpec, place: Path, batch: int | None) -> None:
    if kind.suffix == ".xml":
        return write_openvino(model, spec, place)
    if kind.precision == "float16":
        model = halve(model)
    if kind.name == "tensorrt":
        model = for_tensorrt(model, spec.name)
        model = model if batch is None else with_batch(model, batch)
    return store(model, spec, place)


def _int8(model: onnx.ModelProto, rows: Rows) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The int8 graph, with as many layers in float as its answers need to stay, and their names."""
    if min(len(rows.ranges), len(rows.held)) < LEAST:
        least = 2 * LEAST
        raise ConfigError(
            f"--calibrate: {rows.name} gives {len(rows.ranges) + len(rows.held)} faces, too few; {least} or more are needed"
        )
    order: list[str] = []
    most, kept = int(len(layers(model.graph)) * _KEPT), 0
    small = quantized(model, rows.ranges)
    while kept < most and _moved(model, small, rows.held):
        order = order or ranked(model, small, rows.held)
        kept = min(most, max(1, 2 * kept))
        small = quantized(model, rows.ranges, order[:kept])
    return small, tuple(order[:kept])


def _moved(model: onnx.ModelProto, small: onnx.ModelProto, chips: np.ndarray) -> bool:
    """Whether labels change too often, or valence or arousal have moved too far."""
    ours, theirs = answers(model, chips), answers(small, chips)
    flipped, affect = label_changes(ours[:, :-2], theirs[:, :-2]), agreement(ours[:, -2:], theirs[:, -2:])
    often = flipped is not None and flipped > _FLIPS * len(chips)
    return often or (affect is not None and affect.short(_CCC) is not None)


def publish(
    made: Made, out: Path, overwrite: bool = False, more: Mapping[str, Callable[[], str]] | None = None
) -> list[Path]:
    """Give the files of a target their names: `out` and those beside it; with the spec as .json, and `more` texts by suffix.

    All of them or none. Raises OutputError.
    """
    texts = {".json": lambda: encode(made.spec).decode() + "\n", **(more or {})}
    places = [out, *(out.with_suffix(suffix) for suffix in (*(file.suffix for file in made.files[1:]), *texts))]
    with whole_files(places, overwrite) as parts:
        for file, part in zip(made.files, parts, strict=False):
            copyfile(file, part)
        for text, part in zip(texts.values(), parts[len(made.files) :], strict=True):
            part.write_text(text(), encoding="utf-8")
    return places
