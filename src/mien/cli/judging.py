"""What the verbs that judge share: their options, the rows, what models say of these, and tables in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import ConfigError, DataError, MissingExtra, near_miss
from mien.files import quoted

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.evaluation.judgement import Judgement
    from mien.evaluation.predictions import Predictions
    from mien.evaluation.robustness import Robustness
    from mien.report.tables import Table
    from mien.runtime.classify import Classifier

Data = Annotated[Path, typer.Option(help="The dataset's folder or file, or a manifest.")]
Source = Annotated[str, typer.Option(help="The dataset's source; a manifest knows its own.")]
Split = Annotated[
    str,
    typer.Option(
        help="The dataset's own word for the split, or train, validation, test (a manifest knows only these)."
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        help="For votes: majority (so by default), distribution or plain. A manifest keeps the rule that made it."
    ),
]
Labels = Annotated[
    str | None, typer.Option(help="Judge on this label set (a name, or labels with commas): other rows are left out.")
]
Tta = Annotated[
    str | None,
    typer.Option(help="Average every answer over other views of the face: flip, shift, multicrop, with commas."),
]
Copies = Annotated[
    bool,
    typer.Option(
        "--without-copies", help="Judge also without rows that have a copy in the train split (or in --train)."
    ),
]
Train = Annotated[
    Path | None, typer.Option(help="The manifest (or dataset of the same source) a model learned from; for copies.")
]
Robust = Annotated[
    bool, typer.Option("--robustness", help="Judge also under eight corruptions at five strengths: 41 times the work.")
]
Report = Annotated[Path | None, typer.Option(help="A report: .html, .md or .json.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]
Overwrite = Annotated[bool, typer.Option(help="Replace files that exist.")]

_TABLES = (".csv", ".parquet")
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows judge, and what to judge beyond the plain scores; see the options of the same names."""

    data: Path
    source: str = "ferplus"
    split: str = "validation"
    rule: str | None = None
    labels: str | None = None
    tta: str | None = None
    copies: bool = False
    train: Path | None = None
    slices: tuple[str, ...] = ()
    robust: bool = False
    quiet: bool = True
    engine: str = "auto"
    device: str = "auto"


def judged(models: Sequence[str], asked: Asked) -> tuple[list[Judgement], list[Predictions], Manifest]:
    """Models judged on the same rows; with what they said, and the rows. What cannot be asked is told before the work."""
    import msgspec

    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.slices import column

    averaging_kinds(asked.tta)
    for model in models:
        _check(model, asked)
    whole, manifest = rows(asked.data, asked.source, asked.split, asked.rule, asked.labels)
    for name in asked.slices:
        column(manifest, name)  # a misspelt column is told before the work
    whole_pictures: list[list[str]] = [[] for _ in models]
    told = [_told(model, manifest, asked, said.append) for model, said in zip(models, whole_pictures, strict=True)]
    left = _copied(manifest, whole, asked)
    outside = sum(manifest.header.left_out.values()) - sum(whole.header.left_out.values())
    notes = [f"{outside:,} rows whose label is none of these are left out"] if outside else []
    names = [name + (f" --tta {asked.tta}" if asked.tta else "") for name in model_names(models)]
    found = [_judged(*three, manifest, left, asked) for three in zip(models, names, told, strict=True)]
    noted = [
        msgspec.structs.replace(one, notes=(*notes, *said, *one.notes))
        for one, said in zip(found, whole_pictures, strict=True)
    ]
    return noted, told, manifest


def _told(model: str, manifest: Manifest, asked: Asked, tell: Callable[[str], None]) -> Predictions:
    return answers(model, manifest, asked.tta, asked.labels is not None, asked.engine, asked.device, tell)


def _check(model: str, asked: Asked) -> None:
    """Raises MienError for what the model cannot be asked, or if there is none."""
    if not is_table(model):
        model_path(model)
    elif asked.robust:
        raise ConfigError(f"--robustness: {model} is a table of answers; only a model can be shown corrupted faces")
    elif asked.tta:
        raise ConfigError(f"--tta: {model} is a table of answers; only a model can be asked again")
    if (asked.engine, asked.device) != ("auto", "auto") and (
        is_table(model) or model_path(model).suffix.lower() == _WEIGHTS
    ):
        raise ConfigError(f"--engine, --device: {model} is no model file; mien export makes one of a run")


def _judged(
    model: str, name: str, told: Predictions, manifest: Manifest, left: set[str] | None, asked: Asked
) -> Judgement:
    import msgspec

    from mien.evaluation.judgement import judge
    from mien.evaluation.metrics import aligned
    from mien.evaluation.origin import data_facts, software_facts
    from mien.evaluation.slices import slice_rows

    made = data_facts(manifest) | _model_facts(model) | software_facts()
    found = judge(name, told, manifest, left, made=made)
    if asked.slices:
        found = msgspec.structs.replace(found, slices=slice_rows(aligned(told, manifest), manifest, asked.slices))
    if asked.robust:
        found = msgspec.structs.replace(found, robustness=_robustness(model, manifest, asked))
    return found


def _copied(manifest: Manifest, whole: Manifest, asked: Asked) -> set[str] | None:
    """Ids of judged rows with a copy in training; None if that was not asked for."""
    from mien.data.manifest import is_manifest
    from mien.evaluation.judgement import copies_in_training

    if not (asked.copies or asked.train):
        return None
    learned = whole
    if asked.train is not None:
        learned = _open(asked.train, asked.source, "train", None if is_manifest(asked.train) else asked.rule)
    return copies_in_training(manifest, learned.split("train"))


def _model_facts(model: str) -> dict[str, str]:
    from mien.evaluation.origin import model_facts

    if is_table(model):
        return model_facts(Path(model), None)
    return model_facts(model_path(model), _session(model).spec)


def _robustness(model: str, manifest: Manifest, asked: Asked) -> Robustness:
    from mien.evaluation.averaging import AveragedModel, averaging_kinds
    from mien.evaluation.corruptions import border_for
    from mien.evaluation.robustness import robustness
    from mien.labels import LabelSet
    from mien.runtime.classify import Classifier

    classifier, kinds = Classifier(_session(model, asked.engine, asked.device)), averaging_kinds(asked.tta)
    spec = classifier.spec
    chips = chips_of(manifest, classifier, border_for(min(spec.crop.width, spec.crop.height)))
    shown = AveragedModel(classifier, kinds) if kinds else classifier
    return robustness(shown, LabelSet(spec.labels), chips, progress=lambda steps: _tracked(steps, asked.quiet))


def _tracked(steps: Iterable[Any], quiet: bool) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    return track(
        steps, "corruptions", console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True
    )


def rows(
    data: Path, source: str, split: str, rule: str | None = None, labels: str | None = None
) -> tuple[Manifest, Manifest]:
    """The whole dataset, and the rows of a split; `labels`: of these alone (a set's name, or names with commas).

    Raises ConfigError: labels that the data does not know, another rule than the manifest's; DataError.
    """
    from mien.data.split import project

    whole = _open(data, source, split, rule)
    try:
        manifest = whole.split(_word(data, source, split))
    except DataError as error:
        raise DataError(f"{error}; name one with --split") from error
    if labels is not None:
        manifest = project(manifest, _onto(labels, manifest))
    return whole, manifest


def _onto(labels: str, manifest: Manifest) -> tuple[str, ...]:
    """The names of a label set; those written out must be the data's, so that a misspelt one is not a class without rows."""
    from mien.labels import label_set

    if "," not in labels:
        return label_set(labels).names
    names = label_set(tuple(part.strip() for part in labels.split(","))).names
    for name in names:
        if name not in manifest.labels:
            raise ConfigError(
                f"--labels: {manifest.header.source} has no label {name!r}; {near_miss(name, manifest.labels)}"
            )
    return names


def answers(
    model: str,
    manifest: Manifest,
    tta: str | None = None,
    projecting: bool = False,
    engine: str = "auto",
    device: str = "auto",
    tell: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """What a model, a run or a table of predictions says of a manifest's rows.

    projecting: moved onto the manifest's labels.  tell: gets what a report should note. Raises DataError: an answer has nothing on these.
    """
    from mien.evaluation.predictions import projected
    from mien.evaluation.tables import read_predictions

    if not is_table(model):
        told = predictions_of(model, manifest, tta, engine, device, tell)
    elif tta:
        raise ConfigError(f"--tta: {model} is a table of answers; only a model can be asked again")
    else:
        told = _of(read_predictions(model, manifest.labels), manifest, model)
    return projected(told, manifest.labels) if projecting else told


def _open(data: Path, source: str, split: str, rule: str | None) -> Manifest:
    from mien.data.manifest import Manifest, is_manifest
    from mien.data.sources import read_source

    _word(data, source, split)
    if not is_manifest(data):
        return read_source(source, data, rule or "majority")
    manifest = Manifest.read(data)
    made = manifest.header.rule
    if made and rule not in (None, made):
        raise ConfigError(
            f"--rule {rule}: {data} was made by the rule {made!r} and keeps it; read the dataset anew with "
            f"mien data read --rule {rule}"
        )
    return manifest


def _word(data: Path, source: str, split: str) -> str:
    """A split's name in manifests. Raises ConfigError: no such source; the source has no such split."""
    from mien.data.manifest import is_manifest
    from mien.data.sources import source as find

    card = find(source).card
    return split if is_manifest(data) else card.split(split)


def _of(told: Predictions, manifest: Manifest, table: str) -> Predictions:
    """A table's predictions for the manifest's rows; foreign rows are left out. Raises DataError where some have none."""
    there = set(told.ids)
    missing = [name for name in manifest.ids if name not in there]
    if missing:
        raise DataError(
            f"{table}: no answer for {len(missing):,} of the {len(manifest):,} rows of {' and '.join(sorted(set(manifest.splits())))} "
            f"(such as {missing[0]}); it answers rows such as {told.ids[0]}: answer every row under the data's id, or name "
            "another split"
        )
    wanted = set(manifest.ids)
    return told.take([row for row, name in enumerate(told.ids) if name in wanted])


def predictions_of(
    model: str,
    manifest: Manifest,
    tta: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    tell: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """What a model says of the rows of a manifest: its chips, or its pictures cut as the model wants them.

    tell: gets in how many pictures no face was found. Raises ConfigError if the manifest's chips are cut otherwise.
    """
    from mien.data.prepare import unfound
    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.predictions import predict
    from mien.labels import LabelSet
    from mien.runtime.classify import Classifier

    classifier = Classifier(_session(model, engine, device))
    chips = chips_of(manifest, classifier)
    if count := unfound(chips.table):
        tell(f"in {count:,} of {len(chips):,} pictures no face was found: the whole picture was read")
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
            "prepare them with `mien data prepare` and judge the chips (of pictures that are faces already: --detector whole), "
            "or clean the manifest"
        )
    return prepared.chips


def figures_place(manifest: Manifest, split: str) -> str:
    """Where figures in a spec come from: source, split and rule of the rows that judged."""
    return "/".join(part for part in (manifest.header.source, split, manifest.header.rule) if part)


def is_table(model: str) -> bool:
    """Whether this is another tool's answers, by the suffix."""
    return Path(model).suffix.lower() in _TABLES


def model_names(models: Sequence[str]) -> list[str]:
    """The last part of each path, or the whole where that does not tell them apart. Raises ConfigError: one is named twice."""
    if len({Path(model).resolve() for model in models}) < len(models):
        raise ConfigError(f"one of these is named twice: {', '.join(models)}")
    short = [Path(model).name if Path(model).exists() else model for model in models]
    return list(models) if len(set(short)) < len(short) else short


def model_path(model: str) -> Path:
    """The file of a model or a run."""
    path = Path(model)
    path = path / "weights.safetensors" if path.is_dir() else path
    if path.suffix.lower() == _WEIGHTS:
        return path
    from mien.runtime.store import model_file

    return model_file(model)


def _session(model: str, engine: str = "auto", device: str = "auto") -> Any:
    path = model_path(model)
    if path.suffix.lower() == _WEIGHTS:
        try:
            from mien.models.weights import TorchSession, load_weights
        except ModuleNotFoundError as error:
            raise MissingExtra.of("Judging a checkpoint needs PyTorch", "train") from error
        return TorchSession(*load_weights(path))
    from mien.runtime.sessions import open_session

    return open_session(path, engine=engine, device=device)


def typed(but: Sequence[str] = ()) -> str:
    """The command as it was typed; but: without these options and their values, and without --overwrite and --json."""
    words, kept = iter(sys.argv[1:]), ["mien"]
    for word in words:
        if but and word in but:
            next(words, None)
        elif not (but and (word in ("--overwrite", "--json") or word.startswith(tuple(f"{name}=" for name in but)))):
            kept.append(word)
    return " ".join(map(quoted, kept))


def report_kind(out: Path | None) -> str:
    """The kind of a report. Raises ConfigError for a suffix that is none."""
    if out is not None and out.suffix.lower() not in (".html", ".md", ".json"):
        raise ConfigError(f"{out}: a report is .html, .md or .json")
    return "" if out is None else out.suffix.lower()


def _short(column: str, cell: str) -> str:
    """A cell as narrow as a terminal needs it: an interval with a dash."""
    return cell.replace(" to ", "\u2013") if "95 %" in column else cell


def show_tables(tables: Iterable[Table], title: str, notes: Sequence[str] = ()) -> None:
    """Print tables and notes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Printed

    from mien.cli.tables import print_table

    console = Console()
    console.print(title, style="bold", highlight=False)
    for note in notes:
        console.print(f"Note: {note}.", highlight=False)
    for table in tables:
        printed = Printed(*table.head)
        for row in table.rows:
            printed.add_row(*(escape(_short(name, cell)) for name, cell in zip(table.head, row, strict=True)))
        console.print(f"\n[bold]{escape(table.title)}[/]\n{escape(table.caption)}", highlight=False)
        print_table(printed)


def need() -> None:
    """Raises MissingExtra where the packages that judge are not installed."""
    try:
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Judging needs pyarrow and scikit-learn", "data") from error
