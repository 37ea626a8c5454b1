"""mien calibrate: a model whose confidence can be trusted: temperature and threshold, fitted on a named split."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.judging import Data, Overwrite, Rule, Source, answers, need, rows
from mien.errors import ConfigError, MissingExtra, ModelError

if TYPE_CHECKING:
    import numpy as np

    from mien.evaluation.calibration import Threshold


def calibrate(
    model: Annotated[str, typer.Argument(help="A model's name or .onnx file, or a run.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The calibrated model file (.onnx).")],
    source: Source = "ferplus",
    split: Annotated[str, typer.Option(help="The split to fit on; judge on another.")] = "validation",
    rule: Rule = None,
    temperature: Annotated[bool, typer.Option(help="Fit the temperature.")] = True,
    precision: Annotated[
        float | None, typer.Option(help="Also store the confidence from which answers are right so often, such as 0.9.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fit temperature and threshold on a split; write them into the graph and the spec of a new file."""
    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out}: a model's file ends in .onnx")
    if precision is not None and not 0 < precision <= 1:
        raise ConfigError(f"--precision {precision:g}: a share above 0, up to 1")
    if precision is None and not temperature:
        raise ConfigError("--no-temperature without --precision: nothing to do")
    from mien.cli.ensemble import as_file
    from mien.files import check_free

    need()
    try:
        from mien.export.calibrate import export_calibrated
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Writing a model file needs onnx", "export") from error
    from mien.evaluation.calibration import fit_temperature, sure_rows, tempered, threshold_for
    from mien.runtime.sessions import read_spec

    check_free(out, overwrite)
    check_free(out.with_suffix(".json"), overwrite)
    with tempfile.TemporaryDirectory() as folder:
        file = as_file(model, Path(folder) / "run.onnx")
        old = read_spec(file)
        if not old.expression:
            raise ModelError(f"{model}: answers valence and arousal alone; there is no confidence to calibrate")
        manifest = rows(data, source, split, rule)[1]
        said, truth = sure_rows(answers(file, manifest), manifest)
        factor = fit_temperature(said, truth) if temperature else 1.0
        after = tempered(said, factor) if temperature else said
        chosen = None if precision is None else threshold_for(after, truth, precision)
        note = _note(f"{manifest.header.source}, {split}, {len(truth):,} rows", temperature, precision, chosen)
        spec = export_calibrated(file, out, factor, chosen.value if chosen else None, note, overwrite)
    _show(said, after, truth, f"{manifest.header.source}, {split}: {len(truth):,} rows")
    if temperature:
        print(f"temperature: {spec.temperature:g} (times {factor:g})")
    if chosen is None and spec.threshold == 0 and old.threshold > 0:
        print("threshold: left out, as it was chosen for the old temperature; choose one with --precision")
    if chosen is not None:
        print(
            f"threshold: {chosen.value:.4f}; certain answers are right in {chosen.precision:.1%} "
            f"({chosen.interval[0]:.1%} to {chosen.interval[1]:.1%}), {chosen.coverage:.1%} of the faces are certain"
        )
    print(
        f"written: {out}; these are figures on the rows it was fitted on: judge it on others with mien evaluate {out}"
    )


def _note(place: str, temperature: bool, precision: float | None, chosen: Threshold | None) -> str:
    parts = [*(["temperature"] if temperature else [])]
    if chosen is not None:
        parts.append(f"threshold for precision {precision:g} (coverage {chosen.coverage:.3f})")
    return f"{place}: {', '.join(parts)}"


def _show(before: np.ndarray, after: np.ndarray, truth: np.ndarray, title: str) -> None:
    import numpy as np
    from rich.table import Table

    from mien.cli.tables import print_table
    from mien.evaluation.metrics import expected_calibration_error

    table = Table("", "NLL", "ECE", "mean confidence", "accuracy", title=title)
    for name, said in (("before", before), ("after", after)):
        nll = -np.log(np.clip(said[np.arange(len(truth)), truth], 1e-12, 1)).mean()
        right = (said.argmax(axis=1) == truth).mean()
        error = expected_calibration_error(said, truth)
        table.add_row(name, f"{nll:.4f}", f"{error:.2%}", f"{said.max(axis=1).mean():.2%}", f"{right:.2%}")
    print_table(table)
