"""What each export of the shipped models weighs, answers and costs.

    python benchmarks/export.py --data FER2013 [MODEL ...]

Every target is made anew, its ranges set by rows of Training, and judged on PublicTest beside the float model. Milliseconds a face are
of processor time on one thread, medians of rounds that take all files in turn, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mien.cli.export import calibration_rows
from mien.cli.judging import chips_of, rows
from mien.data.prepare import chips
from mien.export.targets import TARGETS, make
from mien.runtime.classify import Classifier
from mien.runtime.openvino import OpenVinoSession
from mien.runtime.sessions import FullSession, open_session
from mien.runtime.store import model_file

BATCHES = (1, 8, 32)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["ferplus-small", "ferplus-nano"])
    parser.add_argument("--data", type=Path, required=True, help="FER+'s folder")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    print(f"{_processor()}, one thread\n")
    heads = ["model", "file", "MB", "largest difference", "labels flipped", "accuracy", *(f"ms, {n}" for n in BATCHES)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for model in given.models:
        print("\n".join(lines(model, given.data, given.rounds)), flush=True)


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    names = told.read_text().splitlines() if told.is_file() else []
    return next((line.partition(": ")[2] for line in names if line.startswith("model name")), platform.machine())


def lines(model: str, data: Path, rounds: int) -> list[str]:
    """The table's lines for one model."""
    base = model_file(model)
    manifest = rows(data, "ferplus", "PublicTest", "majority")[1]
    prepared = chips_of(manifest, Classifier(open_session(base, 1, "onnx", "cpu")))
    faces = np.repeat(chips(prepared), 3, axis=-1).transpose(0, 3, 1, 2).astype(np.float32)
    truth = manifest.targets().argmax(axis=1)
    ranges = calibration_rows(data, "ferplus", base)
    with tempfile.TemporaryDirectory() as folder:
        sessions: dict[str, tuple[FullSession, float]] = {"as shipped": (open_session(base, 1), base.stat().st_size)}
        for kind in TARGETS.values():
            made = make(base, kind, Path(folder), f"m{kind.mark}", ranges if kind.precision == "int8" else None)
            size = sum(file.stat().st_size for file in made.files)
            sessions[kind.name] = (open_session(made.files[0], 1), size)
            if kind.suffix == ".xml":
                sessions[f"{kind.name}, bf16"] = (OpenVinoSession(made.files[0], 1, precision="bf16"), size)
        wanted = _answers(sessions["onnx"][0], faces)
        cost = _milliseconds({name: session for name, (session, _) in sessions.items()}, faces, rounds)
        found = []
        for name, (session, size) in sessions.items():
            said = _answers(session, faces)
            flipped = int((said.argmax(axis=1) != wanted.argmax(axis=1)).sum())
            cells = [
                model,
                name,
                f"{size / 1e6:.2f}",
                f"{np.abs(said - wanted).max():.1g}",
                f"{flipped} of {len(said):,}",
            ]
            cells += [f"{(said.argmax(axis=1) == truth).mean():.2%}", *(f"{value:.2f}" for value in cost[name])]
            found.append(f"| {' | '.join(cells)} |")
        return found


def _answers(session: FullSession, faces: np.ndarray) -> np.ndarray:
    return np.concatenate([session.run(faces[at : at + 64])[0] for at in range(0, len(faces), 64)])


def _milliseconds(sessions: dict[str, FullSession], faces: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Processor milliseconds a face, by session, for each of BATCHES."""
    cost: dict[str, list[float]] = {name: [] for name in sessions}
    for count in BATCHES:
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for number in range(max(8, rounds // count) + 2):
            for name, session in sessions.items():
                session.run(faces[:count])  # its weights are in the caches again, as in a stream
                start = time.process_time()
                session.run(faces[:count])
                if number >= 2:
                    taken[name].append(1000 * (time.process_time() - start) / count)
        for name, values in taken.items():
            cost[name].append(statistics.median(values))
    return cost


if __name__ == "__main__":
    main()
