"""A job: what is annotated into a folder and how; the folder keeps plan and parts, and belongs to one job at a time."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from mien.apps.annotate.places import Place, place_errors, reason
from mien.apps.annotate.plan import CHUNK, Asked, check_input, make_plan
from mien.errors import ConfigError, OutputError
from mien.files import path_text
from mien.vision.image import left_out

__all__ = [
    "FOLDER",
    "Done",
    "How",
    "Job",
    "finished",
    "job_of",
    "locked",
    "part_place",
    "read_part",
    "start",
]

#: The folder of the job's own files; readers of Parquet datasets leave out names with an underscore.
FOLDER = "_mien"
_VERSION = 1
#: Seconds between two signs of life in a bucket, and after which a job without one is taken for dead.
_BEAT, _DEAD = 20.0, 90.0


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How inputs are read. Hashes are sha256 of the files, so that a name stands for one model.

    rate: frames a second of a video; 0 reads every frame.  engine, device: see mien.runtime.engines.
    """

    model: str
    model_hash: str
    detector: str
    detector_hash: str
    min_size: float | None = None
    rate: float = 1.0
    engine: str = "auto"
    device: str = "auto"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `_mien/job.json`: written when the plan is complete."""

    id: str
    asked: Asked
    how: How
    blocks: int
    inputs: int
    column: str
    kept: bytes
    labels: tuple[str, ...]
    made_by: str
    version: int = _VERSION


class Done(msgspec.Struct, frozen=True):
    """A finished block: its number, how many inputs, failures, frames and faces its part holds, and the processor's seconds.

    example: one of the inputs that could not be read, and why; '' if all could.
    """

    block: int
    inputs: int
    failed: int
    frames: int
    faces: int
    seconds: float = 0.0
    example: str = ""


def part_place(out: Place, block: int) -> Place:
    """The part of a block: a thousand in a folder."""
    return out / f"part={block // CHUNK:04d}" / f"{block:07d}.parquet"


def job_of(out: Place) -> Job | None:
    """The job whose folder this is, or None. Raises OutputError: damaged, or of a newer mien."""
    place = out / FOLDER / "job.json"
    if not place.exists():
        return None
    broken: tuple[type[BaseException], ...] = (msgspec.DecodeError, *place_errors())
    try:
        job = msgspec.json.decode(place.read(), type=Job)
    except broken as error:
        raise OutputError(f"{place}: is damaged ({reason(error)}); begin anew with --overwrite") from error
    if job.version > _VERSION:
        raise OutputError(f"{out}: was begun by a newer mien ({job.made_by}); pip install -U mien")
    return job


def start(
    out: Place,
    asked: Asked,
    how: How,
    labels: Sequence[str],
    made_by: str,
    overwrite: bool = False,
    told: Callable[[int], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Job:
    """The job to do in a folder that is `locked`: the one that was begun there, or a new one, whose plan is made.

    overwrite: remove what an earlier annotation left.  told: hears how many inputs were found while a plan is made.  tell: hears
    which pictures were left out.
    Raises OutputError: other files lie there; ConfigError: it was begun with other settings; DataError: see make_plan.
    """
    if overwrite:
        check_input(asked, out)
        _clear(out)
    found, told_of = job_of(out), msgspec.structs.replace(asked, input=path_text(asked.input))
    if found is not None:
        _same(out, found, told_of, how)
        return found
    others = [name for name in out.names() if name != FOLDER]
    if others:
        raise OutputError(f"{out}: holds other files ({others[0]}); choose an empty or a new folder")
    planned = make_plan(asked, out / FOLDER, out, told)
    if planned.others:
        tell(left_out(planned.others))
    job = Job(
        id=uuid.uuid4().hex, asked=told_of, how=how, blocks=planned.blocks, inputs=planned.inputs, column=planned.column,
        kept=planned.kept, labels=tuple(labels), made_by=made_by,
    )  # fmt: skip
    (out / FOLDER / "job.json").write(msgspec.json.format(msgspec.json.encode(job), indent=2))
    return job


def _clear(out: Place) -> None:
    """Remove the parts and the plan of an earlier annotation, job.json first, and nothing else."""
    (out / FOLDER / "job.json").remove()
    for name in out.names():
        if name.startswith("part="):
            (out / name).remove()
    for name in (out / FOLDER).names():
        if name not in ("lock", "alive.json"):
            (out / FOLDER / name).remove()


_OPTIONS = {"input": "INPUT", "model_hash": "--model (another file)", "detector_hash": "--detector (another file)", "rate": "--per-second"}  # fmt: skip


def _same(out: Place, job: Job, asked: Asked, how: How) -> None:
    """Raises ConfigError: the job was begun with other settings."""
    before, now = (
        {**msgspec.to_builtins(a), **msgspec.to_builtins(h)} for a, h in ((job.asked, job.how), (asked, how))
    )
    for name in before:
        if before[name] != now[name]:
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            told = "" if name.endswith("_hash") else f" {_shown(before[name])}, now {_shown(now[name])}"
            raise ConfigError(
                f"{out}: was begun with other settings: {option}{told}; give those of before to go on, choose another "
                "--out, or begin anew with --overwrite"
            )


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def finished(
    out: Place, job: Job, retry: bool = False, threads: int = 16, told: Callable[[str], None] = lambda _: None
) -> dict[int, Done]:
    """The blocks that are done, by their number. Parts that are damaged, or of another job, are not.

    retry: nor those with inputs that could not be read.
    """
    numbers: list[int] = []
    for folder in (name for name in out.names() if name.startswith("part=")):
        for name in (out / folder).names():
            if name.startswith("."):
                (out / folder / name).remove()  # of a block that was being written when it was killed
            elif name.endswith(".parquet") and name[:-8].isdecimal():
                numbers.append(int(name[:-8]))
    with ThreadPoolExecutor(threads) as pool:
        read = dict(zip(numbers, pool.map(lambda number: read_part(out, job, number), numbers), strict=True))
    for number, done in read.items():
        if done is None:
            told(f"{part_place(out, number)}: is damaged, or not of this job; it is made again")
    return {number: done for number, done in read.items() if done is not None and not (retry and done.failed)}


def read_part(out: Place, job: Job, number: int) -> Done | None:
    """What a part says of itself, in its last bytes; None if there is no whole part of this job."""
    try:
        with part_place(out, number).open() as file:
            parquet = pq.ParquetFile(file)
            facts = msgspec.json.decode((parquet.schema_arrow.metadata or {}).get(b"mien", b"{}"))
            rows = parquet.metadata.num_rows
    except (pa.ArrowException, msgspec.DecodeError, *place_errors()):
        return None
    if facts.get("job") != job.id or facts.get("done", {}).get("inputs") != rows:
        return None
    return msgspec.convert(facts["done"], Done)


@contextmanager
def locked(out: Place) -> Iterator[None]:
    """The folder is made if need be and belongs to this process; a process that dies gives it back.

    On a disk by a lock of the operating system; in a bucket by a sign of life every 20 seconds, so that a folder is free 90
    seconds after its owner was killed. Raises OutputError: another annotation is at work there, or no folder can be made.
    """
    if out.local and Path(out.path).is_file():
        raise OutputError(f"{out}: is a file; give the name of a folder")
    if out.archive:
        raise OutputError(f"{out}: archives are only read; give the name of a folder")
    with _lock_here(out) if out.local else _lock_there(out):
        yield


@contextmanager
def _lock_here(out: Place) -> Iterator[None]:
    folder = Path(out.path) / FOLDER
    new = not Path(out.path).exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _taken(out, Place(out.fs, str(folder / "owner.json"), True)) from error
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    try:
        (out / FOLDER / "owner.json").write(_owner())
        yield
    finally:
        (out / FOLDER / "owner.json").remove()
        if not (folder / "job.json").exists():
            _leave(folder, new)
        lock.release()


def _leave(folder: Path, new: bool) -> None:
    """Where no job was begun nothing stays: neither the job's folder nor, if it is new, the one around it."""
    with suppress(OSError):
        shutil.rmtree(folder)
        if new:
            folder.parent.rmdir()


@contextmanager
def _lock_there(out: Place) -> Iterator[None]:
    place = out / FOLDER / "alive.json"
    me, over = uuid.uuid4().hex, threading.Event()
    if place.exists() and time.time() - _sign(place).get("time", 0.0) < _DEAD:
        raise _taken(out, place)

    def live() -> None:
        while not over.wait(_BEAT):
            with suppress(OutputError):
                place.write(_owner(me))

    place.write(_owner(me))
    if _sign(place).get("id") != me:
        raise _taken(out, place)
    beating = threading.Thread(target=live, name="mien-alive", daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        place.remove()


def _owner(number: str = "") -> bytes:
    facts = {"id": number, "host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
    return msgspec.json.encode(facts)


def _sign(place: Place) -> dict[str, Any]:
    """What an owner wrote of itself; nothing if that cannot be read."""
    with suppress(msgspec.MsgspecError, *place_errors()):
        return msgspec.json.decode(place.read(), type=dict[str, Any])
    return {}


def _taken(out: Place, owner: Place) -> OutputError:
    facts = _sign(owner)
    who = f" (process {facts['process']} on {facts['host']})" if facts else ""
    killed = "" if out.local else f"; if it was killed, wait {_DEAD:.0f} seconds"
    return OutputError(f"{out}: another annotation is at work there{who}; wait for it, or choose another --out{killed}")
