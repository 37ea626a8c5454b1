"""What optional outputs of a model file cost: time for one face on one thread, and bytes.

    python benchmarks/outputs.py [RUN ...]      # without runs: untrained networks of our own

Times are medians of rounds that take the files in turn, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from mien.export.onnx import export_onnx
from mien.labels import label_set
from mien.models.network import build_network
from mien.models.weights import load_weights, save_weights
from mien.runtime.explain import GRID
from mien.runtime.sessions import OnnxSession
from mien.sections import NetworkSection
from mien.spec import CropSpec, ModelSpec, Output

CHOICES: dict[str, tuple[Output, ...]] = {
    "none": (),
    "features": ("features",),
    "maps": ("maps",),
    "both": ("maps", "features"),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=400)
    given = parser.parse_args()
    print("| network | outputs | ms a face | more | bytes more |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        weights = [run / "weights.safetensors" for run in given.runs] or untrained(Path(folder))
        for file in weights:
            print("\n".join(lines(file, Path(folder), given.rounds)))
    print(f"\nCovering parts of the face instead asks the model for {GRID * GRID + 1} more chips a face.")


def untrained(folder: Path) -> list[Path]:
    """Weights of our own networks as they are before training."""
    found = []
    for name in ("mien-small", "mien-nano"):
        section, crop = NetworkSection(backbone=name), CropSpec(width=48, height=48, colour="grey")
        labels = label_set("affectnet8")
        spec = ModelSpec(
            name=name, labels=labels.names, crop=crop, affect="circumplex", network=msgspec.to_builtins(section)
        )
        save_weights(folder / f"{name}.safetensors", build_network(section, labels, crop), spec)
        found.append(folder / f"{name}.safetensors")
    return found


def lines(weights: Path, folder: Path, rounds: int) -> list[str]:
    """The table's lines for one network."""
    name, files = load_weights(weights)[1].name, {}
    for choice, outputs in CHOICES.items():
        files[choice] = folder / f"{name}-{choice}.onnx"
        export_onnx(weights, files[choice], overwrite=True, outputs=outputs)
    sessions = {choice: OnnxSession(file, 1) for choice, file in files.items()}
    crop = next(iter(sessions.values())).spec.crop
    chips = np.random.default_rng(0).uniform(0, 255, (1, 3, crop.height, crop.width)).astype(np.float32)
    times: dict[str, list[float]] = {choice: [] for choice in CHOICES}
    for number in range(rounds + 20):
        for choice, session in sessions.items():
            start = time.perf_counter()
            session.run_all(chips)
            if number >= 20:
                times[choice].append(time.perf_counter() - start)
    bare, size = np.median(times["none"]), files["none"].stat().st_size
    return [
        f"| {name} | {choice} | {1000 * np.median(times[choice]):.3f} | {np.median(times[choice]) / bare - 1:+.1%} "
        f"| {files[choice].stat().st_size - size:+,} |"
        for choice in CHOICES
    ]


if __name__ == "__main__":
    main()
