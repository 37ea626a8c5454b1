"""How much of a FER2013 figure can be memory: faces of PublicTest that stand in Training once more, or nearly.

    python benchmarks/memory.py --data FER2013 [--model fer2013-small]

Many photographs of FER2013 came in twice, or out of one series. Each face of PublicTest is laid beside the most alike of
Training (correlation of the grey pictures at 12x12 pixels, mirrored too). Told per band of likeness: how often that
training face's label is right, which is what a network gets that has learned Training by heart, and how often the model is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from mien.cli.judging import predictions_of
from mien.data.manifest import Manifest
from mien.data.sources import read_source
from mien.vision.image import read_image

SIDE = 12
BANDS = (0.999, 0.99, 0.95, 0.9, -1.0)


def small(rows: Manifest) -> np.ndarray:
    """(n, 12, 12) float32 grey pictures, each of mean 0 and length 1."""
    found = np.empty((len(rows), SIDE, SIDE), np.float32)
    for row, sample in enumerate(rows):
        data = sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()
        grey = cv2.cvtColor(read_image(data), cv2.COLOR_RGB2GRAY)
        found[row] = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    found -= found.mean(axis=(1, 2), keepdims=True)
    return found / (np.linalg.norm(found, axis=(1, 2), keepdims=True) + 1e-6)


def nearest(asked: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of `known` that is most like each of `asked`, and how like: (n,) int, (n,) -1 to 1."""
    flat = known.reshape(len(known), -1).T
    like = np.maximum(*(side.reshape(len(asked), -1) @ flat for side in (asked, asked[:, :, ::-1])))
    return like.argmax(axis=1), like.max(axis=1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--model", default="fer2013-small")
    args = options.parse_args()

    whole = read_source("fer2013", args.data)
    rows, judged = whole.split("train"), whole.split("validation")
    labels, truth = rows.targets().argmax(axis=1), judged.targets().argmax(axis=1)
    said = predictions_of(args.model, judged)
    names = list(said.labels.names)
    right = (
        np.array([whole.labels.names[label] for label in truth]) == np.array(names)[said.probabilities.argmax(axis=1)]
    )
    at, like = nearest(small(judged), small(rows))
    known = labels[at] == truth

    print(f"| likeness | faces | label of the training face is right | {args.model} is right |\n|---|---|---|---|")
    above = np.inf
    for band in BANDS:
        those = (like >= band) & (like < above)
        print(
            f"| {f'{band:g} and more' if band > 0 else 'less'} | {those.sum()} | {known[those].mean():.1%} | {right[those].mean():.1%} |"
        )
        above = band
    print(
        f"\n{args.model}: {right.mean():.2%} of {len(truth)} faces. With the training face's label from a likeness of L on:"
    )
    for band in BANDS[:3]:
        print(f"  L = {band:g}: {np.where(like >= band, known, right).mean():.2%}")


if __name__ == "__main__":
    main()
