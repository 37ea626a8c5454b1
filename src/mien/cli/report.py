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
    thumbnails: Annotated[str | None, typer.Option(help="The video, to show faces from it.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
) -> None:
    """Expression over time: a page for people, episodes for other programs."""
    from mien.files import check_distinct, check_free

    outputs = [*([out] if out else []), *(episodes or [])]
    if not outputs:
        raise ConfigError("mien report: nothing to write; give --out PAGE.html, --episodes FILE.csv, or both")
    check_distinct(outputs)
    if any(path.resolve() == table.resolve() for path in outputs):
        raise OutputError(f"{table}: is the table to read; choose another name")
    for path in outputs:
        check_free(path, overwrite)
    if thumbnails is not None and out is None:
        raise ConfigError("--thumbnails: does nothing without --out; name its file")
    try:
        from mien.evaluation.timeline import read_timeline
        from mien.report.annotations import check_annotations, write_annotations
        from mien.report.timeline import check_page, write_report
    except ImportError as error:
        raise MissingExtra.of(f"A report needs {error.name}", "data") from error
    for path in episodes or []:
        check_annotations(path)
    if out is not None:
        check_page(out)
        source = write_report(table, out, overwrite, thumbnails).source
        if thumbnails is not None and Path(thumbnails).name != Path(source).name:
            print(
                f"mien: {thumbnails}: the table is of {source or 'no name'}; faces are shown from {thumbnails}",
                file=sys.stderr,
            )
    if episodes:
        timeline = read_timeline(table)
        for path in episodes:
            write_annotations(timeline, path, overwrite)
    for path in outputs:
        print(f"written: {path}")
