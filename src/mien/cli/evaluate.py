"""mien evaluate: how right a model is on a dataset."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.evaluation.judgement import Judgement
    from mien.evaluation.predictions import Predictions
    from mien.evaluation.robustness import Robustness
    from mien.report.tables import Table
    from mien.runtime.classify import Classifier

_Data = Annotated[Path, typer.Option(help="The dataset's folder or file, or a manifest.")]
_Source = Annotated[str, typer.Option(help="The dataset's source.")]
_Split = Annotated[
    str,
    typer.Option(
        help="The dataset's own word for the split, or train, validation, test (a manifest knows only these)."
    ),
]
_Rule = Annotated[str, typer.Option(help="For votes: majority, distribution or plain.")]
_Labels = Annotated[
    str | None, typer.Option(help="Judge on this label set (a name, or labels with commas): other rows are left out.")
]
_Tta = Annotated[
    str | None,
    typer.Option(help="Average every answer over other views of the face: flip, shift, multicrop, with commas."),
]

_Copies = Annotated[
    bool,
    typer.Option(
        "--without-copies", help="Judge also without rows that have a copy in the train split (or in --train)."
    ),
]
_Train = Annotated[
    Path | None, typer.Option(help="The manifest (or dataset of the same source) a model learned from; for copies.")
]
_Slices = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        help="Judge groups by a column of the data (subject, age, ...), the label, or what is measured: size, brightness, contrast, "
        "sharpness, roll, turn. May be given several times.",
    ),
]
_Robust = Annotated[
    bool, typer.Option("--robustness", help="Judge also under eight corruptions at five strengths: 41 times the work.")
]
_Out = Annotated[Path | None, typer.Option(help="A report: .html, .md or .json.")]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name or .onnx file, a run or weights, or a table of predictions (.csv, .parquet)."
        ),
    ],
    data: _Data,
    source: _Source = "ferplus",
    split: _Split = "validation",
    rule: _Rule = "majority",
    labels: _Labels = None,
    tta: _Tta = None,
    copies: _Copies = False,
    train: _Train = None,
    slices: _Slices = None,
    robust: _Robust = False,
    out: _Out = None,
    faces: Annotated[
        bool, typer.Option("--faces/--no-faces", help="Whether the page shows judged faces; they are personal data.")
    ] = True,
    card: Annotated[Path | None, typer.Option(help="Write the model's card (.md) from these figures.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Keep the answers as .csv or .parquet.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Judge a model by the field's measures, with intervals."""
    import msgspec

    _need()
    from mien.files import check_free

    report_kind(out)
    for path in (out, card, predictions):
        if path is not None:
            check_free(path, overwrite)
    asked = Extras(copies, train, tuple(slices or ()), robust, quiet=json)
    found, told, manifest = judged(model, data, source, split, rule, labels, tta, extras=asked)
    command = typed()
    if predictions is not None:
        from mien.evaluation.predictions import write_predictions

        write_predictions(told, predictions, overwrite)
    if out is not None:
        _report(out, found, told, manifest, command, faces, overwrite)
    if card is not None:
        _card(card, model, found, typed(but=("--card", "--out", "--predictions")), overwrite)
    if json:
        print(msgspec.json.encode(found).decode())
        return
    from mien.report.tables import judgement_tables

    show_tables(judgement_tables(found), f"{found.model} on {found.data}", found.notes)
    for path in (out, card, predictions):
        if path is not None:
            print(f"written: {path}")


@dataclass(frozen=True, slots=True)
class Extras:
    """What to judge beyond the plain scores; see the options of the same names."""

    copies: bool = False
    train: Path | None = None
    slices: tuple[str, ...] = ()
    robust: bool = False
    quiet: bool = True


def judged(
    model: str,
    data: Path,
    source: str,
    split: str,
    rule: str,
    labels: str | None = None,
    tta: str | None = None,
    copies: bool = False,
    extras: Extras | None = None,
) -> tuple[Judgement, Predictions, Manifest]:
    """A model judged on a split of a dataset or of a manifest file; with what it said and the rows judged."""
    import msgspec

    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.judgement import judge
    from mien.evaluation.metrics import aligned
    from mien.evaluation.origin import data_facts, software_facts
    from mien.evaluation.slices import column, slice_rows

    kinds = averaging_kinds(tta)
    extras = extras or Extras(copies)
    whole, manifest = rows(data, source, split, rule, labels)
    for name in extras.slices:
        column(manifest, name)  # a misspelt column is told before the work
    told = answers(model, manifest, tta, labels is not None)
    left = _copied(manifest, whole, source, rule, extras)
    name = (Path(model).name if Path(model).exists() else model) + (f" --tta {tta}" if tta else "")
    made = data_facts(manifest) | _model_facts(model) | software_facts()
    found = judge(name, told, manifest, left, made=made)
    if extras.slices:
        found = msgspec.structs.replace(found, slices=slice_rows(aligned(told, manifest), manifest, extras.slices))
    if extras.robust:
        found = msgspec.structs.replace(found, robustness=_robustness(model, manifest, kinds, extras.quiet))
    return found, told, manifest


def _copied(manifest: Manifest, whole: Manifest, source: str, rule: str, extras: Extras) -> set[str] | None:
    """Ids of judged rows with a copy in training; None if that was not asked for."""
    from mien.evaluation.judgement import copies_in_training

    if not (extras.copies or extras.train):
        return None
    learned = whole if extras.train is None else _open(extras.train, source, "train", rule)
    return copies_in_training(manifest, learned.split("train"))


def _model_facts(model: str) -> dict[str, str]:
    from mien.evaluation.origin import model_facts

    if Path(model).suffix in {".csv", ".parquet"}:
        return model_facts(Path(model), None)
    return model_facts(_file(model), _session(model).spec)


def _robustness(model: str, manifest: Manifest, kinds: Sequence[str], quiet: bool) -> Robustness:
    from mien.evaluation.averaging import AveragedModel
    from mien.evaluation.corruptions import border_for
    from mien.evaluation.robustness import robustness
    from mien.labels import LabelSet
    from mien.runtime.classify import Classifier

    if Path(model).suffix in {".csv", ".parquet"}:
        raise ConfigError(f"--robustness: {model} is a table of answers; only a model can be shown corrupted faces")
    classifier = Classifier(_session(model))
    spec = classifier.spec
    chips = chips_of(manifest, classifier, border_for(min(spec.crop.width, spec.crop.height)))
    asked = AveragedModel(classifier, kinds) if kinds else classifier
    return robustness(asked, LabelSet(spec.labels), chips, progress=lambda steps: _tracked(steps, quiet))


def _tracked(steps: Iterable[Any], quiet: bool) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    return track(
        steps, "corruptions", console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True
    )


def rows(data: Path, source: str, split: str, rule: str, labels: str | None = None) -> tuple[Manifest, Manifest]:
    """The whole dataset, and the rows of a split; `labels`: of these alone (a set's name, or names with commas)."""
    from mien.data.split import project
    from mien.labels import label_set

    whole = _open(data, source, split, rule)
    manifest = whole.split(_word(data, source, split))
    if labels is not None:
        onto = label_set(tuple(part.strip() for part in labels.split(",")) if "," in labels else labels)
        manifest = project(manifest, onto.names)
    return whole, manifest


def answers(model: str, manifest: Manifest, tta: str | None = None, projecting: bool = False) -> Predictions:
    """What a model, a run or a table of predictions says of a manifest's rows.

    projecting: moved onto the manifest's labels. Raises DataError: an answer has nothing on these.
    """
    from mien.evaluation.predictions import projected

    told = _of(_predictions(model, manifest, tta), manifest)
    return projected(told, manifest.labels) if projecting else told


def _open(data: Path, source: str, split: str, rule: str) -> Manifest:
    from mien.data.manifest import Manifest, is_manifest
    from mien.data.sources import read_source

    if is_manifest(data):
        return Manifest.read(data)
    _word(data, source, split)
    return read_source(source, data, rule)


def _word(data: Path, source: str, split: str) -> str:
    from mien.data.manifest import is_manifest
    from mien.data.sources import source as find

    return split if is_manifest(data) else find(source).card.split(split)


def _predictions(model: str, manifest: Manifest, tta: str | None) -> Predictions:
    from mien.evaluation.tables import read_predictions

    if Path(model).suffix in {".csv", ".parquet"}:
        if tta:
            raise ConfigError(f"--tta: {model} is a table of answers; only a model can be asked again")
        return read_predictions(model)
    return predictions_of(model, manifest, tta)


def _of(told: Predictions, manifest: Manifest) -> Predictions:
    """The predictions for the manifest's rows, if all are there; foreign rows are left out."""
    wanted = set(manifest.ids)
    return told.take([row for row, name in enumerate(told.ids) if name in wanted])


def predictions_of(model: str, manifest: Manifest, tta: str | None = None) -> Predictions:
    """What a model says of the rows of a manifest: its chips, or its pictures cut as the model wants them.

    Raises ConfigError if the manifest's chips are cut otherwise.
    """
    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.predictions import predict
    from mien.labels import LabelSet
    from mien.runtime.classify import Classifier

    classifier = Classifier(_session(model))
    chips = chips_of(manifest, classifier)
    return predict(classifier, LabelSet(classifier.spec.labels), chips, averaging_kinds(tta))


def chips_of(manifest: Manifest, classifier: Classifier, border: int = 0) -> Manifest:
    """The chips that a model wants of a manifest's rows; with a border where they are cut anew.

    Raises ConfigError if the manifest's own chips are cut otherwise, DataError if a row gives none.
    """
    import msgspec

    from mien.data.prepare import prepare
    from mien.runtime.detect import open_detector

    spec, cut = classifier.spec.crop, manifest.header.crop
    if cut is not None and msgspec.structs.replace(cut, border=0) != msgspec.structs.replace(spec, border=0):
        raise ConfigError(
            f"{manifest.header.source}: its chips are cut otherwise than {classifier.spec.name} wants ({cut}; {spec}); "
            "give the manifest of pictures instead"
        )
    if cut is not None:
        return manifest
    finder = None if manifest.header.framing is not None else open_detector("auto", spec, threads=1)
    prepared = prepare(manifest, msgspec.structs.replace(spec, border=max(border, spec.border)), finder)
    if prepared.missed:
        name, why = prepared.missed[0]
        raise DataError(
            f"{manifest.header.source}: {len(prepared.missed)} of {len(manifest)} rows gave no chip ({name}: {why}); "
            "prepare them with `mien data prepare` and judge the chips, or clean the manifest"
        )
    return prepared.chips


def _file(model: str) -> Path:
    """The file of a model or a run."""
    path = Path(model)
    path = path / "weights.safetensors" if path.is_dir() else path
    if path.suffix == ".safetensors":
        return path
    from mien.runtime.store import model_file

    return model_file(model)


def _session(model: str) -> Any:
    path = _file(model)
    if path.suffix == ".safetensors":
        try:
            from mien.models.weights import TorchSession, load_weights
        except ModuleNotFoundError as error:
            raise MissingExtra.of("Judging a checkpoint needs PyTorch", "train") from error
        return TorchSession(*load_weights(path))
    from mien.runtime.sessions import open_session

    return open_session(path)


def typed(but: Sequence[str] = ()) -> str:
    """The command as it was typed; but: without these options and their values, and without --overwrite and --json."""
    words, kept = iter(sys.argv[1:]), ["mien"]
    for word in words:
        if but and word in but:
            next(words, None)
        elif not (but and (word in ("--overwrite", "--json") or word.startswith(tuple(f"{name}=" for name in but)))):
            kept.append(word)
    return shlex.join(kept)


def report_kind(out: Path | None) -> str:
    """The kind of a report. Raises ConfigError for a suffix that is none."""
    if out is not None and out.suffix not in (".html", ".md", ".json"):
        raise ConfigError(f"{out}: a report is .html, .md or .json")
    return "" if out is None else out.suffix


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


def _card(out: Path, model: str, found: Judgement, command: str, overwrite: bool) -> None:
    from mien.files import whole_file
    from mien.report.card import model_card
    from mien.runtime.sessions import read_spec

    file = _file(model)
    if file.suffix != ".onnx":
        raise ConfigError(f"--card: {model} is no .onnx model; a card is of the file that is shipped (mien export)")
    with whole_file(out, overwrite) as part:
        part.write_text(model_card(read_spec(file), found, file, command), encoding="utf-8")


def _short(column: str, cell: str) -> str:
    """A cell as narrow as a terminal needs it: an interval with a dash."""
    return cell.replace(" to ", "\u2013") if "95 %" in column else cell


def show_tables(tables: Iterable[Table], title: str, notes: Sequence[str] = ()) -> None:
    """Print tables and notes."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table as Printed

    console = Console()
    console.print(title, style="bold", highlight=False)
    for note in notes:
        console.print(f"Note: {note}.", highlight=False)
    for table in tables:
        printed = Printed(*table.head, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for row in table.rows:
            printed.add_row(*(escape(_short(name, cell)) for name, cell in zip(table.head, row, strict=True)))
        console.print(f"\n[bold]{escape(table.title)}[/]\n{escape(table.caption)}", highlight=False)
        if console.measure(printed, options=console.options.update(width=500)).maximum <= console.width:
            console.print(printed)
        else:
            for row in table.rows:
                console.print(Padding(escape(_spoken(table.head, row)), (0, 0, 0, 2)), highlight=False)


def _spoken(head: Sequence[str], row: Sequence[str]) -> str:
    """A row as a line, for tables that are wider than the terminal: each value after its name, intervals in brackets."""
    words = row[0]
    for name, cell in zip(head[1:], row[1:], strict=True):
        if cell:
            words += f" ({cell})" if "95 %" in name else f"; {name} {cell}" if name else f"; {cell}"
    return words


def _need() -> None:
    try:
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Judging needs pyarrow and scikit-learn", "data") from error
