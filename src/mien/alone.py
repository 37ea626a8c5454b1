"""One process at a time works in a folder, or writes a file."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mien.errors import OutputError
from mien.files import beside

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["ALONE", "alone"]

_LOCK, _OWNER = ".lock", ".owner"
#: Files that stand in a folder while one works there.
ALONE = frozenset({_LOCK, _OWNER})


@contextmanager
def alone(place: Path, busy: str, other: str = "choose another --out") -> Iterator[None]:
    """A folder, which is there, or a file, which need not be, for this process; one that dies gives it back.

    busy: what is said, before who it is, where another is at work there.  other: what can be done but wait.
    A file system that knows no locks lets everyone in. Raises OutputError: another is at work there; it cannot be written.
    """
    lock, owner = (place / end if place.is_dir() else beside(place, end) for end in (_LOCK, _OWNER))
    try:
        held = _taken(lock)
    except OSError as error:
        raise OutputError(f"{place}: cannot be written ({error.strerror or error})") from error
    if held is None:
        raise OutputError(f"{busy}{_who(owner)}; wait for it, or {other}")
    try:
        with suppress(OSError):  # a full disk is told by what is written next
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        _give_back(lock, held)


def _taken(lock: Path) -> int | None:
    """The open lock file, this process's own now; None: another's. Raises OSError."""
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not _locked(held):
            os.close(held)
            return None
        if sys.platform == "win32":  # where no file is removed that another has open
            return held
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), lock.stat()):
                return held
        os.close(held)  # the one before removed it after it was opened here


def _locked(file: int) -> bool:
    """Lock it, if no other process has; true where the file system knows no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _give_back(lock: Path, held: int) -> None:
    """Remove the lock file and close it: in that order, where an open file can be removed, so that none slips in between."""
    with suppress(OSError):
        lock.unlink()
    os.close(held)
    if sys.platform == "win32":
        with suppress(OSError):  # the next one has it open already
            lock.unlink()


def _who(owner: Path) -> str:
    with suppress(OSError, ValueError):
        return f" ({owner.read_text(encoding='utf-8')})"
    return ""
