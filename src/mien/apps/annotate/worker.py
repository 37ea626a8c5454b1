"""Whoever does blocks: in this process, or in a process of its own that an input may kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from os import PathLike
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mien.apps.annotate.block import Source, annotate_block
from mien.apps.annotate.columns import Row, schema_of, table_of
from mien.apps.annotate.job import FOLDER, Done, Job, job_of, part_place
from mien.apps.annotate.places import Place, open_place
from mien.apps.annotate.plan import read_block
from mien.errors import ConfigError, MienError, OutputError
from mien.runtime.read import Reader, load

__all__ = ["Child", "Files", "Worker", "check_seen", "out_text"]

#: An input that killed a process so often is left unread; so many inputs of a block may do so before the job stops.
_DEATHS, _LOST = 2, 10


class Files(msgspec.Struct, frozen=True):
    """Where model and detector lie on this machine; no detector file for 'whole'."""

    model: str
    detector: str | None


class Worker:
    """Does blocks of a job, one at a time, on one core.

    Raises ConfigError: the job's folder cannot be seen from here; ModelError: the model cannot be opened.
    """

    def __init__(self, out: str | PathLike[str], files: Files) -> None:
        import cv2

        cv2.setNumThreads(1)
        self.out = open_place(out)
        found = self.job = check_seen(self.out)
        how = found.how
        self.reader: Reader = load(
            files.model, how.detector, 1, files.detector, how.min_size, engine=how.engine, device=how.device
        )
        self._source = Source(how.rate, found.column, found.asked.keep, found.asked.root)

    def do(
        self,
        number: int,
        seen: Callable[[int], None] = lambda _: None,
        lost: Mapping[int, str] | None = None,
        read: Callable[[], None] = lambda: None,
    ) -> Done:
        """Annotate a block and write its part, whole. Raises OutputError, DataError.

        seen, lost: see annotate_block.  read: called when every input is read and the part is about to be written.
        """
        start = time.process_time()
        block = read_block(self.out / FOLDER, number)
        rows = annotate_block(block, self.reader, self._source, seen, lost)
        read()
        failed = [row for row in rows if row.error is not None]
        done = Done(
            number, len(rows), len(failed), sum(len(row.frame_index) for row in rows), sum(len(row.found) for row in rows),
            round(time.process_time() - start, 3), f"{failed[0].image}: {failed[0].error}"[:300] if failed else "",
        )  # fmt: skip
        if done.inputs != block.inputs:
            raise OutputError(f"block {number}: {done.inputs} rows for {block.inputs} inputs")
        part_place(self.out, number).write(self._encoded(rows, done))
        return done

    def _encoded(self, rows: list[Row], done: Done) -> bytes:
        job = self.job
        facts = {
            "job": job.id, "done": msgspec.to_builtins(done), "model": self.reader.classifier.spec.name,
            "model_hash": job.how.model_hash, "detector": job.how.detector, "detector_hash": job.how.detector_hash,
            "made_by": job.made_by,
        }  # fmt: skip
        kept = list(pa.ipc.read_schema(pa.BufferReader(job.kept))) if job.kept else []
        stream = pa.BufferOutputStream()
        names = {field.name: field.metadata[b"input"].decode() for field in kept}
        for row in rows:
            row.kept = {name: row.kept[source] for name, source in names.items() if source in row.kept}
        pq.write_table(table_of(rows, schema_of(job.labels, kept, facts)), stream, compression="zstd")
        return bytes(stream.getvalue().to_pybytes())


def check_seen(out: Place) -> Job:
    """The job of a folder. Raises ConfigError: the folder cannot be seen from this machine."""
    found = job_of(out)
    if found is None:
        raise ConfigError(
            f"{out}: cannot be seen from {socket.gethostname()}; --out must be a folder that all machines share, or a "
            "bucket's address"
        )
    return found


def _serve(line: Connection, out: str, files: Files) -> None:
    """The whole life of a child: it takes block numbers until its parent hangs up or dies. An exception that nobody foresaw
    is told, too: as what ends this process, so that it costs an input, or, where no input is being read, as an error.
    """
    number = at = -1

    def seen(i: int) -> None:
        nonlocal at
        at = i
        if i >= 0:
            line.send(("at", i))

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = Worker(out, files)
        line.send(("ready", None))
        while True:
            number, lost = line.recv()
            line.send(("done", worker.do(number, seen, lost, lambda: seen(-1))))
    except MienError as error:
        line.send(("error", error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the parent is told, whatever it is
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        of_input = at >= 0 or isinstance(error, MemoryError)
        line.send(("failed", words) if of_input else ("error", _unforeseen(number, words)))


def _unforeseen(number: int, words: str) -> OutputError:
    what = "an annotating process cannot begin" if number < 0 else f"block {number}"
    return OutputError(
        f"{what}: {words}; that should not happen: please report it. Finished parts are kept: then give the same command again"
    )


def _end_with_parent() -> None:
    """End this process when its parent is gone, in the middle of a block too: then another process will do that block."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class Child:
    """A worker in a process of its own. Whatever kills that process (a damaged file that brings down a decoder, the memory
    of the machine) costs one input: a new process goes on, and an input that killed two is left unread.

    seen: called with a block and the number of an input in it before that is read.
    """

    def __init__(self, out: str, files: Files, seen: Callable[[int, int], None] = lambda _b, _i: None) -> None:
        self._about, self._seen = (out, files), seen
        self._process: Any = None
        self._line: Connection | None = None
        self._closed, self._starting = False, threading.Lock()

    def do(self, number: int) -> Done:
        """See Worker.do. Raises what that raises; OutputError: process after process died, or it was closed."""
        deaths: Counter[int] = Counter()
        lost: dict[int, str] = {}
        while not self._closed:
            at, why = -1, ""
            try:
                line = self._ready()
                line.send((number, lost))
                while True:
                    kind, found = line.recv()
                    if kind == "done":
                        return found
                    if kind == "error":
                        raise found
                    if kind == "failed":
                        why = found
                        raise EOFError
                    at = found
                    self._seen(number, at)
            except (EOFError, OSError) as error:
                if self._closed:
                    raise OutputError(f"block {number}: given up") from error
                if isinstance(error, MienError):
                    raise
                deaths[at] += 1
                how = self._died(why)
                if deaths[at] >= _DEATHS:
                    if at < 0 or at in lost or len(lost) >= _LOST:
                        raise OutputError(
                            f"block {number}: process after process died{how}; is there enough memory (fewer --workers)? "
                            "Finished parts are kept: then give the same command again"
                        ) from error
                    lost[at] = f"the process that read it died twice{how}"
        raise OutputError(f"block {number}: given up")

    def _ready(self) -> Connection:
        """The line to a process that is ready."""
        if self._line is not None:
            return self._line
        context = multiprocessing.get_context("spawn")
        with self._starting:
            if self._closed:
                raise EOFError
            line, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, *self._about), daemon=True, name="mien-annotate")
            process.start()
            self._line, self._process = line, process
        theirs.close()
        kind, error = line.recv()
        if kind == "error":
            raise error
        return line

    def _died(self, why: str = "") -> str:
        """Bury the process; how it died, in words: its last ones, if it left any."""
        process, self._process = self._process, None
        self._line = None
        if process is None:
            return ""
        process.join(5)
        code = process.exitcode
        if code is None:
            process.kill()
            return f" ({why})" if why else ""
        name = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
        print(f"mien: a process that annotated died ({why or name}); another goes on", file=sys.stderr)
        return f" ({why or name})"

    @property
    def process(self) -> int | None:
        """The number of its process, while there is one."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the process, in the middle of a block if need be; no other is started, and `do` raises OutputError."""
        with self._starting:
            self._closed = True
            process, self._process = self._process, None
            line, self._line = self._line, None
        if process is not None:
            process.kill()
            process.join()
        if line is not None:
            line.close()


def out_text(out: Place) -> str:
    """The folder as another process opens it."""
    return os.fsdecode(out.stored())
