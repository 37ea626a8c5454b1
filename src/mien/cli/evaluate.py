"""mien evaluate: how right a model is on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.errors import MissingExtra

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.evaluation.metrics import ExpressionScores
    from mien.evaluation.predictions import Predictions


def evaluate(
    model: Annotated[str, typer.Argument(help="A model's name or .onnx file, or a weights.safetensors or run folder.")],
    data: Annotated[Path, typer.Option(help="The dataset's folder or file.")],
    source: Annotated[str, typer.Option(help="The dataset's source.")] = "ferplus",
    split: Annotated[
        str, typer.Option(help="The dataset's word for the split, or train, validation, test.")
    ] = "validation",
    rule: Annotated[str, typer.Option(help="For votes: majority, distribution or plain.")] = "majority",
    json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Judge a model: accuracy with its interval, macro-F1, recalls, calibration error."""
    scores = judge(model, data, source, split, rule)
    if json:
        import msgspec

        print(msgspec.json.encode(scores).decode())
    else:
        _show(scores, f"{Path(model).name} on {source} {split}" + (f" ({rule})" if source == "ferplus" else ""))


def judge(model: str, data: Path, source: str, split: str, rule: str) -> ExpressionScores:
    """The scores of a model on a split of a dataset, or of a manifest file."""
    try:
        from mien.data.manifest import Manifest, is_manifest
        from mien.data.sources import read_source
        from mien.data.sources import source as find
        from mien.evaluation.metrics import score_expression
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Judging needs pyarrow and scikit-learn", "data") from error
    if is_manifest(data):
        manifest = Manifest.read(data).split(split)
    else:
        word = find(source).card.split(split)
        manifest = read_source(source, data, rule).split(word)
    return score_expression(predictions_of(model, manifest), manifest)


def predictions_of(model: str, manifest: Manifest) -> Predictions:
    """What a model says of the rows of a manifest: its chips, or its pictures cut as the model wants them."""
    import msgspec

    from mien.data.prepare import prepare
    from mien.errors import ConfigError
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
    chips = manifest if manifest.header.crop is not None else prepare(manifest, spec, finder).chips
    return predict(classifier, LabelSet(classifier.spec.labels), chips)


def _session(model: str):  # type: ignore[no-untyped-def]
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


def _show(scores: ExpressionScores, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    low, high = scores.interval
    head = Table("measure", "value", title=title)
    head.add_row("rows", f"{scores.rows:,}")
    head.add_row("accuracy", f"{scores.accuracy:.2%}  (95 %: {low:.2%} to {high:.2%})")
    head.add_row("macro F1", f"{scores.macro_f1:.2%}")
    head.add_row("macro recall", f"{scores.macro_recall:.2%}")
    head.add_row("ECE", f"{scores.ece:.2%}")
    for name, recall in scores.recalls.items():
        head.add_row(f"recall {name}", f"{recall:.1%}")
    Console().print(head)
