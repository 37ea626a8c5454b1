"""What a reading left that cannot be gone on with, of a stream or a camera: killed, or with a full disk. It is kept under a name of its own."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

from mien.errors import OutputError
from mien.files import beside, whole_file
from mien.runtime.copy import folder_of, parts_of

__all__ = ["keep_rows", "keep_video"]

#: Bytes at the end of a part file in which its last whole row ends.
_TAIL = 1 << 16


def keep_rows(rows: Path, name: Path) -> Path | None:
    """The rows that a mien.runtime.table.TableSink for `rows` left, up to the last whole one, as CSV beside `name`; None: there are none.

    Raises OutputError.
    """
    part = beside(rows, ".part")
    try:
        if not part.is_file() or not _whole(part):
            part.unlink(missing_ok=True)
            return None
        kept = _free(name.with_suffix(".csv"))
        part.rename(kept)
    except OSError as error:
        raise OutputError(f"{part}: its rows cannot be kept ({error.strerror or error})") from error
    return kept


def keep_video(path: Path) -> Path | None:
    """The finished parts that a mien.runtime.copy.VideoSink for `path` left, as one video beside it; None: there are none.

    Raises OutputError: they cannot be joined; they stay where they are.
    """
    parts = parts_of(path)
    if not parts:
        return None
    from mien.vision.join import join

    kept = _free(path)
    try:
        with whole_file(kept) as aside:
            join(parts, aside, None, 0.0)
    except OutputError as error:
        words = f"make room and give the command again, or move {folder_of(path)} away, where they are"
        raise OutputError(f"{path}: the parts that were saved cannot be joined ({error}); {words}") from error
    shutil.rmtree(folder_of(path), ignore_errors=True)
    return kept


def _whole(part: Path) -> bool:
    """Cut what follows the last end of a line; whether a row is left below the line of names."""
    with part.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
        file.seek(0)
        file.readline()
        return bool(file.readline())


def _free(path: Path) -> Path:
    """A name that no file has: door-kept-1.csv."""
    names = (path.with_name(f"{path.stem}-kept-{number}{path.suffix}") for number in count(1))
    return next(name for name in names if not name.exists())
