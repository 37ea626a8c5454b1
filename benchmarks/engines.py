"""The tables of docs/bench.md: the shipped models in float and in int8, and system E's two networks, on every engine that is here.

    python benchmarks/engines.py FOLDER --data FER2013 [--seconds S]

FOLDER keeps the int8 files (calibrated on FER+ train faces of FER2013) and the pair (random weights) for the next time. What is printed is
`mien bench --markdown`; FOLDER/bench.json keeps it for `mien bench A.json B.json`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from pair import RECIPES, write

from mien.runtime.bench import shipped
from mien.runtime.sessions import read_spec
from mien.runtime.store import model_file

FORMS = {"onnx-int8": "-int8.onnx", "openvino-int8": "-openvino-int8.xml"}  # each keeps its spec beside it


def mien(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mien", *map(str, words)], check=True)


def files(folder: Path, data: Path, models: list[str]) -> list[Path]:
    """Every file besides the shipped ones, made if it is not there."""
    found = []
    for model in models:
        for form, ending in FORMS.items():
            place = folder / f"{model}{ending}"
            if not place.is_file():
                mien("export", model, "--to", form, "--calibrate", data, "--source", "ferplus", "--out", place)
            found.append(place)
    for name in RECIPES:
        place = folder / f"{name}.onnx"
        found.append(place if place.is_file() else write(name, folder))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    models = [name for name in shipped() if read_spec(model_file(name)).precision != "int8"]  # int8 is made here
    lines = [*models, *files(args.folder, args.data, [name for name in models if name.startswith("ferplus")])]
    keep = args.folder / "bench.json"
    mien("bench", *lines, "--seconds", args.seconds, "--markdown", "--json", keep, "--overwrite")


if __name__ == "__main__":
    main()
