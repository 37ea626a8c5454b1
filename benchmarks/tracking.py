"""Do people keep their numbers? Clips with known truth, composed from heads: who is followed, switched, torn apart.

    python benchmarks/tracking.py --heads heads.parquet [--clips 12] [--rate 25] [--look 0] [--json]

Heads (a Parquet file with a column `image`) move over a ground of noise, 6 seconds a clip, 640x480. The default detector finds them;
its own misses stay. Truth is where the heads were put. A person switches when the track number differs from the last one
it had; is torn into its numbers less one; a number is shared when two people had it. Beside mien's tracker stand two plain ones: overlap
alone (each face takes the number of the last frame's box it overlaps most), and the same with two seconds of memory.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from mien.faces import Box, Face
from mien.runtime.detect import Detector, open_detector
from mien.runtime.follow import Finder
from mien.runtime.track import OverlapTracker, assigned
from mien.spec import CropSpec
from mien.vision.image import read_image

SIZE = (640, 480)
SECONDS = 6.0


class Head:
    """A picture of a head (square, RGB) and where in it the face is, as shares of its side."""

    def __init__(self, image: np.ndarray, box: np.ndarray) -> None:
        self.image, self.box = image, box
        ys, xs = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
        self.mask = np.clip((1.0 - np.sqrt((xs / 0.92) ** 2 + ys**2)) * 8, 0, 1).astype(np.float32)


def heads_of(path: Path, count: int, detector: Detector, seed: int) -> list[Head]:
    """Heads in which the detector surely finds one face."""
    rows = pq.read_table(path, columns=["image"]).column("image")
    found: list[Head] = []
    for row in np.random.default_rng(seed).permutation(len(rows)):
        image = read_image(rows[int(row)].as_py()["bytes"])
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        image = cv2.resize(image[top : top + side, left : left + side], (192, 192), interpolation=cv2.INTER_AREA)
        faces = detector(image)
        if len(faces) == 1 and faces[0].score > 0.85 and 0.35 < faces[0].size / 192 < 0.95:
            found.append(Head(image, np.array(faces[0].box) / 192))
        if len(found) == count:
            break
    return found


# A scene says where each head is at a time: (x, y, side) of its middle in pixels; None: not there; and nearness, nearer in front.
Place = Callable[[float], tuple[float, float, float] | None]
Scene = tuple[list[Place], Callable[[float], np.ndarray] | None, float | None]


def drift(rng: np.random.Generator) -> Scene:
    """Three people who sway."""
    places: list[Place] = []
    for i in range(3):
        a, b, p = rng.uniform(20, 45), rng.uniform(0.3, 0.9), rng.uniform(0, 6)
        x, y, side = 120 + 200 * i, rng.uniform(180, 300), rng.uniform(110, 170)
        places.append(
            lambda t, x=x, y=y, s=side, a=a, b=b, p=p: (x + a * np.sin(b * t * 2 + p), y + a / 3 * np.cos(b * t * 3), s)
        )
    return places, None, None


def crossing(rng: np.random.Generator) -> Scene:
    """Two people who walk past each other, one before the other."""
    speed, y, gap = rng.uniform(70, 130), rng.uniform(200, 280), rng.uniform(-25, 25)
    return [lambda t: (60 + speed * t, y, 150), lambda t: (580 - speed * t, y + gap, 125)], None, None


def pillar(rng: np.random.Generator) -> Scene:
    """A person who walks behind a pillar, hidden for about a second; another stands by."""
    speed, y = rng.uniform(80, 120), rng.uniform(180, 280)

    def post(t: float) -> np.ndarray:  # noqa: ARG001 - it stands
        return np.array([280, 0, 390, 480])

    return [lambda t: (30 + speed * t, y, 130), lambda t: (540, 150 + 8 * np.sin(t), 120)], post, None


def pan(rng: np.random.Generator) -> Scene:
    """The camera sweeps over four people and back: they come, leave and return."""
    wide = rng.uniform(200, 300)
    return [lambda t, i=i: (90 + 190 * i - wide * np.sin(t * np.pi / SECONDS), 240, 140) for i in range(4)], None, None


def zoom(rng: np.random.Generator) -> Scene:
    """The camera zooms in on two people and out again."""
    most = rng.uniform(0.5, 0.9)

    def scale(t: float) -> float:
        return 1 + most * np.sin(t * np.pi / SECONDS)

    return [lambda t, x=x: (320 + x * scale(t), 240, 110 * scale(t)) for x in (-95, 95)], None, None


def cut(rng: np.random.Generator) -> Scene:
    """After three seconds other people sit where others sat."""
    x, y = rng.uniform(150, 250), rng.uniform(200, 280)
    people: list[Place] = [
        lambda t: (x, y, 150) if t < 3 else None,
        lambda t: (x + 240, y, 140) if t < 3 else None,
        lambda t: (x + 15, y + 10, 155) if t >= 3 else None,
        lambda t: (x + 225, y - 10, 145) if t >= 3 else None,
    ]
    return people, None, 3.0


def misses(rng: np.random.Generator) -> Scene:
    """Three people; the test drops a fifth of the detections."""
    return drift(rng)


SCENES = {f.__name__: f for f in (drift, crossing, pillar, pan, zoom, cut, misses)}


def clip(heads: list[Head], scene: Scene, rate: float, seed: int) -> Iterator[tuple[float, np.ndarray, dict[int, Box]]]:
    """(seconds, image, {person: box of the visible face})."""
    places, post, turn = scene
    rng = np.random.default_rng(seed)
    grounds = [
        cv2.resize(rng.integers(30, 220, (12, 16, 3)).astype(np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)
        for _ in "ab"
    ]
    for i in range(round(SECONDS * rate)):
        t = i / rate
        image = grounds[int(turn is not None and t >= turn)].astype(np.float32)
        truth: dict[int, Box] = {}
        there = [(p, place(t)) for p, place in enumerate(places)]
        for p, at in sorted(((p, at) for p, at in there if at is not None), key=lambda pair: pair[1][2]):
            box = _paste(image, heads[p], *at)
            truth = {q: b for q, b in truth.items() if _hidden(b, box) < 0.5}
            truth[p] = box
        if post is not None:
            x0, y0, x1, y1 = post(t)
            image[y0:y1, x0:x1] = (90, 80, 70)
            truth = {q: b for q, b in truth.items() if _hidden(b, (x0, y0, x1, y1)) < 0.5}
        noise = rng.normal(0, 4, (SIZE[1], SIZE[0], 1))
        inside = {p: b for p, b in truth.items() if _hidden(b, (0, 0, *SIZE)) > 0.6}
        yield t, np.clip(image + noise, 0, 255).astype(np.uint8), inside


def _paste(image: np.ndarray, head: Head, x: float, y: float, side: float) -> Box:
    turn = np.array([[side / 192, 0, x - side / 2], [0, side / 192, y - side / 2]], np.float32)
    alpha = cv2.warpAffine(head.mask, turn, SIZE)[..., None]
    image[:] = image * (1 - alpha) + cv2.warpAffine(head.image, turn, SIZE).astype(np.float32) * alpha
    x0, y0, x1, y1 = head.box * side + np.array([x, y, x, y]) - side / 2
    return float(x0), float(y0), float(x1), float(y1)


def _hidden(box: Any, by: Any) -> float:
    """The share of a box that lies in another."""
    wide, high = min(box[2], by[2]) - max(box[0], by[0]), min(box[3], by[3]) - max(box[1], by[1])
    return max(wide, 0) * max(high, 0) / max((box[2] - box[0]) * (box[3] - box[1]), 1e-9)


def _iou(a: Box, b: Box) -> float:
    shared = _hidden(a, b) * (a[2] - a[0]) * (a[3] - a[1])
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


class PlainOverlap:
    """Each face takes the number of the box of a frame before that it overlaps most, above 0.3; memory in seconds."""

    def __init__(self, memory: float = 0.0) -> None:
        self.memory, self._next = memory, 1
        self._last: dict[int, tuple[float, Box]] = {}
        self._then = 0.0

    def __call__(self, faces: list[Face], seconds: float) -> list[Face]:
        oldest = self._then - self.memory - 1e-9
        known = {n: b for n, (t, b) in self._last.items() if t >= oldest}
        given = []
        for face in faces:
            best = max(known, key=lambda n: _iou(known[n], face.box), default=None)
            if best is None or _iou(known[best], face.box) < 0.3:
                best, self._next = self._next, self._next + 1
            known.pop(best, None)
            self._last[best] = seconds, face.box
            given.append(replace(face, track=best))
        self._then = seconds
        return given


class Score:
    """Counts over clips."""

    def __init__(self) -> None:
        self.people = self.frames = self.found = self.switches = self.torn = self.shared = 0

    def add(self, told: list[tuple[dict[int, Box], list[Face]]]) -> None:
        """One clip: truth and tracked faces of each frame."""
        last: dict[int, int] = {}
        had: dict[int, set[int]] = defaultdict(set)
        for truth, faces in told:
            people = list(truth)
            costs = np.array([[1 - _iou(truth[p], f.box) for f in faces] for p in people]).reshape(
                len(people), len(faces)
            )
            self.frames += len(people)
            for row, column in assigned(costs).items():
                if costs[row, column] < 0.7:
                    person, track = people[row], faces[column].track
                    assert track is not None
                    self.found += 1
                    self.switches += last.get(person, track) != track
                    last[person] = track
                    had[person].add(track)
        owners: dict[int, int] = defaultdict(int)
        for tracks in had.values():
            self.torn += len(tracks) - 1
            for track in tracks:
                owners[track] += 1
        self.shared += sum(count > 1 for count in owners.values())
        self.people += len(had)

    def line(self) -> dict[str, float]:
        """What is printed."""
        return {"people": self.people, "found": self.found / max(self.frames, 1), "switches": self.switches,
                "torn": self.torn, "shared": self.shared}  # fmt: skip


TRACKERS: dict[str, Callable[[], Any]] = {
    "mien": OverlapTracker,
    "overlap": PlainOverlap,
    "overlap, 2 s of memory": lambda: PlainOverlap(2.0),
}


def judge(heads: list[Head], detector: Detector, name: str, clips: int, rate: float, look: float) -> dict[str, Score]:
    """One scene's scores of every tracker."""
    scores = {tracker: Score() for tracker in TRACKERS}
    for number in range(clips):
        rng = np.random.default_rng(1000 + number)
        chosen = [heads[int(i)] for i in rng.permutation(len(heads))[:4]]
        finder, running = Finder(detector, look), {tracker: make() for tracker, make in TRACKERS.items()}
        told: dict[str, list[tuple[dict[int, Box], list[Face]]]] = defaultdict(list)
        for seconds, image, truth in clip(chosen, SCENES[name](rng), rate, number):
            faces, is_cut = finder(image, seconds)
            if name == "misses":
                faces = [face for face in faces if rng.random() > 0.2]
            for tracker, one in running.items():
                if is_cut and isinstance(one, OverlapTracker):
                    one.cut()
                told[tracker].append((truth, one(faces, seconds)))
        for tracker, score in scores.items():
            score.add(told[tracker])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--rate", type=float, default=25.0)
    parser.add_argument("--look", type=float, default=0.0, help="seconds between two looks for faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    detector = open_detector("auto", CropSpec(width=48, height=48), threads=1)
    heads = heads_of(args.heads, 40, detector, args.seed)
    found = {name: {t: s.line() for t, s in judge(heads, detector, name, args.clips, args.rate, args.look).items()}
             for name in SCENES}  # fmt: skip
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{args.clips} clips a scene, {args.rate:g} frames a second, a look every {args.look:g} s\n")
    print("| scene | people | faces found | tracker | switches | torn | shared |\n|---|---|---|---|---|---|---|")
    for name, lines in found.items():
        for tracker, line in lines.items():
            print(
                f"| {name} | {line['people']} | {line['found']:.1%} | {tracker} | {line['switches']} | {line['torn']} | {line['shared']} |"
            )


if __name__ == "__main__":
    main()
