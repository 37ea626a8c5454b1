"""Writes system E's two MobileNetV2 (classifier and regressor, 224 pixels) as model files, to time others against them.

    python benchmarks/pair.py FOLDER

The weights are random: size and speed are those of the trained networks, answers are not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import msgspec

from mien.export.onnx import export_onnx
from mien.labels import label_set
from mien.models.network import build_network
from mien.models.weights import save_weights
from mien.recipe import load_recipe
from mien.spec import ModelSpec

RECIPES = ("affectnet8-mobilenetv2", "affectnet-affect-mobilenetv2")


def write(name: str, folder: Path) -> Path:
    recipe = load_recipe(name, ["network.pretrained=false"])
    labels = label_set(recipe.data.labels)
    spec = ModelSpec(
        name=name,
        labels=labels.names,
        crop=recipe.crop,
        affect=recipe.network.affect,
        expression=recipe.network.expression,
        licence="Apache-2.0",
        network=msgspec.to_builtins(recipe.network),
    )
    out = folder / f"{name}.onnx"
    with tempfile.TemporaryDirectory() as place:
        weights = Path(place) / "weights.safetensors"
        save_weights(weights, build_network(recipe.network, labels, recipe.crop).eval(), spec)
        export_onnx(weights, out, overwrite=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        path = write(name, folder)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
