"""mien export: from a run to a model file with its card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from mien.spec import Output


def export(
    run: Annotated[Path, typer.Argument(help="A run folder or a weights.safetensors.")],
    out: Annotated[Path | None, typer.Option(help="The model file (.onnx); by default RUN/model.onnx.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Measure on this FER+ folder's PublicTest; write figures and card.")
    ] = None,
    explain: Annotated[
        bool, typer.Option(help="Give the file an output `maps`: where in the face it sees each expression.")
    ] = False,
    features: Annotated[bool, typer.Option(help="Give it an output `features`: the vector before the heads.")] = False,
    half: Annotated[bool, typer.Option(help="Keep the weights in half precision: half the size, as fast.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Write the model as ONNX. The file must answer as the network does, or it is not written."""
    try:
        from mien.export.onnx import export_detector, export_onnx
        from mien.models.weights import load_weights, weights_kind
        from mien.report.card import model_card
    except ModuleNotFoundError as error:
        raise MissingExtra.of("Exporting needs PyTorch and onnx", "train") from error
    from mien.files import check_free, whole_file

    weights = run / "weights.safetensors" if run.is_dir() else run
    out = out or weights.with_name("model.onnx")
    if out.suffix != ".onnx":
        raise ConfigError(f"{out}: a model's file ends in .onnx")
    for suffix in (".onnx", ".json", ".md") if data else (".onnx", ".json"):
        check_free(out.with_suffix(suffix), overwrite)
    metrics, scores = {}, None
    if weights_kind(weights) == "detector":
        if explain or features or half:
            raise ConfigError("--explain, --features, --half: for expression models; this is a face detector")
        if data:
            raise ConfigError(
                "--data: judges expressions; benchmarks/detector.py judges a detector and writes its card"
            )
        return _said(out, export_detector(weights, out, overwrite=overwrite))
    if data:
        from mien.cli.judging import Asked, judged

        scores = judged([str(weights)], Asked(data, split="PublicTest", rule="majority", copies=True))[0][0]
        if scores.scores.expression is None:
            raise ConfigError(f"--data: {run} answers valence and arousal alone; FER+ has no such annotations")
        metrics = {
            f"ferplus/PublicTest/majority/{name}": round(getattr(scores.scores.expression, name), 5)
            for name in ("accuracy", "macro_f1", "macro_recall", "ece")
        }
    outputs: list[Output] = [*(["maps"] if explain else []), *(["features"] if features else [])]  # type: ignore[list-item]
    difference = export_onnx(weights, out, metrics, overwrite, outputs, half)
    if scores is not None:
        with whole_file(out.with_suffix(".md"), overwrite) as part:
            part.write_text(model_card(load_weights(weights)[1], scores, out), encoding="utf-8")
    return _said(out, difference)


def _said(out: Path, difference: float) -> None:
    print(f"model: {out} ({out.stat().st_size / 1e6:.2f} MB); largest difference from the network {difference:.1e}")
