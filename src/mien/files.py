"""Files appear whole (written aside, then renamed) or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from mien.errors import OutputError

__all__ = ["check_free", "whole_file"]


def check_free(path: str | PathLike[str], overwrite: bool = False) -> Path:
    """The path, if a file may be written there. Raises OutputError: it exists, or its folder does not."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or pass --overwrite")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no folder {path.parent}; make it first")
    return path


@contextmanager
def whole_file(path: str | PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it if the block ends well, removed if not.

    The temporary name keeps the suffix. Raises OutputError: the output exists, the disk is full, the place cannot be
    written.
    """
    path = check_free(path, overwrite)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)
