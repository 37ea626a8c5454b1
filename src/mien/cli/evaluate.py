"""mien evaluate: how right a model is on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.judging import (
    Asked,
    Copies,
    Data,
    Json,
    Labels,
    Overwrite,
    Report,
    Robust,
    Rule,
    Source,
    Split,
    Train,
    Tta,
    is_table,
    judged,
    model_path,
    need,
    report_kind,
    show_tables,
    typed,
)
from mien.cli.options import Device, Engine
from mien.errors import ConfigError

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.evaluation.judgement import Judgement
    from mien.evaluation.predictions import Predictions

_Slices = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        help="Judge groups by a column of the data (subject, age, ...), the label, or what is measured: size, brightness, contrast, "
        "sharpness, roll, turn. May be given several times.",
    ),
]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name or .onnx file, a run or weights, or a table of predictions (.csv, .parquet)."
        ),
    ],
    data: Data,
    source: Source = "ferplus",
    split: Split = "validation",
    rule: Rule = None,
    labels: Labels = None,
    tta: Tta = None,
    copies: Copies = False,
    train: Train = None,
    slices: _Slices = None,
    robust: Robust = False,
    engine: Engine = "auto",
    device: Device = "auto",
    out: Report = None,
    faces: Annotated[
        bool, typer.Option("--faces/--no-faces", help="Whether the page shows judged faces; they are personal data.")
    ] = True,
    card: Annotated[Path | None, typer.Option(help="Write the model's card (.md) from these figures.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Keep the answers as .csv or .parquet.")] = None,
    json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Judge a model by the field's measures, with intervals."""
    import msgspec

    need()
    from mien.evaluation.predictions import predictions_kind, write_predictions
    from mien.files import check_distinct, check_free
    from mien.report.tables import judgement_tables

    report_kind(out)
    predictions_kind(predictions)
    if card is not None:
        _card_file(card, model)
    outputs = [path for path in (out, card, predictions) if path is not None]
    for path in outputs:
        check_free(path, overwrite)
    check_distinct(outputs)
    asked = Asked(
        data, source, split, rule, labels, tta, copies, train, tuple(slices or ()), robust, json, engine, device
    )
    [found], [told], manifest = judged([model], asked)
    if predictions is not None:
        write_predictions(told, predictions, overwrite)
    if out is not None:
        _report(out, found, told, manifest, typed(), faces, overwrite)
    if card is not None:
        _card(card, model, found, typed(but=("--card", "--out", "--predictions")), overwrite)
    if json:
        print(msgspec.json.encode(found).decode())
        return
    show_tables(judgement_tables(found), f"{found.model} on {found.data}", found.notes)
    for path in outputs:
        print(f"written: {path}")


def _report(
    out: Path, found: Judgement, told: Predictions, manifest: Manifest, command: str, faces: bool, overwrite: bool
) -> None:
    import msgspec

    from mien.files import whole_file
    from mien.report.judged import judgement_page, judgement_text

    made = {
        ".html": lambda: judgement_page(found, told, manifest, command, faces).encode(),
        ".md": lambda: judgement_text(found, command).encode(),
        ".json": lambda: msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n",
    }
    with whole_file(out, overwrite) as part:
        part.write_bytes(made[report_kind(out)]())


def _card_file(card: Path, model: str) -> Path:
    """The model file that a card is of. Raises ConfigError."""
    file = None if is_table(model) else model_path(model)
    if file is None or file.suffix.lower() != ".onnx":
        raise ConfigError(f"--card: {model} is no .onnx model; a card is of the file that is shipped (mien export)")
    if card.suffix.lower() != ".md":
        raise ConfigError(f"--card {card}: a card is .md")
    return file


def _card(out: Path, model: str, found: Judgement, command: str, overwrite: bool) -> None:
    from mien.files import whole_file
    from mien.report.card import model_card
    from mien.runtime.sessions import read_spec

    file = _card_file(out, model)
    with whole_file(out, overwrite) as part:
        part.write_text(model_card(read_spec(file), found, file, command), encoding="utf-8")
