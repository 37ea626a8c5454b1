"""mien ensemble: several models as one: judged beside its members, kept as answers, written as one file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.judging import Data, Json, Labels, Overwrite, Rule, Source, Tta, is_table, model_names, need
from mien.errors import ConfigError, DataError, MissingExtra, near_miss

if TYPE_CHECKING:
    import numpy as np

    from mien.data.manifest import Manifest
    from mien.evaluation.ensemble import EnsembleScores, MemberScores
    from mien.evaluation.predictions import Predictions

#: What all members say of the rows of a manifest, in its order.
Ask = Callable[["Manifest"], "list[Predictions]"]


def ensemble(
    models: Annotated[
        list[str], typer.Argument(help="Two or more: models, runs, or tables of predictions (.csv, .parquet).")
    ],
    data: Data,
    source: Source = "ferplus",
    split: Annotated[str, typer.Option(help="The split that judges.")] = "validation",
    rule: Rule = None,
    labels: Labels = None,
    mean: Annotated[str, typer.Option(help="Of: probabilities or logits.")] = "probabilities",
    weights: Annotated[
        str,
        typer.Option(help="equal; fitted (least loss) or greedy (Caruana 2004) on --select; or numbers with commas."),
    ] = "equal",
    select: Annotated[str | None, typer.Option(help="The split by whose rows weights are chosen.")] = None,
    tta: Tta = None,
    predictions: Annotated[Path | None, typer.Option(help="Keep the answers as .csv or .parquet.")] = None,
    out: Annotated[Path | None, typer.Option(help="One model file (.onnx) with all members inside.")] = None,
    json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Judge an ensemble beside its members; keep its answers, or write it as one file."""
    import msgspec

    names = _check(models, mean, weights, select, out, tta)
    need()
    from mien.cli.judging import figures_place, rows
    from mien.evaluation.ensemble import choose_weights, judge_ensemble
    from mien.evaluation.predictions import predictions_kind, write_predictions
    from mien.files import check_free

    predictions_kind(predictions)
    for place in filter(None, (predictions, out, out and out.with_suffix(".json"))):
        check_free(place, overwrite)
    logits, chosen_on = mean == "logits", ""
    with tempfile.TemporaryDirectory() as folder:
        files = _files(models, Path(folder)) if out else models
        ask = _asker(files, names, labels, tta)
        judging = rows(data, source, split, rule, labels)[1]
        if select is None:
            share = _given(weights, len(models))
        else:
            selecting = rows(data, source, select, rule, labels)[1]
            share = choose_weights(weights, ask(selecting), selecting, names, logits)
            chosen_on = f"{selecting.header.source}, {select}: {len(selecting):,} rows, {weights}"
        if out is not None:
            _check_share(share, names)
        same = select is not None and selecting.ids == judging.ids
        found, answers = judge_ensemble(ask(judging), names, share, judging, logits, chosen_on, same)
        if predictions is not None:
            write_predictions(answers, predictions, overwrite)
        if json:
            print(msgspec.json.encode(found).decode())
        else:
            _show(found, split)
        if out is not None:
            said = not (tta or labels or found.optimistic)  # figures of what the file itself answers
            _export(files, share, out, found, figures_place(judging, split) if said else "", overwrite)
    for path in (predictions, out):
        if path is not None and not json:
            print(f"written: {path} ({path.stat().st_size / 1e6:.2f} MB)")


def _check(
    models: list[str], mean: str, weights: str, select: str | None, out: Path | None, tta: str | None
) -> list[str]:
    """The members' names. Raises ConfigError for what cannot be asked."""
    if len(models) < 2:
        raise ConfigError("an ensemble needs two or more members")
    if len({Path(model).resolve() for model in models}) < len(models):
        raise ConfigError("ensemble: a member is named twice; let it count more with --weights 2,1")
    if tta and any(map(is_table, models)):
        raise ConfigError(
            f"--tta: {next(filter(is_table, models))} is a table of answers; only a model can be asked again"
        )
    if mean not in {"probabilities", "logits"}:
        raise ConfigError(f"--mean {mean}: {near_miss(mean, ['probabilities', 'logits'])}")
    if out is not None and out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out}: a model's file ends in .onnx")
    chosen = weights in {"fitted", "greedy"}
    if chosen and select is None:
        raise ConfigError(
            f"--weights {weights}: chooses by rows; name their split with --select, another than the one that judges"
        )
    if select is not None and not chosen:
        raise ConfigError(f"--select: --weights {weights} chooses nothing; say --weights fitted or --weights greedy")
    if not chosen:
        _given(weights, len(models))
    return model_names(models)


def _check_share(share: np.ndarray, names: list[str]) -> None:
    """Raises ConfigError where fewer than two members count: that is no ensemble, and no file of one."""
    if (share > 0).sum() < 2:
        raise ConfigError(f"ensemble: only {names[int(share.argmax())]} has a weight above 0; use it without --out")


def _given(weights: str, count: int) -> np.ndarray:
    """Equal weights, or those in a text with commas; they add up to 1."""
    import numpy as np

    if weights == "equal":
        return np.full(count, 1 / count)
    try:
        numbers = np.array([float(part) for part in weights.split(",")])
    except ValueError:
        choices = ["equal", "fitted", "greedy", "numbers with commas"]
        raise ConfigError(f"--weights {weights}: {near_miss(weights, choices)}") from None
    if len(numbers) != count or not (numbers >= 0).all() or not 0 < numbers.sum() < np.inf:
        raise ConfigError(f"--weights {weights}: expected {count} numbers, none below 0, not all of them 0")
    return numbers / numbers.sum()


def _files(models: list[str], folder: Path) -> list[str]:
    """The members' model files, runs exported into `folder`, if they fit into one. Raises ConfigError, MissingExtra."""
    try:
        from mien.export.ensemble import same_form
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Writing a model file needs onnx", "export") from error
    from mien.runtime.sessions import read_spec

    files = [as_file(model, folder / f"{number}.onnx") for number, model in enumerate(models)]
    same_form(models, [read_spec(file) for file in files])
    return files


def as_file(model: str, out: Path) -> str:
    """The model file of a name or a path; a run is exported to `out` first. Raises ConfigError for a table of answers."""
    from mien.runtime.store import model_file

    path = Path(model)
    if is_table(model):
        raise ConfigError(f"{model}: a table of answers and no model; it cannot go into a file")
    if not (path.is_dir() or path.suffix.lower() == ".safetensors"):
        return str(model_file(model))
    try:
        from mien.export.onnx import export_onnx
        from mien.models.weights import weights_file
    except ModuleNotFoundError as error:
        raise MissingExtra.of("A run becomes a file with PyTorch and onnx", "train") from error
    export_onnx(weights_file(path)[0], out)
    return str(out)


def _asker(files: list[str], names: list[str], labels: str | None, tta: str | None) -> Ask:
    from mien.cli.judging import answers
    from mien.evaluation.averaging import averaging_kinds
    from mien.evaluation.metrics import aligned

    averaging_kinds(tta)

    def ask(manifest: Manifest) -> list[Predictions]:
        found = []
        for file, name in zip(files, names, strict=True):
            told = answers(file, manifest, tta, labels is not None)
            if told.labels != manifest.labels:
                raise DataError(
                    f"ensemble: {name} answers {', '.join(told.labels)}; the data has {', '.join(manifest.labels)}; "
                    "choose a common set with --labels"
                )
            found.append(aligned(told, manifest))
        return found

    return ask


def _export(files: list[str], share: np.ndarray, out: Path, found: EnsembleScores, place: str, overwrite: bool) -> None:
    """place: of the rows that judged, for the spec's figures; empty where they are not those of the file."""
    from mien.export.ensemble import export_ensemble

    names = ("accuracy", "macro_f1", "ece") if place else ()
    metrics = {f"{place}/{name}": round(getattr(found.ensemble, name), 5) for name in names}
    export_ensemble(files, share.tolist(), out, found.mean, found.chosen_on, metrics, overwrite)


def _show(found: EnsembleScores, split: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mien.cli.tables import print_table

    title = f"mean of {found.mean}, on {found.data}, {split}: {found.rows:,} rows"
    table = Table(
        "member", "weight", "accuracy", "95 % interval", "macro F1", "macro recall", "NLL", "ECE", title=title
    )
    for member in found.members:
        table.add_row(escape(member.name), f"{member.weight:.3f}", *_cells(member))
    table.add_section()
    table.add_row("ensemble", "", *_cells(found.ensemble), style="bold")
    print_table(table)
    gain, (low, high) = found.gain.difference, found.gain.interval
    print(
        f"gain over the best member here ({found.best}): {100 * gain:+.2f} points, 95 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}, McNemar's p {found.gain.p:.2g}: {'real' if found.real else 'not shown to be real'}"
    )
    if found.chosen_on:
        print(f"weights chosen on: {found.chosen_on}")
    if found.optimistic:
        print("CAUTION: the weights were chosen on the rows that judge here; these figures are optimistic")


def _cells(one: MemberScores) -> list[str]:
    low, high = one.interval
    shares = [f"{one.accuracy:.2%}", f"{low:.2%} to {high:.2%}", f"{one.macro_f1:.2%}", f"{one.macro_recall:.2%}"]
    return [*shares, f"{one.nll:.3f}", f"{one.ece:.2%}"]
