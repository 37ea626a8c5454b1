"""mien compare: which of several models is better on the same rows, and whether that is real."""

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
    judged,
    need,
    report_kind,
    show_tables,
    typed,
)
from mien.errors import ConfigError

if TYPE_CHECKING:
    from mien.evaluation.comparison import Comparison


def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more models, runs or tables of predictions.")],
    data: Data,
    source: Source = "ferplus",
    split: Split = "validation",
    rule: Rule = None,
    labels: Labels = None,
    tta: Tta = None,
    copies: Copies = False,
    train: Train = None,
    robust: Robust = False,
    out: Report = None,
    json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Judge several models on the same rows, the best first, and say which differences are real."""
    import msgspec

    need()
    from mien.evaluation.comparison import compare_models
    from mien.files import check_free

    if len(models) < 2:
        raise ConfigError("compare: expected two or more models")
    report_kind(out)
    if out is not None:
        check_free(out, overwrite)
    asked = Asked(data, source, split, rule, labels, tta, copies, train, robust=robust, quiet=json)
    found, told, manifest = judged(models, asked)
    compared = compare_models(found, told, [manifest] * len(models))
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
        part.write_bytes(made[out.suffix.lower()]())
