"""mien compare: which of several models is better on the same rows, and whether that is real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.evaluate import (
    Extras,
    _Copies,
    _Data,
    _Labels,
    _need,
    _Out,
    _Robust,
    _Rule,
    _Source,
    _Split,
    _Train,
    _Tta,
    judged,
    report_kind,
    show_tables,
    typed,
)
from mien.errors import ConfigError

if TYPE_CHECKING:
    from mien.evaluation.comparison import Comparison


def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more models, runs or tables of predictions.")],
    data: _Data,
    source: _Source = "ferplus",
    split: _Split = "validation",
    rule: _Rule = "majority",
    labels: _Labels = None,
    tta: _Tta = None,
    copies: _Copies = False,
    train: _Train = None,
    robust: _Robust = False,
    out: _Out = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Judge several models on the same rows, the best first, and say which differences are real."""
    import msgspec

    _need()
    from mien.evaluation.comparison import compare_models
    from mien.files import check_free

    if len(models) < 2:
        raise ConfigError("compare: expected two or more models")
    report_kind(out)
    if out is not None:
        check_free(out, overwrite)
    extras = Extras(copies, train, robust=robust, quiet=json)
    found = [judged(model, data, source, split, rule, labels, tta, extras=extras) for model in models]
    compared = compare_models([part[0] for part in found], [part[1] for part in found], [part[2] for part in found])
    if out is not None:
        _report(out, compared, overwrite)
    if json:
        print(msgspec.json.encode(compared).decode())
        return
    from mien.report.tables import comparison_tables

    first = compared.judgements[0]
    show_tables(comparison_tables(compared), f"{len(models)} models on {first.data}", first.notes)
    if out is not None:
        print(f"written: {out}")


def _report(out: Path, found: Comparison, overwrite: bool) -> None:
    import msgspec

    from mien.files import whole_file
    from mien.report.compared import comparison_page, comparison_text

    made = {
        ".html": lambda: comparison_page(found, typed()).encode(),
        ".md": lambda: comparison_text(found, typed()).encode(),
        ".json": lambda: msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n",
    }
    with whole_file(out, overwrite) as part:
        part.write_bytes(made[out.suffix]())
