"""How fast datasets are read, audited and prepared, and how much memory that takes.

    python benchmarks/reading.py --fer2013 DIR [--rows 290000] [--json]

FER2013 is read, audited and cut into chips. A synthetic AffectNet (first release: CSV with 68 landmarks, empty picture files
in a temporary folder) is read as an index. Each line runs in a process of its own, so its peak memory is its own; the peak
includes the interpreter and the libraries (the first line).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORK = {
    "libraries alone": "import mien.data.sources, mien.data.audit, mien.data.prepare; rows = 0",
    "read FER2013": "from mien.data.sources import read_source; rows = len(read_source('fer2013', {fer!r}))",
    "audit FER2013": (
        "from mien.data.sources import read_source; from mien.data.audit import audit; "
        "rows = audit(read_source('fer2013', {fer!r})).rows"
    ),
    "prepare FER2013 (48x48, 2 threads)": (
        "from mien.data.sources import read_source; from mien.data.prepare import prepare_file; "
        "from mien.recipe import load_recipe; "
        "rows = prepare_file(read_source('fer2013', {fer!r}), load_recipe('fer2013-small').crop, {out!r}, workers=2)[0]"
    ),
    "read a synthetic AffectNet": "from mien.data.sources import read_source; rows = len(read_source('affectnet', {aff!r}))",
}


def look_alike(folder: Path, rows: int) -> None:
    """A CSV in the form of AffectNet's first release, and an empty file for every picture."""
    marks = ";".join(f"{30 + i % 17 * 9.5};{40 + i // 17 * 30.25}" for i in range(68))
    images = folder / "Manually_Annotated_Images"
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    with (folder / "training.csv").open("w", encoding="utf-8") as train:
        train.write(header + "\n")
        for i in range(rows):
            place = f"{i // 1000}/{i:032x}.jpg"
            if i % 1000 == 0:
                (images / str(i // 1000)).mkdir(parents=True)
            (images / place).touch()
            train.write(f"{place},10,12,180,190,{marks},{i % 8},{(i % 200) / 100 - 1:.3f},{(i % 150) / 75 - 1:.3f}\n")


def measured(code: str) -> dict[str, float]:
    """Rows, seconds and peak MiB of a piece of code in a process of its own."""
    start = time.perf_counter()
    text = f"import time; start = time.perf_counter(); {code}; import resource; " + (
        "print(rows, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    rows, seconds, peak = (float(word) for word in done.stdout.split()[-3:])
    return {"rows": rows, "seconds": seconds, "peak_mib": peak, "with_start": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fer2013", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=290_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "affectnet").mkdir()
        look_alike(folder / "affectnet", args.rows)
        places = {"fer": str(args.fer2013), "aff": str(folder / "affectnet"), "out": str(folder / "chips.parquet")}
        for what, code in WORK.items():
            found[what] = measured(code.format(**places))
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print("| work | rows | seconds | rows a second | peak MiB |\n|---|---|---|---|---|")
    for what, line in found.items():
        rate = f"{line['rows'] / line['seconds']:,.0f}" if line["rows"] else "-"
        print(f"| {what} | {line['rows']:,.0f} | {line['seconds']:.1f} | {rate} | {line['peak_mib']:,.0f} |")


if __name__ == "__main__":
    main()
