"""How fast a video becomes a table, stage by stage, against lower bounds and a plain loop; and whether memory stays flat.

    python benchmarks/watching.py --photo portrait.jpg [--yunet yunet_n_640_640.onnx] [--seconds 20] [--minutes 0] [--json]

A 640x480 clip is made from the photograph (its face moves), then read by:
    mien, every frame       decode to table, a look for faces in every frame (the default)
    mien, looks of 0.2 s    faces followed between
    plain loop              cv2.VideoCapture, cv2.FaceDetectorYN with the file given, the same crop and the same ONNX model, csv.writer
Then 2, 4 and 8 faces; a photograph to its answer, one thread, decoded; a new process to the first answer, `python -m mien predict`. Each figure
is the best of three runs, for other work on the machine slows all of them; the processor's time a frame suffers less from that. With --minutes a 1080p clip of so many minutes is read and the
memory of the process is written down after each sixth of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mien.faces import Face
from mien.runtime.read import Reader, load
from mien.runtime.sinks import TableSink
from mien.runtime.watch import Watching
from mien.vision.image import read_image
from mien.vision.video import VideoWriter, frames


def make_clip(
    path: Path, photo: np.ndarray, seconds: float, size: tuple[int, int] = (640, 480), rate: int = 30
) -> None:
    """The photograph on a grey ground, swaying."""
    width, height = size
    side = height
    scale = side / max(photo.shape[:2])
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ground = np.full((height, width, 3), 110, np.uint8)
    with VideoWriter(path, width, height, rate) as writer:
        for i in range(round(seconds * rate)):
            x = (width - small.shape[1]) / 2 + 40 * np.sin(i / 20)
            turn = np.array([[1, 0, x], [0, 1, 6 * np.sin(i / 13)]], np.float32)
            image = cv2.warpAffine(small, turn, size, ground.copy(), borderMode=cv2.BORDER_TRANSPARENT)
            writer.write(image, i / rate)


def best(action: Callable[[], Any], times: int = 3) -> float:
    """The least seconds of several runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


def processor(action: Callable[[], Any], count: int) -> float:
    """ms of processor time a frame, of all threads: what other work on the machine changes least."""
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start) / count


def by_mien(reader: Reader, clip: Path, out: Path, gap: float) -> int:
    """Decode to table; how many frames."""
    count = 0
    with TableSink(out, reader.classifier.spec.labels, overwrite=True) as sink:
        for frame, faces in reader.watch(clip, how=Watching(gap=gap)):
            with reader.times.stage("write"):
                sink.write(frame, faces)
            count += 1
    return count


def by_loop(reader: Reader, clip: Path, out: Path, yunet: Path) -> int:
    """The plain loop: the same model, OpenCV for all else."""
    video = cv2.VideoCapture(str(clip))
    detector = cv2.FaceDetectorYN.create(str(yunet), "", (640, 640))
    count = 0
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        while True:
            ok, image = video.read()
            if not ok:
                return count
            detector.setInputSize(image.shape[1::-1])
            _, found = detector.detect(image)
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            faces = [
                Face((x, y, x + w, y + h), row[14], row[4:14].reshape(5, 2))
                for row in (found if found is not None else [])
                for x, y, w, h in [map(float, row[:4])]
            ]
            for face in reader.classifier(rgb, faces):
                assert face.expression is not None
                writer.writerow([count, *face.box, *face.expression.probabilities, face.expression.valence])
            count += 1


def bounds(reader: Reader, clip: Path) -> dict[str, float]:
    """ms a frame of each stage's bare work: decoding to RGB alone, the detector's network alone, the classifier's alone."""
    import av

    image = next(frames(clip)).image
    with av.open(str(clip)) as container:
        start, count = time.perf_counter(), 0
        for picture in container.decode(video=0):
            picture.to_ndarray(format="rgb24")
            count += 1
        decode = (time.perf_counter() - start) / count
    detector: Any = reader.detector
    near = cv2.resize(image, (320, 240))
    canvas = cv2.copyMakeBorder(near, 0, 16, 0, 0, cv2.BORDER_CONSTANT)
    blob = cv2.dnn.blobFromImage(canvas, swapRB=True)
    feed = {detector._input: blob}
    chips = np.zeros((1, 3, reader.classifier.spec.crop.height, reader.classifier.spec.crop.width), np.float32)
    detect = best(lambda: [detector._session.run(detector._outputs, feed) for _ in range(50)]) / 50
    classify = best(lambda: [reader.classifier.session.run(chips) for _ in range(50)]) / 50
    return {"decode": 1000 * decode, "detect": 1000 * detect, "classify": 1000 * classify}


class Copies:
    """A detector whose faces are given several times."""

    def __init__(self, reader: Reader, count: int) -> None:
        self._detector, self._count = reader.detector, count

    def __call__(self, image: np.ndarray) -> list[Face]:
        faces = self._detector(image)[:1]
        return [
            replace(face, box=tuple(edge + 90 * i for edge in face.box)) for i in range(self._count) for face in faces
        ]  # type: ignore[arg-type]


def resident() -> float:
    """MiB of memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def long_clip(reader: Reader, photo: np.ndarray, folder: Path, minutes: float) -> list[float]:
    """MiB after each sixth of a 1080p clip: ten seconds of it, read again and again, go into one table."""
    clip = folder / "long.mp4"
    make_clip(clip, photo, 10, (1920, 1080))
    how, told = Watching(gap=0.2), []
    turns = max(6, 6 * round(minutes))
    with TableSink(folder / "long.csv", reader.classifier.spec.labels) as sink:
        for turn in range(turns):
            for frame, faces in reader.watch(clip, how=how):
                sink.write(replace(frame, seconds=frame.seconds + 10 * turn), faces)
            if (turn + 1) % (turns // 6) == 0:
                told.append(resident())
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--yunet", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    photo = read_image(args.photo)
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, out = folder / "a.mp4", folder / "a.csv"
        make_clip(clip, photo, args.seconds)
        reader = load(threads=1)
        count = by_mien(reader, clip, out, 0.0)
        for what, gap in (("mien, every frame", 0.0), ("mien, looks of 0.2 s", 0.2)):
            found[what] = count / best(lambda gap=gap: by_mien(reader, clip, out, gap))
            found[f"{what}: processor ms a frame"] = processor(lambda gap=gap: by_mien(reader, clip, out, gap), count)
        if args.yunet:
            found["plain loop"] = count / best(lambda: by_loop(reader, clip, out, args.yunet))
            found["plain loop: processor ms a frame"] = processor(lambda: by_loop(reader, clip, out, args.yunet), count)
        reader.times.seconds.clear()
        by_mien(reader, clip, out, 0.0)
        found["stages, ms a frame"] = {k: 1000 * v / count for k, v in reader.times.seconds.items()}
        found["bounds, ms a frame"] = bounds(reader, clip)
        for faces in (1, 2, 4, 8):
            many = Reader(Copies(reader, faces), reader.classifier)
            found[f"{faces} faces"] = count / best(lambda many=many: by_mien(many, clip, out, 0.0), 2)
        image = next(frames(clip)).image
        calls = []
        for _ in range(200):
            start = time.perf_counter()
            reader(image)
            calls.append(time.perf_counter() - start)
        found["photo to answer, ms"] = {"median": 1000 * float(np.median(calls)), "least": 1000 * min(calls)}
        still = folder / "a.png"
        cv2.imwrite(str(still), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        words = [sys.executable, "-m", "mien", "predict", str(still), "--json", "--threads", "1"]
        found["new process to answer, s"] = best(lambda: subprocess.run(words, check=True, capture_output=True), 5)
        empty = [sys.executable, "-c", "import cv2, onnxruntime, numpy"]
        found["of these, Python with its libraries, s"] = best(lambda: subprocess.run(empty, check=True), 5)
        if args.minutes:
            found["MiB after each sixth"] = [round(v) for v in long_clip(reader, photo, folder, args.minutes)]
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print("| what | value |\n|---|---|")
    for what, value in found.items():
        shown = value if isinstance(value, list | dict) else f"{value:.2f}"
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v:.2f}" for k, v in value.items())
        print(f"| {what} | {shown} |")


if __name__ == "__main__":
    main()
