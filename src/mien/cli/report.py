"""mien report: the timeline of a table that `mien watch` wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mien.errors import ConfigError, MissingExtra, OutputError


def report(
    table: Annotated[Path, typer.Argument(help="A table of `mien watch` (.csv, .jsonl or .parquet).")],
    out: Annotated[Path | None, typer.Option(help="The page (.html).")] = None,
    episodes: Annotated[
        list[Path] | None, typer.Option(help="Episodes as .csv, .eaf (ELAN) or .boris; may be given several times.")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Shares of time and means of every person (.csv).")] = None,
    thumbnails: Annotated[str | None, typer.Option(help="The video, to show faces from it.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
) -> None:
    """Expression over time: a page for people, episodes and figures for other programs."""
    from mien.files import check_distinct, check_free

    outputs = [*([out] if out else []), *(episodes or []), *([summary] if summary else [])]
    if not outputs:
        raise ConfigError(
            "mien report: nothing to write; give --out PAGE.html, --episodes FILE.csv or --summary FILE.csv"
        )
    check_distinct(outputs)
    if any(path.resolve() == table.resolve() for path in outputs):
        raise OutputError(f"{table}: is the table to read; choose another name")
    for path in outputs:
        check_free(path, overwrite)
    if thumbnails is not None and out is None:
        raise ConfigError("--thumbnails: does nothing without --out; name its file")
    try:
        from mien.evaluation.timeline import read_timeline
        from mien.report.annotations import check_annotations, check_summary, write_annotations, write_summary
        from mien.report.timeline import check_page, write_report
    except ImportError as error:
        raise MissingExtra.of(f"A report needs {error.name}", "data") from error
    for path in episodes or []:
        check_annotations(path)
    if summary is not None:
        check_summary(summary)
    if out is not None:
        check_page(out)
        source = write_report(table, out, overwrite, thumbnails).source
        if thumbnails is not None and Path(thumbnails).name != Path(source).name:
            print(
                f"mien: {thumbnails}: the table is of {source or 'no name'}; faces are shown from {thumbnails}",
                file=sys.stderr,
            )
    if episodes or summary:
        timeline = read_timeline(table)
        for path in episodes or []:
            write_annotations(timeline, path, overwrite)
        if summary is not None:
            write_summary(timeline, summary, overwrite)
    for path in outputs:
        print(f"written: {path}")
