"""What annotating costs a core: images from JPEG files against decoding alone, hours of video, and Ray beside one machine.

    python benchmarks/annotating.py --photos DIR [--count 192] [--parts images,videos,runners] [--ray] [--json]

The pictures of the folder are written as JPEG files (quality 90) with long sides of 320, 640 and 1280 pixels, and as they are, so many of each
as --count says, and read from the disk's cache:
    decode        read_image alone
    annotate      annotate_block, in this process, one thread: files to rows; and its stages
A clip of 30 seconds (H.264, the first picture swaying) of 640x360 and 1280x720 pixels at 25 frames a second: decoding alone, and annotated at
1 and 5 frames a second and at all. Then `annotate` with one and two workers, and with --ray on Ray with one and two actors, on the
files of 640 pixels: ms of a core as the workers count them (Ray's own processes are not in it), images a second from the first finished
part to the last (so without the start), and the start.

ms are of the processor, of all threads, best of three (videos: of two): other work on the machine changes them least. Images a second are by the clock and want a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from watching import make_clip

from mien.apps.annotate.block import Source, annotate_block
from mien.apps.annotate.plan import Block, Line
from mien.apps.annotate.run import Quiet, annotate
from mien.runtime.read import load
from mien.vision.image import SUFFIXES, read_image, write_image
from mien.vision.video import frames

SIDES = (320, 640, 1280, 0)


def make_files(photos: list[np.ndarray], side: int, count: int, folder: Path) -> list[Path]:
    """So many JPEG files with this long side (0: as they are), each photograph in turn."""
    folder.mkdir()
    data = []
    for number, photo in enumerate(photos):
        scale = side / max(photo.shape[:2]) if side else 1.0
        small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if side else photo
        write_image(folder / f"p{number}.jpg", small)
        data.append((folder / f"p{number}.jpg").read_bytes())
        (folder / f"p{number}.jpg").unlink()
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data[number % len(data)])
    return paths


def processor(action: Callable[[], Any], times: int = 3) -> float:
    """The least processor seconds of several runs."""
    found = []
    for _ in range(times):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return min(found)


def images(photos: list[np.ndarray], count: int, folder: Path) -> list[dict[str, Any]]:
    """ms an image, of decoding alone and of annotating."""
    reader, found = load(threads=1), []
    for side in SIDES:
        paths = make_files(photos, side, count if side else count // 4, folder / str(side))
        block = Block(0, tuple(Line("image", bytes(path)) for path in paths))
        rows = annotate_block(block, reader, Source())
        reader.times.seconds.clear()
        n = len(paths)
        found.append(
            {
                "side": side,
                "megapixels": float(np.mean([row.width * row.height / 1e6 for row in rows])),
                "kilobytes": float(np.mean([path.stat().st_size / 1e3 for path in paths])),
                "faces": sum(len(row.found) for row in rows) / n,
                "decode": 1000 * processor(lambda paths=paths: [read_image(path) for path in paths]) / n,
                "annotate": 1000 * processor(lambda block=block: annotate_block(block, reader, Source())) / n,
            }
        )
    return found


def videos(photo: np.ndarray, folder: Path, seconds: float = 30.0) -> list[dict[str, Any]]:
    """Processor seconds for an hour of video."""
    reader, found = load(threads=1), []
    for size in ((640, 360), (1280, 720)):
        clip = folder / f"{size[0]}.mp4"
        make_clip(clip, photo, seconds, size, 25)
        block = Block(0, (Line("video", bytes(clip)),))
        line: dict[str, Any] = {"size": size, "megabits": clip.stat().st_size * 8e-6 / seconds}
        hour = 3600 / seconds
        line["decode"] = hour * processor(lambda clip=clip: sum(1 for _ in frames(clip, gap=1e6)), 2)
        for rate in (1.0, 5.0, 0.0):
            line[f"rate {rate:g}"] = hour * processor(lambda b=block, r=rate: annotate_block(b, reader, Source(r)), 2)
        found.append(line)
    return found


class Steady(Quiet):
    """Notes when parts are finished."""

    def __init__(self) -> None:
        self.start, self.times = time.perf_counter(), []

    def finished(self, done: Any) -> None:
        """One more."""
        self.times.append((time.perf_counter(), done.inputs))

    def told(self, bytes_a_row: float) -> dict[str, float]:
        """Images a second between the first part and the last; seconds until the first; bytes of output a row."""
        inputs = sum(count for _, count in self.times[1:])
        took = self.times[-1][0] - self.times[0][0]
        return {"rate": inputs / took, "start": self.times[0][0] - self.start, "bytes": bytes_a_row}


def run(runner: str, workers: int, folder: Path, out: Path) -> dict[str, float]:
    """One annotation in this process, timed."""
    steady = Steady()
    found = annotate(
        folder, out, runner=runner, workers=workers, block=16, show=steady, address="local" if runner == "ray" else None
    )
    size = sum(path.stat().st_size for path in out.glob("part=*/*.parquet"))
    return steady.told(size / found.inputs) | {"processor": 1000 * found.seconds / found.inputs}


def runners(names: list[str], folder: Path, out: Path) -> list[dict[str, Any]]:
    """Each runner with one and with two workers, each in a process of its own."""
    found = []
    for name in names:
        for workers in (1, 2):
            words = ["--run", name, str(workers), str(folder), str(out / f"{name}{workers}")]
            done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
            found.append({"runner": name, "workers": workers, **json.loads(done.stdout.splitlines()[-1])})
    return found


def show(found: dict[str, Any]) -> None:
    """The tables."""
    if "images" in found:
        print(
            "| JPEG, long side | megapixels | KB | faces | decode, ms | annotate, ms | images a second and core | decoding |"
        )
        print("|---|---|---|---|---|---|---|---|")
    for line in found.get("images", ()):
        print(
            f"| {line['side'] or 'as it is'} | {line['megapixels']:.2f} | {line['kilobytes']:.0f} | {line['faces']:.1f} | {line['decode']:.1f} | "
            f"{line['annotate']:.1f} | {1000 / line['annotate']:.0f} | {line['decode'] / line['annotate']:.0%} |"
        )
    if "videos" in found:
        print(
            "\n| an hour of video | Mbit/s | decoding alone | 1 frame a second | 5 | all |\n|---|---|---|---|---|---|"
        )
    for line in found.get("videos", ()):
        hours = " | ".join(f"{line[name]:.0f} s" for name in ("decode", "rate 1", "rate 5", "rate 0"))
        print(f"| {line['size'][0]}x{line['size'][1]} | {line['megabits']:.1f} | {hours} |")
    if "runners" in found:
        print(
            "\n| runner | workers | ms of a core an image | images a second | until the first part, s | bytes a row |\n|---|---|---|---|---|---|"
        )
    for line in found.get("runners", ()):
        print(
            f"| {line['runner']} | {line['workers']} | {line['processor']:.1f} | {line['rate']:.1f} | {line['start']:.1f} | {line['bytes']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=192)
    parser.add_argument("--parts", default="images,videos,runners")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        runner, workers, folder, out = args.run
        print(json.dumps(run(runner, int(workers), Path(folder), Path(out))))
        return
    cv2.setNumThreads(1)
    photos = [read_image(path) for path in sorted(args.photos.iterdir()) if path.suffix.lower() in SUFFIXES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts, found = args.parts.split(","), dict[str, Any]()
        if "images" in parts:
            found["images"] = images(photos, args.count, folder)
        if "videos" in parts:
            found["videos"] = videos(photos[0], folder)
        if "runners" in parts:
            make_files(photos, 640, args.count, folder / "files")
            found["runners"] = runners(["local", "ray"] if args.ray else ["local"], folder / "files", folder)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
