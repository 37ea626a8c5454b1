"""mien evaluate: how right a model is on a dataset. mien compare: which of several is better, and whether that is real."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.evaluation.judgement import Judgement
    from mien.evaluation.predictions import Predictions

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
    copies: Annotated[
        bool, typer.Option("--without-copies", help="Judge also without rows that have a copy in the train split.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A report: .html, .md or .json.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Keep the answers as .csv or .parquet.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Judge a model by the field's measures, with intervals."""
    import msgspec

    _need()
    from mien.files import check_free

    for path in (out, predictions):
        if path is not None:
            check_free(path, overwrite)
    found, told, manifest = judged(model, data, source, split, rule, labels, tta, copies)
    if predictions is not None:
        from mien.evaluation.predictions import write_predictions

        write_predictions(told, predictions, overwrite)
    command = " ".join(["mien", *sys.argv[1:]])
    if out is not None:
        _report(out, found, told, manifest, command, overwrite)
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        _show(found)
    for path in (out, predictions):
        if path is not None and not json:
            print(f"written: {path}")


def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more models, runs or tables of predictions.")],
    data: _Data,
    source: _Source = "ferplus",
    split: _Split = "validation",
    rule: _Rule = "majority",
    labels: _Labels = None,
    tta: _Tta = None,
) -> None:
    """Judge several models on the same rows, the best first, and say which differences are real (McNemar, bootstrap)."""
    _need()
    from rich.console import Console
    from rich.table import Table

    from mien.evaluation.intervals import compare_rows
    from mien.evaluation.metrics import aligned

    if len(models) < 2:
        raise ConfigError("compare: expected two or more models")
    found = [judged(model, data, source, split, rule, labels, tta) for model in models]
    hits = []
    for judgement, told, manifest in found:
        if judgement.scores.expression is None:
            raise DataError(f"{judgement.model}: answers no labels; compare judges expressions")
        truth = manifest.targets().argmax(axis=1)
        hits.append(aligned(told, manifest).probabilities.argmax(axis=1) == truth)
    order = sorted(range(len(models)), key=lambda i: -hits[i].mean())
    best = order[0]
    table = Table("model", "accuracy", "95 %", "macro F1", "behind the best", "95 %", "McNemar's p", "real")
    subjects = found[best][2].table["subject"].to_pylist()
    for i in order:
        scores = found[i][0].scores.expression
        assert scores is not None
        low, high = scores.interval
        words = [found[i][0].model, f"{scores.accuracy:.2%}", f"{low:.2%} to {high:.2%}", f"{scores.macro_f1:.2%}"]
        if i == best:
            table.add_row(*words, "", "", "", "")
            continue
        gap = compare_rows(hits[best], hits[i], subjects)
        edges = f"{gap.interval[0]:+.2%} to {gap.interval[1]:+.2%}"
        table.add_row(*words, f"{gap.difference:.2%}", edges, f"{gap.p:.2g}", "yes" if gap.real else "no")
    Console().print(table)


def judged(
    model: str,
    data: Path,
    source: str,
    split: str,
    rule: str,
    labels: str | None = None,
    tta: str | None = None,
    copies: bool = False,
) -> tuple[Judgement, Predictions, Manifest]:
    """A model judged on a split of a dataset or of a manifest file; with what it said and the rows judged."""
    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.judgement import copies_in_training, judge

    averaging_kinds(tta)
    whole, manifest = rows(data, source, split, rule, labels)
    told = answers(model, manifest, tta, labels is not None)
    left = None
    if copies:
        left = copies_in_training(manifest, whole.split("train"))
    name = (Path(model).name if Path(model).exists() else model) + (f" --tta {tta}" if tta else "")
    judgement = judge(name, told, manifest, left)
    return judgement, told, manifest


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
    from mien.evaluation.predictions import read_predictions

    if Path(model).suffix in {".csv", ".parquet"}:
        if tta:
            raise ConfigError(f"--tta: {model} is a table of answers; only a model can be asked again")
        return read_predictions(model)
    return predictions_of(model, manifest, tta)


def _of(told: Predictions, manifest: Manifest) -> Predictions:
    """The predictions for the manifest's rows, if all are there; foreign rows are left out."""
    from mien.evaluation.predictions import Predictions

    wanted = set(manifest.ids)
    rows = [row for row, name in enumerate(told.ids) if name in wanted]
    ids = [told.ids[row] for row in rows]
    return Predictions(told.labels, ids, told.probabilities[rows], told.affect[rows])


def predictions_of(model: str, manifest: Manifest, tta: str | None = None) -> Predictions:
    """What a model says of the rows of a manifest: its chips, or its pictures cut as the model wants them.

    Raises ConfigError if the manifest's chips are cut otherwise.
    """
    import msgspec

    from mien.data.prepare import prepare
    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.predictions import predict
    from mien.labels import LabelSet
    from mien.runtime.classify import Classifier
    from mien.runtime.detect import open_detector

    classifier = Classifier(_session(model))
    spec = classifier.spec.crop
    cut = manifest.header.crop
    if cut is not None and msgspec.structs.replace(cut, border=0) != msgspec.structs.replace(spec, border=0):
        raise ConfigError(
            f"{manifest.header.source}: its chips are cut otherwise than {classifier.spec.name} wants ({cut}; {spec}); "
            "give the manifest of pictures instead"
        )
    finder = None if manifest.header.framing is not None else open_detector("auto", spec, threads=1)
    if cut is not None:
        chips = manifest
    else:
        prepared = prepare(manifest, spec, finder)
        if prepared.missed:
            name, why = prepared.missed[0]
            raise DataError(
                f"{manifest.header.source}: {len(prepared.missed)} of {len(manifest)} rows gave no chip ({name}: {why}); "
                "prepare them with `mien data prepare` and judge the chips, or clean the manifest"
            )
        chips = prepared.chips
    return predict(classifier, LabelSet(classifier.spec.labels), chips, averaging_kinds(tta))


def _session(model: str) -> Any:
    path = Path(model)
    path = path / "weights.safetensors" if path.is_dir() else path
    if path.suffix == ".safetensors":
        try:
            from mien.models.weights import TorchSession, load_weights
        except ModuleNotFoundError as error:
            raise MissingExtra.of("Judging a checkpoint needs PyTorch", "train") from error
        return TorchSession(*load_weights(path))
    from mien.runtime.sessions import open_session
    from mien.runtime.store import model_file

    return open_session(model_file(model))


def _report(out: Path, found: Judgement, told: Predictions, manifest: Manifest, command: str, overwrite: bool) -> None:
    import msgspec

    from mien.files import whole_file
    from mien.report.judged import judgement_page, judgement_text

    made = {
        ".html": lambda: judgement_page(found, told, manifest, command).encode(),
        ".md": lambda: judgement_text(found, command).encode(),
        ".json": lambda: msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n",
    }
    if out.suffix not in made:
        raise ConfigError(f"{out}: a report is .html, .md or .json")
    with whole_file(out, overwrite) as part:
        part.write_bytes(made[out.suffix]())


def _show(found: Judgement) -> None:
    from rich.console import Console
    from rich.table import Table

    from mien.report.judged import lines

    table = Table("measure", "value", "95 % interval", title=f"{found.model} on {found.data}")
    for row in lines(found):
        table.add_row(*row)
    expression = found.scores.expression
    if expression is not None:
        for name, one in expression.classes.items():
            table.add_row(f"recall {name}", f"{one.recall:.1%}", f"precision {one.precision:.1%}")
    if found.without_copies is not None and found.without_copies.expression is not None:
        clean = found.without_copies.expression
        table.add_row(f"accuracy without {found.copies:,} copies", f"{clean.accuracy:.2%}", f"{clean.rows:,} faces")
    Console().print(table)


def _need() -> None:
    try:
        import jinja2  # noqa: F401
        import pyarrow  # noqa: F401
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Judging needs pyarrow and scikit-learn", "data") from error
