"""mien data: datasets read, recognised, audited, cleaned, split and prepared, as manifests."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    from mien.data.manifest import Manifest

app = typer.Typer(
    help="Datasets: list, read, recognise, audit, clean, split, select, merge, prepare.", no_args_is_help=True
)

_Manifest = Annotated[Path, typer.Argument(help="A manifest (Parquet) from `mien data read`.")]
_Out = Annotated[Path, typer.Option(help="The manifest to write.")]
_Overwrite = Annotated[bool, typer.Option(help="Replace files that exist.")]
_Seed = Annotated[int, typer.Option(min=0, help="Chooses rows.")]
_Rule = Annotated[str, typer.Option(help="For votes: majority, distribution or plain.")]


@app.command("list")
def list_() -> None:
    """Every dataset that mien reads."""
    _need()
    from rich.table import Table

    from mien.cli.tables import print_table
    from mien.data.sources import SOURCES

    table = Table("source", "dataset", "labels", "expected layout", "licence")
    for name, found in sorted(SOURCES.items()):
        card = found.card
        table.add_row(name, card.title, str(len(card.labels)) if card.home else "own", card.layout, card.licence)
    print_table(table)


@app.command()
def read(
    source: Annotated[str, typer.Argument(help="A source from `mien data list`.")],
    root: Annotated[Path, typer.Argument(help="The dataset's folder or file.")],
    out: _Out,
    rule: _Rule = "majority",
    overwrite: _Overwrite = False,
) -> None:
    """Read a dataset into a manifest: named labels, one row a face."""
    _need()
    from mien.data.sources import read_source
    from mien.files import check_free

    check_free(out, overwrite)
    manifest = read_source(source, root, rule)
    manifest.write(out, overwrite)
    _show(manifest)
    print(f"manifest: {out}")


@app.command()
def recognise(root: Annotated[Path, typer.Argument(help="A folder or file.")]) -> None:
    """Say which dataset and form this is, and whether its class counts are the known ones."""
    _need()
    from mien.data.sources.recognise import recognise as look

    found = look(root)
    print(f"{root}: {found.source} ({found.form})")
    for warning in found.warnings:
        print(f"warning: {warning}")


@app.command()
def audit(
    manifest: _Manifest,
    out: Annotated[Path | None, typer.Option(help="A page with pictures (.html).")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model that did not learn from these rows: its answers point at likely label errors."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    overwrite: _Overwrite = False,
) -> None:
    """Look for what spoils results: copies across splits, blank pictures, conflicting labels, broken files."""
    _need()
    import msgspec

    from mien.data.audit import audit as look
    from mien.data.manifest import Manifest
    from mien.files import check_free, whole_file

    if out is not None:
        check_free(out, overwrite)
    rows = Manifest.read(manifest)
    told = _answers(model, rows) if model else None
    found = look(rows, told, progress=_track("auditing"))
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        _table(f"{manifest.name}: {rows.header.source}", found.summary())
    if out is not None:
        from mien.report.page import audit_page

        with whole_file(out, overwrite) as part:
            part.write_text(audit_page(found, rows), encoding="utf-8")
        print(f"page: {out}", file=sys.stderr if json else sys.stdout)


def _answers(model: str, rows: Manifest) -> Any:
    from mien.cli.judging import predictions_of

    return predictions_of(model, rows)


@app.command()
def clean(
    manifest: Annotated[
        Path | None, typer.Argument(help="A manifest; without one, the rules and what they do.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The manifest to write.")] = None,
    rules: Annotated[str, typer.Option(help="Rules by name, with commas.")] = "",
    model: Annotated[
        str | None, typer.Option(help="For label-errors: a model that did not learn from these rows.")
    ] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Write a new manifest without the rows that the rules drop, and a log of every one with its reason beside it."""
    _need()
    from mien.data.audit import audit as look
    from mien.data.clean import RULES
    from mien.data.clean import clean as work
    from mien.data.manifest import Manifest
    from mien.files import check_free

    chosen = [rule.strip() for rule in rules.split(",") if rule.strip()]
    if manifest is None or out is None or not chosen:
        _table("rules", ((name, (rule.__doc__ or "").split("\n")[0]) for name, rule in RULES.items()))
        if manifest is None and not chosen:
            return
        raise ConfigError("clean: expected a manifest, --rules with names from the table, and --out")
    if out.resolve() == manifest.resolve():
        raise ConfigError(f"{out}: is the manifest itself; the original is never touched: choose another --out")
    log = out.with_name(f"{out.stem}.log.csv")
    for path in (out, log):
        check_free(path, overwrite)
    rows = Manifest.read(manifest)
    told = _answers(model, rows) if model else None
    done = work(rows, chosen, look(rows, told, progress=_track("auditing")))
    if not len(done.manifest):
        raise DataError(f"{manifest}: {rules} drops all {len(rows):,} rows; nothing is written")
    done.manifest.write(out, overwrite)
    done.write_log(log, overwrite)
    _show(done.manifest)
    print(
        f"manifest: {out}\n{len(rows) - len(done.manifest):,} of {len(rows):,} rows dropped; each change with its reason: {log}"
    )


@app.command()
def split(
    manifest: _Manifest,
    out: _Out,
    shares: Annotated[str, typer.Option(help="Shares of the rows.")] = "train=0.8,validation=0.1,test=0.1",
    seed: _Seed = 0,
    near: Annotated[bool, typer.Option(help="Keep near copies together too (audits first).")] = True,
    overwrite: _Overwrite = False,
) -> None:
    """Split anew: stratified, and no subject, picture or near copy on two sides."""
    _need()
    from mien.data.audit import audit as look
    from mien.data.manifest import Manifest
    from mien.data.split import check_shares
    from mien.data.split import split as deal
    from mien.files import check_free

    wanted = _shares(shares)
    check_shares(wanted)
    check_free(out, overwrite)
    rows = Manifest.read(manifest)
    groups = look(rows, progress=_track("auditing")).near_groups if near else ()
    done = deal(rows, wanted, seed, groups)
    done.write(out, overwrite)
    _show(done)
    print(f"manifest: {out}")


def _shares(text: str) -> dict[str, float]:
    try:
        pairs = [(name.strip(), float(value)) for name, _, value in (part.partition("=") for part in text.split(","))]
    except ValueError as error:
        raise ConfigError(f"--shares {text}: expected such as train=0.8,validation=0.1,test=0.1") from error
    if len(dict(pairs)) < len(pairs):
        raise ConfigError(f"--shares {text}: names a split twice")
    return dict(pairs)


@app.command()
def select(
    manifest: _Manifest,
    out: _Out,
    labels: Annotated[str | None, typer.Option(help="A label set's name, or labels with commas.")] = None,
    cap: Annotated[int | None, typer.Option(min=1, help="At most this many rows of each class in each split.")] = None,
    seed: _Seed = 0,
    overwrite: _Overwrite = False,
) -> None:
    """Choose labels (a subset, another set) and cap classes."""
    _need()
    from mien.data import split as rows
    from mien.data.manifest import Manifest

    chosen = Manifest.read(manifest)
    if labels is not None:
        chosen = rows.project(chosen, wanted_labels(labels, [chosen]))
    if cap is not None:
        chosen = rows.cap(chosen, cap, seed)
    chosen.write(out, overwrite)
    _show(chosen)
    print(f"manifest: {out}")


def _labels(text: str) -> str | tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if "," in text else text


@app.command()
def merge(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests.")],
    out: _Out,
    labels: Annotated[str | None, typer.Option(help="A label set's name, or labels with commas.")] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Put manifests together under one label set."""
    _need()
    from mien.data.manifest import Manifest
    from mien.data.split import merge as join

    read = [Manifest.read(path) for path in manifests]
    done = join(read, None if labels is None else wanted_labels(labels, read))
    done.write(out, overwrite)
    _show(done)
    print(f"manifest: {out}")


def wanted_labels(text: str, manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """The names of a known set, which may have more than the manifests; or the names given with commas, which may be words for
    them ('happy'). Raises ConfigError: a name that no manifest has and that is no
    expression's."""
    from mien.data.sources.folders import expression
    from mien.errors import near_miss

    if "," not in text:
        return label_words(text)
    there = tuple(dict.fromkeys(name for manifest in manifests for name in manifest.labels))
    names = tuple(name if name in there else expression(name) or name for name in _labels(text))
    for name in names:
        if name not in there and not expression(name):
            sources = " + ".join(manifest.header.source for manifest in manifests)
            raise ConfigError(f"--labels: {sources} has no {name!r}; {near_miss(name, there)}")
    return names


def label_words(text: str) -> tuple[str, ...]:
    """The names of a known set, or the names given with commas."""
    from mien.labels import label_set

    return label_set(_labels(text)).names


@app.command()
def prepare(
    manifest: _Manifest,
    out: _Out,
    recipe: Annotated[str, typer.Option(help="The recipe whose crop the chips follow.")] = "ferplus-small",
    settings: Annotated[list[str] | None, typer.Option("--set", help="crop.key=value, on top of the recipe.")] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="For rows without landmarks, or without the box that the crop needs: auto, mien-face, yunet; whole: each picture is a face."
        ),
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Threads.")] = 2,
    overwrite: _Overwrite = False,
) -> None:
    """Cut the chips of a manifest: detect, align, crop with border, store losslessly. A killed run goes on."""
    _need()
    import pyarrow.parquet as pq

    from mien.data.manifest import Manifest
    from mien.data.prepare import FOUND, prepare_file, unfound
    from mien.recipe import Recipe, load_recipe
    from mien.runtime.detect import open_detector

    chosen = load_recipe(recipe, settings or ())
    if not isinstance(chosen, Recipe):
        raise ConfigError(f"{recipe}: a detector's recipe has no crop")
    rows = Manifest.read(manifest)
    count, missed = prepare_file(
        rows,
        chosen.crop,
        out,
        lambda: open_detector(detector, chosen.crop, threads=1),
        workers,
        overwrite,
        detector,
        lambda blocks, total: _track("preparing", total)(blocks),
    )
    print(f"chips: {out} ({count:,})")
    if whole := unfound(pq.read_table(out, columns=[FOUND] if FOUND in pq.read_schema(out).names else [])):
        print(f"in {whole:,} no face was found: the whole picture was taken (fact {FOUND}: no)")
    if missed:
        print(f"{len(missed):,} rows gave none; each with its reason: {out.with_name(out.stem + '.missed.csv')}")
        raise typer.Exit(1)


@app.command()
def synthetic(
    out: _Out,
    count: Annotated[int, typer.Option(min=1, help="Faces to draw.")] = 800,
    seed: _Seed = 0,
    labels: Annotated[str, typer.Option(help="A label set's name, or labels with commas.")] = "affectnet8",
    overwrite: _Overwrite = False,
) -> None:
    """Draw cartoon faces with known expression and affect, for first runs without any dataset."""
    _need()
    from mien.data.synthetic import synthetic as draw

    done = draw(count, seed, label_words(labels))
    done.write(out, overwrite)
    _show(done)
    print(f"manifest: {out}")


@app.command()
def submit(
    model: Annotated[str, typer.Argument(help="A model's name or file, or a run.")],
    manifest: _Manifest,
    out: Annotated[Path, typer.Option(help="The competition's file (.csv).")],
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; by default all rows that are not train.")
    ] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Write FER2013's submission: one label a row, as its code, in the manifest's order; train rows are no part of it."""
    _need()
    from mien.data.manifest import Manifest
    from mien.evaluation.submission import write_submission

    rows = _asked(Manifest.read(manifest), split)
    told = _answers(model, rows)
    if list(told.ids) != rows.ids:
        raise DataError(f"{manifest}: {len(rows) - len(told.ids)} rows gave no chip; a submission needs every row")
    write_submission(told, out, overwrite=overwrite)
    print(f"submission: {out} ({len(rows):,} rows of {', '.join(dict.fromkeys(rows.splits()))})")


def _asked(rows: Manifest, split: str | None) -> Manifest:
    """The rows that a submission answers. Raises ConfigError, DataError: there are none."""
    from mien.data.manifest import SPLITS
    from mien.errors import near_miss

    if split is not None and split not in SPLITS:
        raise ConfigError(f"--split {split}: unknown split; {near_miss(split, SPLITS)}")
    there = rows.splits()
    chosen = [row for row, name in enumerate(there) if (name == split if split else name != "train")]
    if not chosen:
        what = f"of {split}" if split else "but train"
        raise DataError(
            f"{rows.header.source}: has no row {what}; it has {', '.join(dict.fromkeys(there))}: see --split"
        )
    return rows.take(chosen)


def _need() -> None:
    try:
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Working with datasets needs pyarrow and more", "data") from error


def _show(manifest: Manifest) -> None:
    """A table of rows per class and split, and what was left out."""
    from rich.markup import escape
    from rich.table import Table

    from mien.cli.tables import print_table

    splits = [name for name in ("train", "validation", "test") if name in set(manifest.splits())]
    table = Table("label", *splits, title=f"{manifest.header.source}: {len(manifest):,} rows")
    counts = {name: manifest.split(name).counts() for name in splits}
    for label in manifest.labels:
        table.add_row(escape(label), *(f"{counts[name][label]:,}" for name in splits))
    print_table(table)
    for reason, rows in manifest.header.left_out.items():
        print(f"left out: {rows:,} rows: {reason}")
    for warning in manifest.header.warnings:
        print(f"warning: {warning}")


def _table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table

    from mien.cli.tables import print_table

    table = Table("what", "found", title=title)
    for name, value in rows:
        table.add_row(name, value)
    print_table(table)


def _track(what: str, total: int | None = None) -> Any:
    from rich.console import Console
    from rich.progress import track

    def run(rows: Iterable[Any]) -> Iterable[Any]:
        count = total if total is not None else len(rows) if isinstance(rows, Sized) else None
        return track(rows, what, total=count, console=Console(stderr=True), disable=not sys.stderr.isatty())

    return run
