"""Clips that are read in the background: one at a time, each in a process of its own, with progress, result and cancel.

A process of its own, because decoders meet hostile files: if one dies, the job has failed and the server is up. Tables are
kept for a while in a temporary folder and go with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from mien.apps.gate import log
from mien.apps.measures import Measures
from mien.apps.records import JobRecord
from mien.apps.settings import Settings
from mien.errors import MienError, ModelError, VideoError

__all__ = ["FORMS", "Jobs", "Opening", "check_files", "check_form", "clip_kind", "mark", "read_clip"]

#: The forms of a job's table, and how each is called on the web.
FORMS = {"csv": "text/csv", "jsonl": "application/x-ndjson"}
#: FFmpeg's names of the forms of `clip_kind`.
_FORMS_READ = "matroska,webm,mov,mp4,avi,gif,ogg,flv,mpeg"
_EVERY = 0.25  # seconds between reports of a job's process
_NAME = "clip"
_PREFIX = "mien-serve-"
_SMOOTH = 0.3  # seconds; as mien watch does


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """How to open the reader: the arguments of mien.load that a process can be given.

    files: the files that it opens, as `mark` found them; one that has been replaced since is not opened.
    """

    model: str
    detector: str = "auto"
    detector_file: str | None = None
    min_size: float | None = None
    files: dict[str, tuple[int, int]] = {}


def mark(path: Path) -> tuple[int, int]:
    """What tells a file from one that takes its place: its size and when it was written. (-1, 0): it cannot be looked at."""
    try:
        seen = path.stat()
    except OSError:
        return (-1, 0)
    return (seen.st_size, seen.st_mtime_ns)


def check_files(opening: Opening) -> None:
    """Raises ModelError: a file is not the one with which the server started."""
    for path, seen in opening.files.items():
        if mark(Path(path)) != seen:
            raise ModelError(
                f"{Path(path).name}: was replaced or removed since the server started; start the server again to use it"
            )


def clip_kind(head: bytes) -> str:
    """The container of a video file, from its first 16 bytes; '' for anything else.

    Play lists are not among them: they would make the decoder open other files and addresses.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"FLV\x01" and head[5:9] == b"\0\0\0\x09":
        return "flv"
    known = {
        b"\x1aE\xdf\xa3": "matroska",
        b"GIF87a": "gif",
        b"GIF89a": "gif",
        b"OggS\0": "ogg",
        b"\0\0\x01\xba": "mpeg",
    }
    return next((form for magic, form in known.items() if head.startswith(magic)), "")


def check_form(clip: Path) -> None:
    """Raises VideoError: the decoder, which looks at more than the head, takes a clip for none of the forms of `clip_kind`."""
    import av

    try:
        av.open(str(clip), options={"format_whitelist": _FORMS_READ}).close()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise VideoError(f"{clip}: cannot be read as a video of a known form ({words})") from error


@dataclass
class _Job:
    record: JobRecord
    every: int = 1
    ended: float = 0.0
    process: Any = None
    cancelled: bool = False
    asked: float = field(default_factory=time.monotonic)


class Jobs:
    """The clips of one server. All methods run on its event loop."""

    def __init__(self, opening: Opening, settings: Settings, measures: Measures) -> None:
        self._opening, self._settings, self._measures = opening, settings, measures
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._jobs: dict[str, _Job] = {}
        self._arriving = 0
        self._wake = asyncio.Event()
        self._loop = asyncio.create_task(self._work())

    @property
    def pending(self) -> int:
        """Clips that arrive, wait or are read."""
        return self._arriving + sum(job.record.state in ("queued", "running") for job in self._jobs.values())

    @contextlib.contextmanager
    def arrival(self) -> Any:
        """A place for one more clip: (its id, the file to fill). What is not added is removed."""
        if not self._folder.is_dir():  # whoever tidies temporary folders took it, and the tables in it
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        name = secrets.token_urlsafe(12)
        place = self._folder / name
        place.mkdir()
        self._arriving += 1
        try:
            yield name, place / "clip.bin"
        finally:
            self._arriving -= 1
            if name not in self._jobs:
                shutil.rmtree(place, ignore_errors=True)

    def add(self, name: str, every: int) -> JobRecord:
        """Put an arrived clip in the queue."""
        self._jobs[name] = _Job(JobRecord(id=name), every)
        self._wake.set()
        return self._jobs[name].record

    def get(self, name: str) -> JobRecord | None:
        """A job, or None if there is none of that id (any more)."""
        self._forget()
        job = self._jobs.get(name)
        return None if job is None else job.record

    def all(self) -> list[JobRecord]:
        """Every job, the oldest first."""
        self._forget()
        return [job.record for job in self._jobs.values()]

    def table(self, name: str, form: Literal["csv", "jsonl"]) -> Path:
        """Where the table of a job that is done lies."""
        return self._folder / name / f"faces.{form}"

    def cancel(self, name: str) -> JobRecord:
        """Stop a job, or remove one that has ended; nothing of it is kept."""
        job = self._jobs[name]
        if job.record.state == "running":
            job.cancelled = True
            if job.process is not None and job.process.is_alive():  # one that is just being started is ended by `_run`
                job.process.terminate()
            job.record = msgspec.structs.replace(job.record, state="cancelled")
        else:
            if job.record.state == "queued":
                job.record = msgspec.structs.replace(job.record, state="cancelled")
            self._remove(name)
        return job.record

    async def close(self) -> None:
        """Stop everything and remove the folder."""
        for job in self._jobs.values():
            if job.process is not None and job.process.is_alive():
                job.process.terminate()  # before the loop's end, which waits for it
        self._loop.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
            for job in self._jobs.values():
                if job.process is not None and job.process.is_alive():
                    job.process.terminate()
                    await asyncio.to_thread(job.process.join, 5)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _remove(self, name: str) -> None:
        del self._jobs[name]
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _forget(self) -> None:
        """Remove what has been kept long enough, and the oldest of too many."""
        late, most = time.monotonic() - self._settings.keep, 4 * self._settings.jobs
        ended = sorted((job.ended, name) for name, job in self._jobs.items() if job.ended)
        for number, (when, name) in enumerate(ended):
            if when < late or number < len(ended) - most:
                self._remove(name)

    async def _work(self) -> None:
        while True:
            name = next((name for name, job in self._jobs.items() if job.record.state == "queued"), None)
            if name is None:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), min(60.0, self._settings.keep))
                self._forget()
                continue
            job = self._jobs[name]
            job.record = msgspec.structs.replace(job.record, state="running")
            try:
                await self._run(job, self._folder / name)
            except (OSError, RuntimeError) as error:
                # No file, process or thread is left for it; the next may have better luck.
                log.error("clip", exc_info=error)
                _fail(
                    job,
                    f"no process could be started for it ({error}); the server is short of something, try again later",
                )
            job.ended = time.monotonic()
            try:
                (self._folder / name / "clip.bin").unlink(missing_ok=True)
            except OSError as error:  # it goes with its job; the next one is read
                log.error("clip stays", exc_info=error)
            self._measures.jobs.labels(job.record.state).inc()
            if job.cancelled and name in self._jobs:
                self._remove(name)

    async def _run(self, job: _Job, folder: Path) -> None:
        """Start the process of a job and take its reports until it ends. Raises OSError, RuntimeError: it does not start."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        given = (folder, job.every, self._opening, self._settings, theirs)
        job.process = context.Process(target=_in_process, args=given, daemon=True)
        try:
            await asyncio.to_thread(job.process.start)
        except (OSError, RuntimeError):
            ours.close()
            theirs.close()
            raise
        if job.cancelled:
            job.process.terminate()
        theirs.close()
        try:
            await self._follow(job, ours)
        finally:
            ours.close()
            await asyncio.to_thread(job.process.join, 10)

    async def _follow(self, job: _Job, reports: Any) -> None:
        """Take the reports of a job's process until it ends, is cancelled or takes too long."""
        until = time.monotonic() + self._settings.job_seconds
        try:
            while not job.cancelled:
                if await asyncio.to_thread(reports.poll, _EVERY):
                    job.record = msgspec.structs.replace(job.record, **reports.recv())
                if time.monotonic() > until:
                    job.process.terminate()
                    _fail(job, f"took longer than {self._settings.job_seconds:g} s; cut the clip or raise `every`")
                    break
        except (EOFError, OSError):
            _fail(job, "its process ended without a word; the clip may be damaged in a way that breaks the decoder")


def _fail(job: _Job, problem: str) -> None:
    """Say why a job that is still running failed."""
    if job.record.state == "running":
        job.record = msgspec.structs.replace(job.record, state="failed", problem=problem)


def _in_process(folder: Path, every: int, opening: Opening, settings: Settings, pipe: Any) -> None:
    """The life of a job's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends it
    try:
        try:
            read_clip(folder, every, opening, settings, pipe.send)
        except MienError as error:
            text = str(error).replace(str(folder / "clip.bin"), _NAME)
            pipe.send({"state": "failed", "problem": text})
    except BrokenPipeError:  # the server is gone
        pass
    finally:
        pipe.close()


def read_clip(folder: Path, every: int, opening: Opening, settings: Settings, tell: Any) -> None:
    """Read folder/clip.bin into folder/faces.csv and .jsonl, telling JobRecord's fields as they change.

    Raises MienError if nothing could be read; a clip that is damaged later on is done, with its problem said.
    """
    from mien.runtime.read import load
    from mien.runtime.table import TableSink
    from mien.runtime.watch import Watching
    from mien.vision.video import video_info

    clip = folder / "clip.bin"
    check_form(clip)
    info = video_info(clip)
    if info.width * info.height > settings.max_pixels:
        raise VideoError(f"{clip}: {info.width}x{info.height} pixels; the limit is {settings.max_pixels:,}")
    total = None if info.frames is None else -(-info.frames // every)
    check_files(opening)
    reader = load(opening.model, opening.detector, None, opening.detector_file, opening.min_size)
    spec, how = reader.classifier.spec, Watching(smoothing=_SMOOTH)
    frames = faces = 0
    seconds, told, problem = 0.0, 0.0, ""
    tell({"total": total})
    with contextlib.ExitStack() as stack:
        tables = [
            stack.enter_context(TableSink(folder / f"faces.{form}", spec.labels, False, _NAME, spec.name, _SMOOTH))
            for form in FORMS
        ]
        try:
            for frame, found in reader.watch(clip, every, how=how):
                if frame.seconds > settings.max_video_seconds:
                    problem = f"longer than {settings.max_video_seconds:g} s; the rest was left out"
                    break
                for table in tables:
                    table.write(frame, found)
                frames, faces, seconds = frames + 1, faces + len(found), frame.seconds
                if time.monotonic() - told > _EVERY:
                    told = time.monotonic()
                    tell({"frames": frames, "faces": faces, "seconds": round(seconds, 3)})
        except VideoError as error:
            if not frames:
                raise
            problem = str(error).replace(str(clip), _NAME)
    tell({"frames": frames, "faces": faces, "seconds": round(seconds, 3), "problem": problem, "state": "done"})
