"""What the sessions of all engines check in a model file, and how they say that it is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import ModelError, ModelNotFound
from mien.spec import ModelSpec, decode_spec

__all__ = ["check_form", "files_of", "first_line", "in_batches", "no_spec", "spec_beside"]

#: Where the rest of a model lies: OpenVINO's weights, the spec of a TensorRT engine.
_BESIDE = {".xml": ".bin", ".engine": ".json", ".plan": ".json"}


def files_of(model: Path) -> list[Path]:
    """The files that a model consists of, those that are there: its own, then the one beside it that is a part of it."""
    places = (model, model.with_suffix(_BESIDE.get(model.suffix.lower(), model.suffix)))
    return [place for place in dict.fromkeys(places) if place.is_file()]


def check_form(
    where: str, spec: ModelSpec, inputs: Mapping[str, Sequence[Any]], outputs: Mapping[str, Sequence[Any]]
) -> None:
    """Raises ModelError unless names and shapes of a graph are those that its spec states."""
    crop, more = spec.crop, spec.outputs
    if set(inputs) != {"chips"} or list(inputs["chips"][1:]) != [3, crop.height, crop.width]:
        raise ModelError(
            f"{where}: altered: its input is {dict(inputs)}, its spec says chips 3x{crop.height}x{crop.width}"
        )
    widths = {name: shape[-1] for name, shape in outputs.items() if shape and name not in more}
    if widths != {"probabilities": len(spec.labels), "affect": 2} or set(more) - set(outputs):
        raise ModelError(
            f"{where}: altered: its outputs are {dict(outputs)}, its spec names {len(spec.labels)} labels"
            f"{' and ' + ', '.join(more) if more else ''}"
        )


def in_batches(
    chips: np.ndarray, most: int, fixed: bool, ask: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """What `ask` gives for chips that are shown to it `most` at a time; fixed: never fewer, the last batch is filled up."""
    parts = []
    for start in range(0, len(chips), most):
        batch = chips[start : start + most]
        count = len(batch)
        if fixed and count < most:
            batch = np.concatenate([batch, np.zeros((most - count, *chips.shape[1:]), chips.dtype)])
        parts.append([answer[:count] for answer in ask(batch)])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def no_spec(where: str) -> ModelError:
    """The error for a file that says nothing of itself."""
    return ModelError(f"{where}: a model file, but no mien model: it carries no 'mien' metadata; see `mien export`")


def spec_beside(path: str | PathLike[str]) -> ModelSpec:
    """The spec in NAME.json beside a model file, for forms that carry none. Raises ModelNotFound, ModelError."""
    place = Path(path).with_suffix(".json")
    if not place.is_file():
        raise ModelNotFound(
            f"{path}: no {place.name} beside it; an engine carries no spec, `mien export` writes it there"
        )
    return decode_spec(place.read_bytes(), str(place))


def first_line(error: Exception | str) -> str:
    """The first line of an engine's message, cut to what a line of ours holds."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
