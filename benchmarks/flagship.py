"""How good, steady and fast the expression models inside the package are: the figures of their cards, from the shipped files.

    python benchmarks/flagship.py --data FER2013 --scenes SCENES [--models NAME ...] [--photos DIR] [--pair FOLDER] [--out FILE]

FER2013: the folder of `mien data read fer2013` (with FER+ votes). SCENES: a folder with heads.parquet and backgrounds.parquet; its test
side is used. FOLDER: the two MobileNetV2 files of system E, exported by `benchmarks/pair.py`, for the comparison of speed.
PublicTest judges; nothing here is chosen on it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from turns import times

from mien.cli.judging import predictions_of
from mien.data.manifest import Manifest
from mien.data.scenes import read_grounds, read_heads
from mien.data.sources import read_source
from mien.evaluation.affect import score_affect
from mien.evaluation.judgement import Judgement, copies_in_training, judge
from mien.faces import Face
from mien.labels import affect_means
from mien.runtime.classify import Classifier
from mien.runtime.detect import Detector, open_detector
from mien.runtime.sessions import open_onnx, open_session
from mien.runtime.store import model_file
from mien.vision.image import read_image

MODELS = (
    "ferplus-small",
    "ferplus-small-int8",
    "ferplus-nano",
    "ferplus-nano-int8",
    "fer2013-small",
    "fer2013-small-int8",
    "fer2013-nano",
    "fer2013-nano-int8",
)
Seen = tuple[np.ndarray, Face]  # an RGB picture and a face in it


def truth(model: str, data: Path) -> Manifest:
    """FER+ by the majority rule for the models of votes, FER2013's labels for the others."""
    return read_source("ferplus", data, "majority") if model.startswith("ferplus") else read_source("fer2013", data)


def judged(model: str, whole: Manifest, tta: str | None = None) -> Judgement:
    rows = whole.split("validation")
    copies = None if tta else copies_in_training(rows, whole.split("train"))
    return judge(model, predictions_of(model, rows, tta), rows, copies)


def accuracy_lines(models: list[str], data: Path) -> list[str]:
    lines = [
        "| model | faces | accuracy, one pass | 95 % | with the mirror image | without copies | macro recall | macro F1 | ECE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model in models:
        whole = truth(model, data)
        found, both = judged(model, whole), judged(model, whole, "flip").scores.expression
        one, clean = found.scores.expression, found.without_copies.expression
        low, high = one.interval
        lines.append(
            f"| {model} | {one.rows:,} | {one.accuracy:.2%} | {low:.1%} to {high:.1%} | {both.accuracy:.2%} | {clean.accuracy:.2%} of {clean.rows:,} "
            f"| {one.macro_recall:.1%} | {one.macro_f1:.1%} | {one.ece:.1%} |"
        )
    return lines


def affect_lines(models: list[str], data: Path) -> list[str]:
    """Against the valence and arousal that FER+ votes imply (vote shares times class means): no rating of people."""
    rows = read_source("ferplus", data, "distribution").split("validation")
    implied = rows.targets() @ affect_means(rows.labels)
    lines = ["| model | RMSE valence, arousal | CCC valence, arousal |", "|---|---|---|"]
    for model in models:
        if model.startswith("ferplus"):
            s = score_affect(predictions_of(model, rows).affect, implied)
            lines.append(f"| {model} | {s.rmse[0]:.3f}, {s.rmse[1]:.3f} | {s.ccc[0]:.3f}, {s.ccc[1]:.3f} |")
    return lines


def seen_faces(scenes: Path, photos: Path | None, finder: Detector) -> list[Seen]:
    """Faces in the test heads (one each) and in photographs, as the detector finds them."""
    heads = [cv2.cvtColor(head.picture, cv2.COLOR_GRAY2RGB) for head in read_heads(scenes, finder, "test", 0.5)]
    seen = [(picture, finder(picture)[0]) for picture in heads]
    for path in sorted(photos.glob("*.jpg")) if photos else []:
        picture = read_image(path)
        seen += [(picture, face) for face in finder(picture)]
    return seen


def jittered(picture: np.ndarray, face: Face) -> Seen:
    """Half a pixel of the picture, to the right and down."""
    x0, y0, x1, y1 = face.box
    return picture, replace(face, box=(x0 + 0.5, y0 + 0.5, x1 + 0.5, y1 + 0.5), landmarks=face.landmarks + 0.5)


def rolled(degrees: float) -> Callable[[np.ndarray, Face], Seen]:
    """The landmarks turned about their middle, so that the chip is cut askew."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def change(picture: np.ndarray, face: Face) -> Seen:
        middle = face.landmarks.mean(axis=0)
        turned = (face.landmarks - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle
        return picture, replace(face, landmarks=turned)

    return change


def mirrored(picture: np.ndarray, face: Face) -> Seen:
    width, (x0, y0, x1, y1) = picture.shape[1], face.box
    points = np.stack([width - face.landmarks[:, 0], face.landmarks[:, 1]], axis=1)[[1, 0, 2, 4, 3]]
    return np.ascontiguousarray(picture[:, ::-1]), replace(face, box=(width - x1, y0, width - x0, y1), landmarks=points)


def on_pixels(change: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[np.ndarray, Face], Seen]:
    """A change of the picture alone; it is told how many pixels of the picture one pixel of a 48 pixel chip is."""

    def both(picture: np.ndarray, face: Face) -> Seen:
        return change(picture, face.size / 48), face

    return both


def jpeg(picture: np.ndarray, _: float) -> np.ndarray:
    return read_image(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes())


CHANGES: dict[str, Callable[[np.ndarray, Face], Seen]] = {
    "half a pixel of box jitter": jittered,
    "roll of +15 degrees": rolled(15),
    "roll of -15 degrees": rolled(-15),
    "brightness x0.4": on_pixels(lambda picture, _: cv2.convertScaleAbs(picture, alpha=0.4)),
    "brightness x2.5": on_pixels(lambda picture, _: cv2.convertScaleAbs(picture, alpha=2.5)),
    "blur of 0.7 chip pixels": on_pixels(lambda picture, step: cv2.GaussianBlur(picture, (0, 0), 0.7 * max(step, 0.3))),
    "JPEG of quality 40": on_pixels(jpeg),
    "mirror image": mirrored,
}


def steady_lines(models: list[str], seen: list[Seen]) -> list[str]:
    """Share of faces whose top label changes, and the mean absolute shift of valence and arousal."""
    head = " | ".join(f"{model}: flips, valence, arousal" for model in models)
    lines = [f"| change | {head} |", "|---" * (len(models) + 1) + "|"]
    readers = [Classifier(open_session(model_file(model), 1)) for model in models]
    plain = [answers(reader, seen) for reader in readers]
    for name, change in CHANGES.items():
        changed = [change(picture, face) for picture, face in seen]
        cells = []
        for reader, (labels, affect) in zip(readers, plain, strict=True):
            other, moved = answers(reader, changed)
            shift = np.abs(moved - affect).mean(axis=0)
            cells.append(f"{(labels != other).mean():.1%}, {shift[0]:.3f}, {shift[1]:.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def answers(reader: Classifier, seen: list[Seen]) -> tuple[np.ndarray, np.ndarray]:
    probabilities, affect = reader.run(np.stack([reader.chip(picture, face) for picture, face in seen]))
    return probabilities.argmax(axis=1), affect


def pasted(chip: np.ndarray, ground: np.ndarray, side: int) -> np.ndarray:
    """A FER2013 face, enlarged, in the middle of a ground of 320x320 pixels."""
    picture = cv2.cvtColor(cv2.resize(ground, (320, 320), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    face = cv2.resize(chip, (side, side), interpolation=cv2.INTER_CUBIC)
    start = (320 - side) // 2
    picture[start : start + side, start : start + side] = face
    return picture


def gap_lines(
    models: list[str], data: Path, grounds: list[np.ndarray], finder: Detector, count: int = 600
) -> list[str]:
    """The same FER2013 faces, cropped by the dataset and found by the detector in a larger picture."""
    rows = read_source("ferplus", data, "majority").split("validation")
    rows = rows.take(np.random.default_rng(0).permutation(len(rows))[:count])
    chips = [read_image(sample.image) for sample in rows]
    pictures = [pasted(chip, grounds[i % len(grounds)], 144) for i, chip in enumerate(chips)]
    found = [finder(picture) for picture in pictures]
    central = [next((face for face in faces if in_middle(face)), None) for faces in found]
    kept = [i for i, face in enumerate(central) if face is not None]
    lines = [
        f"Of {count} faces, each on a picture of 320 pixels, the detector finds {len(kept)}. On these:",
        "",
        "| model | same label as on the dataset's crop | affect, mean shift | accuracy on the crop | accuracy as found |",
        "|---|---|---|---|---|",
    ]
    wanted = rows.targets().argmax(axis=1)[kept]
    for model in models:
        reader = Classifier(open_session(model_file(model), 1))
        a, affect = reader.run(np.stack([chips[i] for i in kept]))
        b, moved = reader.run(np.stack([reader.chip(pictures[i], central[i]) for i in kept]))
        right = [f"{(p.argmax(axis=1) == wanted).mean():.1%}" if model.startswith("ferplus") else "-" for p in (a, b)]
        same, shift = (a.argmax(axis=1) == b.argmax(axis=1)).mean(), np.abs(affect - moved).mean(axis=0)
        lines.append(f"| {model} | {same:.1%} | {shift[0]:.3f}, {shift[1]:.3f} | {right[0]} | {right[1]} |")
    return lines


def in_middle(face: Face) -> bool:
    x0, y0, x1, y1 = face.box
    return x0 < 160 < x1 and y0 < 160 < y1 and face.size > 60


def no_face_lines(models: list[str], grounds: list[np.ndarray]) -> list[str]:
    """How sure the models are on crops of photographs without a face (they were not taught to refuse)."""
    rng = np.random.default_rng(0)
    crops = []
    for ground in grounds:
        for _ in range(5):
            side = int(rng.integers(48, min(ground.shape)))
            y, x = (int(rng.integers(0, edge - side + 1)) for edge in ground.shape)
            small = cv2.resize(ground[y : y + side, x : x + side], (48, 48), interpolation=cv2.INTER_AREA)
            crops.append(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB))
    lines = ["| model | mean confidence | share above 0.5 | above 0.8 |", "|---|---|---|---|"]
    for model in models:
        top = Classifier(open_session(model_file(model), 1)).run(np.stack(crops))[0].max(axis=1)
        lines.append(f"| {model} | {top.mean():.2f} | {(top > 0.5).mean():.0%} | {(top > 0.8).mean():.0%} |")
    return [f"{len(crops)} crops of {len(grounds)} photographs:", "", *lines]


def speed_lines(models: list[str], pair: Path | None) -> list[str]:
    calls: dict[str, Callable[[], object]] = {}
    for model in models:
        reader = Classifier(open_session(model_file(model), 1))
        chip = np.full((reader.spec.crop.height, reader.spec.crop.width, 3), 128, np.uint8)
        calls[model] = lambda reader=reader, chip=chip: reader.read([chip])
    files = sorted(pair.glob("*.onnx")) if pair else []
    for path in files:
        session, chips = open_onnx(path, 1), np.full((1, 3, 224, 224), 128, np.float32)
        calls[path.stem] = lambda session=session, chips=chips: session.run(None, {"chips": chips})
    alone, many = times(calls), times(calls, before=5)
    pairs = [sum(ms[path.stem] for path in files) for ms in (alone, many)]
    lines = [
        "| one thread, chip to answer | size | ms, after the line above | times as fast as the pair | ms, one of many faces | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        cells = [
            f"{ms[model]:.2f} | {f'{both / ms[model]:.0f}' if files else '-'}"
            for ms, both in zip((alone, many), pairs, strict=True)
        ]
        lines.append(f"| {model} | {model_file(model).stat().st_size / 1e6:.2f} MB | {' | '.join(cells)} |")
    if files:
        size = sum(path.stat().st_size for path in files) / 1e6
        lines.append(
            f"| the two MobileNetV2 of affectnet8- and affectnet-affect-mobilenetv2 | {size:.1f} MB | {pairs[0]:.2f} | 1 | {pairs[1]:.2f} | 1 |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--models", nargs="+", default=[name for name in MODELS if shipped(name)])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    finder = open_detector("auto", Classifier(open_session(model_file(args.models[0]), 1)).spec.crop, 1)
    grounds = read_grounds(args.scenes, "test")
    seen = seen_faces(args.scenes, args.photos, finder)
    parts = {
        "On PublicTest": accuracy_lines(args.models, args.data),
        "Valence and arousal against those that the votes imply": affect_lines(args.models, args.data),
        f"Steadiness, on {len(seen)} faces of another origin": steady_lines(args.models, seen),
        "Found in a picture against cropped by the dataset": gap_lines(args.models, args.data, grounds, finder),
        "On what is no face": no_face_lines(args.models, grounds),
        "Speed": speed_lines(args.models, args.pair),
    }
    text = "\n".join(line for title, lines in parts.items() for line in (f"## {title}", "", *lines, ""))
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def shipped(name: str) -> bool:
    try:
        return model_file(name).is_file()
    except (FileNotFoundError, ValueError):
        return False


if __name__ == "__main__":
    main()
