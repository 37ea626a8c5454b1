"""This machine's speed: every engine and model file by batch and threads, what starting costs, and the stages of a photograph.

Speeds are medians of calls that all lines take in turns, so that what else the machine does slows all of them alike.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

import mien
from mien.errors import ConfigError, ImageError, MienError
from mien.faces import Frame
from mien.runtime.engines import FORMS, available, check_words
from mien.runtime.forms import files_of
from mien.runtime.machine import Machine, peak, this_machine
from mien.runtime.read import Reader
from mien.runtime.sessions import Session, open_session
from mien.runtime.store import ENTRIES, model_file
from mien.runtime.table import open_table
from mien.vision.image import read_image

__all__ = [
    "FORM",
    "Bench",
    "Place",
    "Speed",
    "Stage",
    "Start",
    "bench",
    "in_turns",
    "medians",
    "photograph",
    "pictured",
    "places",
    "read_bench",
    "shipped",
]

#: Raised by one whenever a field changes its meaning.
FORM = 1
_LEAST = 5
K = TypeVar("K")
#: Seconds by the clock, and of processor time.
Took = tuple[float, float]


class Place(msgspec.Struct, frozen=True):
    """A model file on an engine: one line of the tables. model: the file's name, or the name it is known by."""

    model: str
    file: str
    engine: str
    device: str


class Speed(msgspec.Struct, frozen=True):
    """precision: as the file's spec says.  threads: 0 for all that the engine takes.  ms: median milliseconds of a call on `batch` chips.  busy: median milliseconds of
    processor time that a call takes, over all threads, whatever else the machine does.  calls: how many."""

    model: str
    engine: str
    device: str
    precision: str
    threads: int
    batch: int
    ms: float
    busy: float
    calls: int

    @property
    def rate(self) -> float:
        """Faces a second."""
        return 1000 * self.batch / self.ms


class Start(msgspec.Struct, frozen=True):
    """A new process that opens a model. size: bytes of its files.  opened, first: milliseconds to open it; of its first call, one
    chip.  memory: peak bytes of the process after 32 chips, None where the system does not say."""

    model: str
    engine: str
    device: str
    precision: str
    size: int
    opened: float
    first: float
    memory: int | None


class Stage(msgspec.Struct, frozen=True):
    """A stage of reading the photograph. threads, ms, busy: as in Speed."""

    name: str
    threads: int
    ms: float
    busy: float


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. load: programs that wanted a core before the measuring began (the mean of a minute), None on Windows.
    bare: peak bytes of a process that has mien loaded and no model.  photo: width, height and faces.  missed: what could not be
    measured, and why."""

    form: int = FORM
    mien: str
    machine: Machine
    load: float | None
    engines: dict[str, str]
    bare: int | None
    speeds: list[Speed]
    starts: list[Start]
    stages: list[Stage]
    photo: tuple[int, int, int] | None
    missed: list[str]


def shipped() -> list[str]:
    """The names of the expression models inside the package."""
    return [entry.name for entry in ENTRIES.values() if entry.kind == "expression" and not entry.urls]


def places(models: Sequence[str], engine: str = "auto", device: str = "auto") -> list[Place]:
    """Every usable engine and device for every model; 'auto' leaves none out. Raises ConfigError, ModelNotFound."""
    check_words(engine, device)
    asked = [one for one in available() if engine in ("auto", one.name)]
    usable = [one for one in asked if not one.why]
    found = []
    for model in models:
        file = model_file(model)
        readers = FORMS.get(file.suffix.lower(), FORMS[".onnx"])
        for one in usable:
            if one.name in readers:
                wanted = [place for place in one.devices if device in ("auto", place)]
                found += [Place(_called(model, file), str(file), one.name, place) for place in wanted]
    if not found:
        why = asked[0].why if engine != "auto" and not usable else "see mien doctor"
        raise ConfigError(f"engine {engine}, device {device}: nothing here runs {', '.join(models)}; {why}")
    return found


def _called(model: str, file: Path) -> str:
    return model if model in ENTRIES else file.name


def bench(
    lines: Sequence[Place],
    batches: Sequence[int] = (1, 8, 32),
    threads: Sequence[int] = (1, 0),
    seconds: float = 0.5,
    photo: Path | None = None,
    reader: Callable[[int], Reader] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure. threads: 0 for all that the engine takes; a card has none and is measured once.  seconds: for each line of the table of speeds.  photo, reader: for the stages, left out without them; the
    reader for a number of threads (0: all).  tell: is called with what is being measured.
    Raises ConfigError: `seconds` that are none."""
    if not 0 <= seconds < math.inf:  # not a number would never end
        raise ConfigError(f"--seconds: {seconds!r}: give seconds for each line, from 0 on")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    missed: list[str] = []
    tell("what starting costs")
    bare = _started([])
    starts = [start for line in lines if (start := _start(line, missed)) is not None]
    speeds: list[Speed] = []
    for count in threads:
        tell(f"speed, threads: {count or 'all'}")
        here = [line for line in lines if line.device == "cpu" or count == threads[-1]]
        speeds += _speeds(here, batches, count, seconds, missed)
    stages, seen = [], None
    if photo is not None and reader is not None:
        tell("a photograph by stage")
        for count in threads:
            part, seen = _stages(reader(count), photo, count, 4 * seconds)
            stages += part
    return Bench(
        mien=mien.__version__,
        load=load,
        engines={one.name: one.version for one in available() if not one.why},
        bare=bare.memory,
        speeds=sorted(speeds, key=lambda one: [line.model for line in lines].index(one.model)),
        starts=starts,
        stages=stages,
        photo=seen,
        missed=list(dict.fromkeys(missed)),
        machine=this_machine(),
    )


def _speeds(
    lines: Sequence[Place], batches: Sequence[int], threads: int, seconds: float, missed: list[str]
) -> list[Speed]:
    calls: dict[tuple[Place, int, str, int], Callable[[], object]] = {}
    for line in lines:
        count = threads if line.device == "cpu" else 0  # a card has no threads
        try:
            session = open_session(line.file, count or None, line.engine, line.device)
            for batch in batches:
                calls[line, count, session.spec.precision, batch] = _call(session, batch)
        except MienError as error:
            missed.append(str(error))
    return [
        Speed(line.model, line.engine, line.device, precision, count, batch, *medians(took), len(took))
        for (line, count, precision, batch), took in in_turns(calls, seconds).items()
    ]


def _call(session: Session, batch: int) -> Callable[[], object]:
    """A call on noise that has run once already."""
    crop = session.spec.crop
    chips = np.random.default_rng(0).uniform(0, 255, (batch, 3, crop.height, crop.width)).astype(np.float32)
    session.run(chips)
    return lambda: session.run(chips)


def in_turns(calls: dict[K, Callable[[], object]], seconds: float) -> dict[K, list[Took]]:
    """What each call took, again and again in turns, until each has had its time and five calls."""
    took: dict[K, list[Took]] = {name: [] for name in calls}
    waiting = set(calls)
    while waiting:
        for name in calls:
            if name in waiting:
                begin, busy = time.perf_counter(), time.process_time()
                calls[name]()
                took[name].append((time.perf_counter() - begin, time.process_time() - busy))
                if len(took[name]) >= _LEAST and sum(clock for clock, _ in took[name]) >= seconds:
                    waiting.remove(name)
    return took


def medians(took: Sequence[Took]) -> tuple[float, float]:
    """Milliseconds by the clock and of processor time."""
    return 1000 * statistics.median(clock for clock, _ in took), 1000 * statistics.median(busy for _, busy in took)


def _start(line: Place, missed: list[str]) -> Start | None:
    said = _started([line.file, line.engine, line.device])
    if said.error:
        missed.append(said.error)
        return None
    size = sum(part.stat().st_size for part in files_of(Path(line.file)))
    return Start(line.model, line.engine, line.device, said.precision, size, said.opened, said.first, said.memory)


class _Said(msgspec.Struct):
    """What a new process says of its start; see Start."""

    opened: float = 0.0
    first: float = 0.0
    memory: int | None = None
    precision: str = ""
    error: str = ""


def _started(words: Sequence[str]) -> _Said:
    """Start a process that does `_first`."""
    command = [sys.executable, "-m", "mien.runtime.bench", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return _Said(error=f"{' '.join(words)}: {last}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=_Said)


def _first(words: Sequence[str]) -> _Said:
    """In a new process: open a file with an engine on a device and call it for the first time; without words do neither."""
    if not words:
        return _Said(memory=peak())
    file, engine, device = words
    begin = time.perf_counter()
    session = open_session(file, None, engine, device)
    opened, crop = time.perf_counter(), session.spec.crop
    session.run(np.zeros((1, 3, crop.height, crop.width), np.float32))
    first = time.perf_counter()
    session.run(np.zeros((32, 3, crop.height, crop.width), np.float32))
    return _Said(1000 * (opened - begin), 1000 * (first - opened), peak(), session.spec.precision)


def photograph() -> Path | None:
    """The example photograph, from the wheel or from the repository."""
    here = Path(mien.__file__).parent
    choices = [here / "apps" / "web" / "example.jpg", here.parents[1] / "examples" / "eileen_collins.jpg"]
    return next((place for place in choices if place.is_file()), None)


def pictured(photo: Path) -> Path:
    """The same path, if a picture lies there. Raises ImageError."""
    read_image(photo)
    return photo


def _stages(reader: Reader, photo: Path, threads: int, seconds: float) -> tuple[list[Stage], tuple[int, int, int]]:
    """Raises ImageError: not a picture, or no face to crop."""
    data = photo.read_bytes()
    image = read_image(data)
    faces = reader.detector(image)
    if not faces:
        raise ImageError(f"{photo}: no face is found in it; give another with --photo")
    classifier = reader.classifier
    chips = [classifier.chip(image, face) for face in faces]
    read = reader(image)
    with tempfile.TemporaryDirectory() as folder:
        with open_table(Path(folder) / "table.csv", classifier.spec.labels) as table:
            frame = Frame(image, 0, 0.0)
            calls: dict[str, Callable[[], object]] = {
                "decode": lambda: read_image(data),
                "detect": lambda: reader.detector(image),
                "crop": lambda: [classifier.chip(image, face) for face in faces],
                "read": lambda: classifier.read(chips),
                "table": lambda: table.write(frame, read),
            }
            took = in_turns(calls, seconds / len(calls))
    stages = [Stage(name, threads, *medians(one)) for name, one in took.items()]
    return stages, (image.shape[1], image.shape[0], len(faces))


def read_bench(path: Path) -> Bench:
    """The measurements in a file. Raises ConfigError: none are there, or of a newer mien."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        found = msgspec.json.decode(data, type=Bench)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: no measurements of `mien bench --json` ({error})") from error
    if found.form > FORM:
        raise ConfigError(f"{path}: written in form {found.form}, this mien reads up to {FORM}; pip install -U mien")
    return found


if __name__ == "__main__":
    try:
        print(msgspec.json.encode(_first(sys.argv[1:])).decode())
    except MienError as problem:
        sys.exit(str(problem))
