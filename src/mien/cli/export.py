"""mien export: from a run or a model to a file for an engine, verified, with its spec and, where it is judged, its card."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mien.errors import ConfigError, ExportError, MienError, MissingExtra, OutputError
from mien.files import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mien.evaluation.judgement import Judgement
    from mien.export.targets import Made, Rows, Target
    from mien.recipe import Recipe
    from mien.spec import Output

#: Faces that set the ranges of an int8 file, and as many others that check it.
_FACES = 512
#: Share of a recipe's learning rate with which a finished network is taught to bear rounding.
_SLOWER = 0.02
_TEACH = "; --finetune RUN teaches the network to bear rounding (docs/export.md)"


def export(
    model: Annotated[str, typer.Argument(help="A run folder, a weights.safetensors, a model's name or an .onnx file.")],
    to: Annotated[
        str, typer.Option(help="onnx, onnx-fp16, onnx-int8, openvino, openvino-int8 or tensorrt (docs/export.md).")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file; by default model.onnx in the run, or NAME-TARGET.onnx here.")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="int8: a dataset or manifest; faces of its train split set the ranges.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Judge the file beside the float model on this dataset; write figures and card.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="The source of both: ferplus, if not given, or with --finetune the recipe's own; a manifest knows its own."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split of --data; PublicTest, or a manifest's validation.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=1024, help="tensorrt: for batches of exactly so many.")
    ] = None,
    finetune: Annotated[
        Path | None,
        typer.Option(
            help="int8: if that loses too much, train on with rounding into this run folder, and export that; on the "
            "recipe's own sources, or --source."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name in spec and card; by default that of the recipe or the model.")
    ] = None,
    explain: Annotated[
        bool, typer.Option(help="Give the file an output `maps`: where in the face it sees each expression.")
    ] = False,
    features: Annotated[bool, typer.Option(help="Give it an output `features`: the vector before the heads.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Write a model for an engine. The file must answer as the model does, within what its target allows, or it is not written."""
    try:
        from mien.export.targets import target
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Exporting needs onnx", "export") from error
    from mien.files import check_free

    kind = target(to)
    if _is_detector(model):
        _detector(
            model, to, out, overwrite, {"--data": data, "--name": name, "--explain": explain, "--features": features}
        )
        return
    _check({"--calibrate": calibrate, "--finetune": finetune}, kind.precision == "int8", "is for int8 targets")
    _check({"--batch": batch}, kind.name == "tensorrt", "is for tensorrt")
    place = out or _place(model, kind)
    if place.suffix.lower() != kind.suffix:
        raise ConfigError(f"{place}: the first file of --to {to} ends in {kind.suffix}")
    beside = [".bin"] if kind.suffix == ".xml" else []
    for suffix in (place.suffix, *beside, ".json", *([".md"] if data else [])):
        check_free(place.with_suffix(suffix), overwrite)
    outputs: list[Output] = [*(["maps"] if explain else []), *(["features"] if features else [])]  # type: ignore[list-item]
    taught = None if finetune is None else _taught(model, source, calibrate)
    own = taught.data.sources if taught is not None else ()
    read_as = source or (own[0] if len(own) == 1 else "ferplus")
    job = _Job(kind, place, data, calibrate, read_as, split, batch, name, outputs, overwrite)
    try:
        job.go(model)
    except ExportError as error:
        if finetune is None or taught is None:
            raise
        print(f"mien: {error}; training on with rounding: {finetune}", file=sys.stderr)
        job.go(str(_finetuned(model, taught, finetune, calibrate or Path())))


@dataclass(frozen=True)
class _Job:
    """One export as it was asked for."""

    kind: Target
    place: Path
    data: Path | None
    calibrate: Path | None
    source: str
    split: str | None
    batch: int | None
    name: str | None
    outputs: list[Output]
    overwrite: bool

    def go(self, model: str) -> None:
        """Make, compare, judge, publish, tell. Raises MienError; then nothing is left."""
        from mien.export.targets import make, publish

        kind, place = self.kind, self.place
        with _workroom(place) as folder:
            base = _float_file(model, folder, self.outputs)
            rows = None if self.calibrate is None else calibration_rows(self.calibrate, self.source, base)
            made = make(base, kind, folder, place.stem, rows, self.batch)
            made = made.restated(name=self.name) if self.name else made
            told: list[Judgement] = []
            if self.data is not None:
                split = _split(self.data, self.source, self.split)
                told, flipped, where = _judged(made, base, self.data, self.source, split)
                made = _with_figures(made, told[-1], where)
                command = _command(made, self.data, self.source, split)
            card = {".md": lambda: _card(made, told[-1], command)} if told else {}
            files = publish(made, place, self.overwrite, card)
            _say(made, files, base)
            if told:
                _say_change(told, flipped)


def _taught(model: str, source: str | None, data: Path | None) -> Recipe:
    """The recipe that goes on from a model for a few epochs with rounding, on its own sources if none is given.

    Raises ConfigError: no recipe of the model is known; several sources, of which `data` can be one alone.
    """
    from mien.recipe import DetectorRecipe, load_recipe

    name, network = _recipe_of(model)
    begun = load_recipe(name)
    assert not isinstance(begun, DetectorRecipe)
    settings = [
        *network,
        "data.auxiliary=none",
        "quantize.bits=8",
        "schedule={name: cosine, epochs: 3, warmup: 0.1}",
        "trainer.ema=0",
        "trainer.compile=false",
    ]
    settings += [f"optimizer.lr={begun.optimizer.lr * _SLOWER:g}", *([f"data.sources=[{source}]"] if source else [])]
    recipe = load_recipe(name, settings)
    assert not isinstance(recipe, DetectorRecipe)
    if len(recipe.data.sources) > 1 and data is not None:
        from mien.cli.judging import need

        need()
        from mien.data.manifest import is_manifest

        if not is_manifest(data):
            raise ConfigError(
                f"--finetune: {model} learned from {', '.join(recipe.data.sources)}; give --calibrate one manifest of them "
                "(mien data merge), or name the one to go on with: --source"
            )
    return recipe


def _recipe_of(model: str) -> tuple[str, list[str]]:
    """The recipe by which a run or a model was made, by its file or its name, with the settings of the network that it has by
    now. Raises ConfigError."""
    from mien.recipe import recipe_names
    from mien.runtime.sessions import read_spec
    from mien.runtime.store import model_file

    if _is_run(model):
        written = _weights(model).with_name("recipe.yaml")
        if _weights(model).name != "weights.safetensors" or not written.is_file():
            raise ConfigError(
                f"--finetune: {model} is no run with its recipe beside it, by which to train on; train on by hand, with "
                f"--init {model} (docs/export.md)"
            )
        return str(written), []
    spec = read_spec(model_file(model))
    if spec.name not in recipe_names():
        raise ConfigError(
            f"--finetune: {model} was made by no recipe that is known here ({spec.name!r}); give the run that it is of"
        )
    return spec.name, [f"network={msgspec.json.encode(spec.network).decode()}"]


def _finetuned(model: str, recipe: Recipe, run: Path, data: Path) -> Path:
    """A run that goes on from a model; an unfinished one is resumed. Raises MienError."""
    from mien.cli.train import tell, track

    try:
        from mien.training.fit import fit
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Training needs PyTorch and Lightning", "train") from error
    resume = (run / "recipe.yaml").is_file()
    fit(recipe, data, run, resume, None, track, sys.stderr.isatty(), None if resume else model, tell=tell)
    return run


def _check(options: dict[str, object], fits: bool, words: str) -> None:
    """Raises ConfigError: one of these options is given where it does not fit."""
    for name, value in options.items():
        if value and not fits:
            raise ConfigError(f"{name}: {words}")


@contextmanager
def _workroom(place: Path) -> Iterator[Path]:
    """A folder for files on the way, gone at the end. Raises OutputError where the disk is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="mien-export-") as folder:
            yield Path(folder)
    except OSError as error:
        if isinstance(error, MienError):
            raise
        raise OutputError(f"{place}: cannot be written ({error.strerror or error})") from error


def _is_run(model: str) -> bool:
    path = Path(model)
    return path.is_dir() or path.suffix.lower() == ".safetensors"


def _weights(model: str) -> Path:
    path = Path(model)
    return path / "weights.safetensors" if path.is_dir() else path


def _place(model: str, kind: Target) -> Path:
    """The name of the file where none is given."""
    if _is_run(model):
        weights = _weights(model)
        stem = "model" if weights.name == "weights.safetensors" else weights.stem
        return weights.with_name(f"{stem}{kind.mark}{kind.suffix}")
    place = Path(f"{Path(model).stem if Path(model).suffix else model}{kind.mark}{kind.suffix}")
    if place.resolve() == Path(model).resolve():
        raise ConfigError(f"{model}: is a model file already; name another with --out")
    return place


def _float_file(model: str, folder: Path, outputs: list[Output]) -> Path:
    """The float model file to start from: made of the run, or the model's own."""
    if not _is_run(model):
        from mien.runtime.store import model_file

        _check({"--explain": "maps" in outputs, "--features": "features" in outputs}, False, "needs a run")
        path = model_file(model)
        if path.suffix.lower() != ".onnx":
            raise ConfigError(f"{model}: exports begin with a run or an .onnx model")
        return path
    try:
        from mien.export.onnx import export_onnx
    except ModuleNotFoundError as error:
        raise MissingExtra.of("A run becomes a file with PyTorch and onnx", "train") from error
    base = folder / "float.onnx"
    export_onnx(_weights(model), base, outputs=outputs)
    return base


def _is_detector(model: str) -> bool:
    if not _is_run(model):
        return False
    try:
        from mien.models.weights import weights_kind
    except ModuleNotFoundError as error:
        raise MissingExtra.of("A run becomes a file with PyTorch and onnx", "train") from error
    return weights_kind(_weights(model)) == "detector"


def _detector(run: str, to: str, out: Path | None, overwrite: bool, options: dict[str, object]) -> None:
    from mien.export.onnx import export_detector

    _check(options, False, "is for expression models; this is a face detector (benchmarks/detector.py judges one)")
    if to != "onnx":
        raise ConfigError(f"--to {to}: a face detector is exported as onnx alone")
    place = out or _weights(run).with_name("model.onnx")
    if place.suffix.lower() != ".onnx":
        raise ConfigError(f"{place}: a model's file ends in .onnx")
    difference = export_detector(_weights(run), place, overwrite=overwrite)
    print(f"model: {place} ({place.stat().st_size / 1e6:.2f} MB); largest difference from the network {difference:.1e}")


def calibration_rows(data: Path, source: str, base: Path) -> Rows:
    """Faces of a dataset's train split, drawn with a fixed seed: half to set ranges by, half to check."""
    import numpy as np

    from mien.cli.judging import chips_of, need, rows
    from mien.export.targets import Rows
    from mien.runtime.classify import Classifier
    from mien.runtime.sessions import open_session

    need()
    from mien.data.prepare import chips
    from mien.evaluation.averaging import views

    manifest = rows(data, source, "train")[1]
    drawn = np.random.default_rng(0).permutation(len(manifest))[: 2 * _FACES]
    prepared = chips_of(manifest.take(sorted(drawn)), Classifier(open_session(base, 1, "onnx", "cpu")))
    pictures = chips(prepared)
    if pictures.shape[-1] == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    assert prepared.header.crop is not None
    plain = next(iter(views(pictures, prepared.header.crop.border, ())))
    order = np.random.default_rng(1).permutation(len(plain))
    faces = np.ascontiguousarray(plain[order].transpose(0, 3, 1, 2), np.float32)
    half = len(faces) // 2
    return Rows(f"{manifest.header.source} train", faces[:half], faces[half:])


def _split(data: Path, source: str, split: str | None) -> str:
    from mien.data.manifest import is_manifest

    return split or ("PublicTest" if source in ("ferplus", "fer2013") and not is_manifest(data) else "validation")


def _judged(made: Made, base: Path, data: Path, source: str, split: str) -> tuple[list[Judgement], str, str]:
    """The float model and the file, judged on the same rows; a plain file alone, as it answers as its source does. With
    how many labels differ, in words ('' for models without), and where the figures come from, for the spec.

    Raises ExportError: the file is worse by more than its target allows.
    """
    from mien.cli.judging import Asked, figures_place, judged, need
    from mien.export.verify import label_changes

    need()
    asked = Asked(data, source, split, copies=True)
    models = [str(made.files[0])] if made.target.name == "onnx" else [str(base), str(made.files[0])]
    told, said, manifest = judged(models, asked)
    for name, before, after in _figures(told):
        lost = 100 * (before - after)
        if lost > made.target.allowed.points:
            raise ExportError(
                f"--to {made.target.name}: {name} falls from {before:.4f} to {after:.4f} on {told[0].data}, by {lost:.2f} "
                f"points (allowed {made.target.allowed.points:g}); nothing was written{_TEACH if made.target.precision == 'int8' else ''}"
            )
    flipped = label_changes(said[0].probabilities, said[-1].probabilities)
    words = "" if flipped is None else f"{flipped} of {len(said[0].probabilities):,}"
    return told, words, figures_place(manifest, split)


def _figures(told: list[Judgement]) -> Iterator[tuple[str, float, float]]:
    """Accuracy and mean CCC, before and after, as far as the data have labels and affect."""
    first, last = told[0].scores, told[-1].scores
    if first.expression is not None and last.expression is not None:
        yield "accuracy", first.expression.accuracy, last.expression.accuracy
    if first.affect is not None and last.affect is not None:
        for name, before, after in zip(("valence", "arousal"), first.affect.ccc, last.affect.ccc, strict=True):
            yield f"CCC of {name}", before, after


def _with_figures(made: Made, judged: Judgement, place: str) -> Made:
    """With the judged figures in the spec, inside the file too."""
    if judged.scores.expression is None:
        return made
    figures = {
        f"{place}/{name}": round(getattr(judged.scores.expression, name), 5)
        for name in ("accuracy", "macro_f1", "macro_recall", "ece")
    }
    return made.restated(metrics=figures)


def _command(made: Made, data: Path, source: str, split: str) -> str:
    """The command that makes the figures of the card. A manifest knows its source; FER2013's folder is told by its name."""
    from mien.data.manifest import is_manifest
    from mien.runtime.store import ENTRIES

    file, name = made.files[0].name, made.spec.name
    words = ["mien", "evaluate", name if name in ENTRIES and ENTRIES[name].file == file else file, "--data"]
    if is_manifest(data):
        words.append(data.name)
    else:
        words += ["FER2013" if source in ("ferplus", "fer2013") else data.name or "DATA", "--source", source]
    return " ".join(map(quoted, [*words, "--split", split, "--without-copies"]))


def _card(made: Made, judged: Judgement, command: str) -> str:
    from mien.report.card import model_card

    return model_card(made.spec, judged, made.files[0], command)


def _say(made: Made, files: list[Path], base: Path) -> None:
    size, before = (sum(file.stat().st_size for file in some) / 1e6 for some in (made.files, [base]))
    print(f"model: {files[0]} ({size:.2f} MB; it was {before:.2f} MB)")
    print(f"against the float model on {made.on}: {made.difference}")
    if made.kept:
        print(f"kept in float, as the answers moved too far: {', '.join(made.kept)}")
    if made.line:
        print(f"next, on the machine with the card (not run here): {made.line}")


def _say_change(told: list[Judgement], flipped: str) -> None:
    for name, before, after in _figures(told):
        change = "" if len(told) == 1 else f", {before:.4f} before ({100 * (after - before):+.2f} points)"
        print(f"{name} on {told[0].data}: {after:.4f}{change}")
    if len(told) > 1 and flipped:
        print(f"labels flipped on {told[0].data}: {flipped}")
