"""How well and how fast the detector inside the package finds faces, beside YuNet and OpenCV's old cascade.

    python benchmarks/detector.py --scenes SCENES --teacher yunet_n_dynamic.onnx [--photos DIR] [--picture FILE] [--card FILE]

SCENES: a folder with heads.parquet and backgrounds.parquet. Scenes are composed of heads (by person) and grounds of the test
side, which neither training nor the choice of the threshold saw. The reference is YuNet at each scene's own size and at half of it
(it knows no face of more than 300 pixels): its faces of at least 0.8 and 20 pixels must be found (recall). A found face is right if it
lies on a head that was composed into the scene, or if YuNet has it above 0.5 (precision; beside it, by YuNet alone).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from turns import times

import mien
from mien.data.distil import teach
from mien.data.scenes import Composer, read_grounds, read_heads
from mien.evaluation.detection import highest_threshold, match, on_disc, score_detection
from mien.faces import Face
from mien.report.card import detector_card
from mien.runtime.detect import GridDetector, as_faces
from mien.runtime.sessions import open_onnx
from mien.runtime.store import ENTRIES, fetch
from mien.vision.image import read_image

Found = list[list[Face]]
Discs = list[tuple[float, float, float]]
SEED = 20_000


def rgb(scene: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(scene, cv2.COLOR_GRAY2RGB)


def cascade() -> Callable[[np.ndarray], list[Face]] | None:
    """OpenCV's frontal-face cascade, its square narrowed to a tight box; OpenCV 5 has none."""
    if not hasattr(cv2, "CascadeClassifier"):
        return None
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))

    def find(image: np.ndarray) -> list[Face]:
        squares = cascade.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 1.1, 6, minSize=(18, 18))
        return [Face((x + 0.13 * w, y + 0.06 * h, x + 0.87 * w, y + 1.04 * h), 1.0) for x, y, w, h in squares]

    return find


def row(name: str, found: Found, wanted: Found, heads: Sequence[Discs]) -> str:
    s = score_detection(found, wanted)
    marks = "-" if math.isnan(s.landmarks) else f"{s.landmarks:.1%}"
    extra, on_heads = false_alarms(found, wanted, heads)
    right = 1 - (extra - on_heads) / max(s.found, 1)
    return f"| {name} | {s.recall:.1%} | {right:.1%} | {s.precision:.1%} | {marks} | {s.sure:,} | {s.found:,} |"


def by_band(found: Found, wanted: Found, value: Callable[[int, Face], float], edges: Sequence[float]) -> list[str]:
    """Recall of the sure faces (0.8, 20 px) whose value lies between two edges."""
    hit, total = [0] * (len(edges) - 1), [0] * (len(edges) - 1)
    for number, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        matched = {j for _, j in match(ours, theirs).pairs}
        for j, face in enumerate(theirs):
            band = int(np.searchsorted(edges, value(number, face), side="right")) - 1
            if face.score >= 0.8 and face.size >= 20 and 0 <= band < len(total):
                total[band] += 1
                hit[band] += j in matched
    return [f"{h / t:.1%} ({t})" if t else "-" for h, t in zip(hit, total, strict=True)]


def taught(teacher: ort.InferenceSession, scene: np.ndarray) -> list[Face]:
    """What YuNet finds on a scene at two sizes, as our detector was taught."""
    return as_faces(*teach(teacher, scene), scene.shape[0], 0.5)


def mirrored(teacher: ort.InferenceSession, scene: np.ndarray) -> list[Face]:
    """What it finds in the mirror image, turned back: how far it agrees with itself."""
    width, faces = scene.shape[1], []
    for face in taught(teacher, np.ascontiguousarray(scene[:, ::-1])):
        x0, y0, x1, y1 = face.box
        marks = np.stack([width - face.landmarks[:, 0], face.landmarks[:, 1]], axis=1)[[1, 0, 2, 4, 3]]
        faces.append(Face((width - x1, y0, width - x0, y1), face.score, marks))
    return faces


def at_recall(found: Found, wanted: Found, recall: float) -> Found:
    """The found faces at the highest threshold that has this recall."""
    best = highest_threshold(found, wanted, [round(0.5 + 0.01 * i, 2) for i in range(50)], recall)
    return [[face for face in faces if face.score >= best] for faces in found]


def false_alarms(found: Found, wanted: Found, heads: Sequence[Discs]) -> tuple[int, int]:
    """(found faces that match none of YuNet's, how many of them are centred on a composed head)."""
    extra = on_heads = 0
    for ours, theirs, discs in zip(found, wanted, heads, strict=True):
        matched = {i for i, _ in match(ours, theirs).pairs}
        rest = [face for i, face in enumerate(ours) if i not in matched]
        extra, on_heads = extra + len(rest), on_heads + sum(on_disc(face, discs) for face in rest)
    return extra, on_heads


def roll(face: Face) -> float:
    (x0, y0), (x1, y1) = face.landmarks[:2]
    return abs(math.degrees(math.atan2(y1 - y0, x1 - x0)))


def brightness(scene: np.ndarray, face: Face) -> float:
    x0, y0, x1, y1 = (max(0, int(v)) for v in face.box)
    return float(scene[y0 : y1 + 1, x0 : x1 + 1].mean())


def speed(file: Path, teacher: Path, photo: np.ndarray) -> str:
    """One 640x480 photograph, one thread; looks are bare calls of the network, the rest includes shrinking and decoding."""
    ours, theirs = GridDetector(file, 1), GridDetector(teacher, 1)
    theirs_320, ours_640 = GridDetector(teacher, 1, long_side=320), GridDetector(file, 1, long_side=640)
    theirs_320.spec = mien_one_look(theirs_320)
    calls: dict[str, Callable[[], object]] = {
        "mien-face, default": lambda: ours(photo),
        "YuNet at 320 pixels, one look": lambda: theirs_320(photo),
        "YuNet as `--detector yunet` (640 pixels and a small look)": lambda: theirs(photo),
        "mien-face at 640 pixels": lambda: ours_640(photo),
    }
    old = cascade()
    if old is not None:
        calls["OpenCV's cascade"] = lambda: old(photo)
    took = times(calls)
    base = took["YuNet at 320 pixels, one look"]
    lines = ["| 640x480, one thread | ms | ratio |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {ms:.2f} | {ms / base:.2f} |" for name, ms in took.items()])


def mien_one_look(detector: GridDetector):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(detector.spec, largest=10_000.0)


def same_label(heads: list, ours: GridDetector, theirs: GridDetector) -> tuple[int, int, int]:  # type: ignore[type-arg]
    """(heads that YuNet finds, of these found by ours, of these with the same top label)."""
    read = mien.load(detector="whole").classifier
    seen = found = same = 0
    for head in heads:
        picture = rgb(cv2.copyMakeBorder(head.picture, 64, 64, 64, 64, cv2.BORDER_REPLICATE))
        reference = theirs(picture)[:1]
        if not reference:
            continue
        seen += 1
        faces = ours(picture)
        pairs = match(faces, reference).pairs
        if pairs:
            found += 1
            a, b = read(picture, [faces[pairs[0][0]], reference[0]])
            same += a.expression.label == b.expression.label
    return seen, found, same


def sheet(scenes: list[np.ndarray], found: Found, wanted: Found, count: int = 24) -> np.ndarray:
    """Green: hits. Red: what YuNet found and ours missed. Orange: false alarms. The worst scenes first."""
    tiles = []
    order = sorted(range(len(scenes)), key=lambda i: -faults(found[i], wanted[i]))
    for i in order[:count]:
        tile = rgb(scenes[i])
        pairs = match(found[i], wanted[i]).pairs
        for k, face in enumerate(found[i]):
            box(tile, face, (0, 200, 0) if k in {a for a, _ in pairs} else (255, 140, 0))
        for k, face in enumerate(wanted[i]):
            if face.score >= 0.8 and k not in {b for _, b in pairs}:
                box(tile, face, (255, 0, 0))
        tiles.append(tile)
    return np.vstack([np.hstack(tiles[k : k + 6]) for k in range(0, count, 6)])


def faults(found: list[Face], wanted: list[Face]) -> int:
    pairs = match(found, wanted).pairs
    missed = sum(f.score >= 0.8 and f.size >= 20 and k not in {b for _, b in pairs} for k, f in enumerate(wanted))
    return missed + len(found) - len(pairs)


def box(tile: np.ndarray, face: Face, colour: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = (round(v) for v in face.box)
    cv2.rectangle(tile, (x0, y0), (x1, y1), colour, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--file", type=Path, help="another detector file than the one inside the package")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--card", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()
    file = args.file or fetch(ENTRIES["mien-face"])
    size = 256
    ours, theirs = GridDetector(file, 1), GridDetector(args.teacher, 1, threshold=0.5)
    heads = read_heads(args.scenes, theirs, "test")
    composer = Composer(heads, read_grounds(args.scenes, "test"), size)
    scenes, heads_in = (
        list(part) for part in zip(*(composer.compose(SEED, i) for i in range(args.count)), strict=True)
    )
    teacher = open_onnx(args.teacher, 1)
    wanted = [taught(teacher, scene) for scene in scenes]
    turned = [mirrored(teacher, scene) for scene in scenes]
    found = [ours(rgb(scene)) for scene in scenes]
    lines = [
        f"{args.count:,} composed scenes of {size} pixels from {len(heads)} heads and {len(composer.grounds)} grounds of the test side "
        f"(seed {SEED}), against YuNet at the scene's size and at half of it:",
        "",
        "| detector | recall | precision | of YuNet's faces alone | landmarks, of the eye distance | sure faces | found |",
        "|---|---|---|---|---|---|---|",
        row("mien-face", found, wanted, heads_in),
        row("YuNet on the mirror image, turned back", turned, wanted, heads_in),
        row("the same at the threshold of 97 % recall", at_recall(turned, wanted, 0.97), wanted, heads_in),
        row("YuNet with one look", [theirs(rgb(scene)) for scene in scenes], wanted, heads_in),
    ]
    old = cascade()
    if old is not None:
        lines.append(row("OpenCV's cascade", [old(rgb(scene)) for scene in scenes], wanted, heads_in))
    extra, on_heads = false_alarms(found, wanted, heads_in)
    lines += [
        "",
        f"Of the {extra} found faces that YuNet does not have at 0.5, {on_heads} lie on a head that was composed into the scene.",
    ]
    bands = [
        ("size, pixels", lambda _, f: f.size, (20, 32, 48, 80, 130, 200, 400)),
        ("roll, degrees", lambda _, f: roll(f), (0, 10, 20, 30, 45, 90)),
        ("brightness, 0..255", lambda i, f: brightness(scenes[i], f), (0, 30, 60, 100, 150, 256)),
    ]
    for name, value, edges in bands:
        heading = " | ".join(f"{low}-{high}" for low, high in itertools.pairwise(edges))
        lines += ["", f"| recall by {name} | {heading} |", "|---" * len(edges) + "|"]
        lines.append(f"| of sure faces (how many) | {' | '.join(by_band(found, wanted, value, edges))} |")
    seen, hit, same = same_label(heads, ours, GridDetector(args.teacher, 1))
    lines += [
        "",
        f"Of {seen} test heads that YuNet finds it finds {hit}; on {same} of these ({same / max(hit, 1):.1%}) the expression read is the same.",
    ]
    if args.photos:
        lines += ["", *photos(args.photos, ours, args.teacher)]
        first = cv2.resize(
            read_image(next(iter(sorted(args.photos.glob("*.jpg"))))), (640, 480), interpolation=cv2.INTER_AREA
        )
        lines += ["", speed(file, args.teacher, first)]
    text = "\n".join(lines)
    print(text)
    if args.picture:
        cv2.imwrite(str(args.picture), sheet(scenes, found, wanted)[..., ::-1])
    if args.card:
        command = "    python benchmarks/detector.py --scenes SCENES --teacher yunet_n_dynamic.onnx --photos PHOTOS\n\n"
        args.card.write_text(detector_card(ours.spec, Path(file), command + text), encoding="utf-8")


def photos(folder: Path, ours: GridDetector, teacher: Path) -> list[str]:
    """A line a photograph: YuNet's faces above 0.8, how many of them are found, and what else is."""
    lines = ["| photograph | YuNet above 0.8 | of these found | others found |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.jpg")):
        image = read_image(path)
        sure = GridDetector(teacher, 1, threshold=0.8)(image)
        any_ = GridDetector(teacher, 1, threshold=0.5)(image)
        faces = ours(image)
        good = len({j for _, j in match(faces, sure).pairs})
        other = len(faces) - len(match(faces, any_).pairs)
        lines.append(f"| {path.name} | {len(sure)} | {good} | {other} |")
    return lines


if __name__ == "__main__":
    main()
