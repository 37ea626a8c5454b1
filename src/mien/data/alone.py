"""One process at a time works in a folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mien.errors import OutputError

__all__ = ["ALONE", "alone"]

_LOCK, _OWNER = ".lock", ".owner"
#: Files that stand in a folder while one works there.
ALONE = frozenset({_LOCK, _OWNER})


@contextmanager
def alone(folder: Path, busy: str) -> Iterator[None]:
    """The folder, which is there, for this process; one that dies gives it back.

    busy: what is said, before who it is, where another is at work there. Raises OutputError: so it is; it cannot be written.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"{busy}{_who(folder)}; wait for it, or choose another --out") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        with suppress(OSError):  # a full disk is told by what is written next
            (folder / _OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        (folder / _OWNER).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # Windows, where the next one has it open already
            (folder / _LOCK).unlink(missing_ok=True)


def _who(folder: Path) -> str:
    with suppress(OSError, ValueError):
        return f" ({(folder / _OWNER).read_text(encoding='utf-8')})"
    return ""
