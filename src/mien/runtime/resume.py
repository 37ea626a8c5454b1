"""Going on where a killed reading stopped: what was finished is not read again, and the rows are those of one go."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from mien.files import beside, whole_file

__all__ = ["Bookmark", "Progress", "key_of", "mark_of"]

#: The form of `Progress.state`: with another one a reading begins anew.
_STATE = 4


class Progress(msgspec.Struct, frozen=True):
    """How far a reading came.

    key: of source, model and settings.  size: bytes of the finished rows.  index, seconds: of the last finished frame.
    start: the time of the first frame of a saved video.  video: bytes of its finished parts.  state: of a mien.runtime.watch.Memory.
    ended: the reading itself is finished, and its problem; outputs alone are missing.  done: marks of those that are there.
    damaged: where the source was found to be; see mien.vision.video.frames.
    """

    key: str
    size: int
    index: int
    seconds: float
    frames: int
    faces: int
    start: float | None
    video: int
    state: dict[str, Any]
    ended: bool = False
    problem: str = ""
    done: dict[str, list[int]] = {}
    damaged: list[tuple[float, float]] = []

    def made(self, role: str, path: Path) -> bool:
        """Whether an output is there as this reading wrote it.  role: a name for it, such as 'table'."""
        return self.ended and path.is_file() and self.done.get(role) == mark_of(path)


class Bookmark:
    """A small file beside the table that says how far a reading came."""

    def __init__(self, table: Path, key: str = "") -> None:
        self.path, self.key = beside(table, ".bookmark"), key

    def read(self) -> Progress | None:
        """How far an earlier reading with the same key came; None if there is none, or it is damaged or of something else.

        Without a key of its own: of any reading."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=Progress)
        except (OSError, msgspec.DecodeError):
            return None
        return found if self.key in ("", found.key) else None

    def write(self, progress: Progress) -> None:
        """Raises OutputError."""
        with whole_file(self.path, overwrite=True) as aside:
            aside.write_bytes(msgspec.json.encode(progress))

    def remove(self) -> None:
        """The reading is finished."""
        self.path.unlink(missing_ok=True)


def mark_of(path: Path) -> list[int]:
    """What a file is known by again: its size and the time of its last change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def key_of(source: Path, facts: dict[str, Any]) -> str:
    """A reading's key: the file (name, size, time of its last change) and all that its rows depend on."""
    stat = source.stat()
    parts = [_STATE, str(source.resolve()), stat.st_size, stat.st_mtime_ns, sorted(facts.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()  # json, not msgspec: it takes names that are no UTF-8
