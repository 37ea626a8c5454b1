"""Files appear whole (written aside, then renamed) or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path

from mien.errors import ConfigError, MienError, OutputError

__all__ = [
    "beside",
    "check_distinct",
    "check_free",
    "digest",
    "give_name",
    "is_hidden",
    "is_there",
    "path_text",
    "quoted",
    "whole_file",
    "whole_files",
]


def path_text(path: str | PathLike[str]) -> str:
    """A path as text that can be written anywhere: bytes of its name that are no UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")


def quoted(word: str) -> str:
    """A word of a command line as a person types it here: Windows' command prompt knows double quotes alone."""
    if sys.platform != "win32":
        return shlex.quote(word)
    return word if re.fullmatch(r"[\w@+=:,./\\-]+", word) else f'"{word}"'


def is_hidden(path: str | PathLike[str], pattern: str | PathLike[str] = "") -> bool:
    """Whether a name in a path begins with a point and no part of the pattern that begins with one asks for it, as in a shell.

    macOS leaves `._a.jpg`, which is no picture, beside a.jpg.

    >>> is_hidden("in/._a.jpg", "in/*.jpg"), is_hidden("in/._a.jpg", "in/.*.jpg"), is_hidden(".in/a.jpg", ".in/*.jpg")
    (True, False, False)
    """
    asked = [part for part in Path(pattern).parts if part.startswith(".")]
    named = [part for part in Path(path).parts if part.startswith(".")]
    return not all(any(fnmatchcase(part, one) for one in asked) for part in named)


def is_there(path: str | PathLike[str]) -> bool:
    """Whether something has this path. Raises OSError where that cannot be known: a locked folder, a name too long.

    `Path.exists` and its like raise so too, but from Python 3.14 on they answer False.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


#: What is said of a file that Windows keeps from being replaced.
_HELD = "another program has it open, or it is read-only; close it there, or choose another name"
#: Seconds for which a finished file is tried to be given its name.
_MOMENT = 2.0
#: Bytes of a name that stand in a longer one; most file systems know names of 255 at most.
_KEPT = 150


def beside(path: Path, ending: str) -> Path:
    """A hidden path beside `path`, of its name and an ending; in place of a long name stands its hash, as the sum must fit.

    >>> beside(Path("in/a.jpg"), ".lock").as_posix(), len(beside(Path("a" * 251 + ".jpg"), ".lock").name)
    ('in/.a.jpg.lock', 38)
    """
    name = os.fsencode(path.name)
    known = path.name if len(name) <= _KEPT else hashlib.sha256(name).hexdigest()[:32]
    return path.with_name(f".{known}{ending}")


def check_free(path: str | PathLike[str], overwrite: bool = False) -> Path:
    """The path, if a file may be written there. Raises OutputError: it exists, or its folder does not; Windows keeps it."""
    path = _free(path, overwrite)
    if path.is_file() and _is_held(path):
        raise OutputError(f"{path}: cannot be replaced: {_HELD}")
    return path


def _free(path: str | PathLike[str], overwrite: bool) -> Path:
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or pass --overwrite")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no folder {path.parent}; make it first")
    return path


def _is_held(path: Path) -> bool:
    """Whether Windows would let nothing take the place of a file: another program, as Excel does, keeps it to itself."""
    if sys.platform != "win32":
        return False
    try:
        path.open("r+b").close()
    except PermissionError:
        return True
    return False


def give_name(part: Path, path: Path) -> None:
    """Rename a finished file, over what has its name. Raises OSError.

    Windows refuses while a program has either open, as virus scanners have a new file for a moment: it is tried for two seconds.
    """
    until = time.monotonic() + _MOMENT
    while True:
        try:
            part.replace(path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > until:
                raise
            time.sleep(_MOMENT / 20)
        else:
            return


def check_distinct(paths: Sequence[Path]) -> None:
    """Raises ConfigError: one file is named for two outputs, or is on disks to which a capital is a small letter."""
    places = [(path.resolve().parent, path.resolve().name.casefold()) for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"{path}: is named for two outputs; give each its own file")


def digest(*paths: Path) -> str:
    """The sha256 of files, one behind the other, in hexadecimal digits. Raises OSError."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@contextmanager
def whole_file(path: str | PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it if the block ends well, removed if not.

    The temporary name keeps the suffix. Raises OutputError: the output exists, the disk is full, the place cannot be
    written.
    """
    with whole_files([path], overwrite) as parts:
        yield parts[0]


@contextmanager
def whole_files(paths: Sequence[str | PathLike[str]], overwrite: bool = False) -> Iterator[list[Path]]:
    """As whole_file, for files that belong together: none gets its name before all are written, then one right after another.

    paths: the first, which the others describe, gets its name last, so that it is never there without them. Where another
    program, on Windows, keeps an old one from being replaced, those that are finished stay aside, and the error names them.
    """
    places = [_free(path, overwrite) for path in paths]
    parts = [beside(path.with_suffix(""), f".{os.getpid()}.part{path.suffix}") for path in places]
    at, left = places[0], parts
    try:
        yield parts
        for at, part in zip(reversed(places), reversed(parts), strict=True):
            try:
                give_name(part, at)
            except PermissionError:
                if not _is_held(at):
                    raise
                left = []
                aside = ", ".join(str(one) for one in parts if one.exists())
                raise OutputError(f"{at}: cannot be replaced: {_HELD}; what was made lies in {aside}") from None
    except OSError as error:
        if isinstance(error, MienError):
            raise
        raise OutputError(f"{at}: cannot be written ({error.strerror or error})") from error
    finally:
        for part in left:
            with suppress(OSError):  # whatever is still open then; what went wrong before is what matters
                part.unlink(missing_ok=True)
