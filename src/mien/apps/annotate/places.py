"""Places: folders on this machine, and buckets through fsspec, spoken to in one way."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import shutil
import stat
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
from fsspec.utils import glob_translate

from mien.errors import ConfigError, DataError, OutputError
from mien.files import is_hidden, path_text, whole_file

__all__ = ["ARCHIVES", "Place", "is_glob", "open_place", "place_errors", "reason", "whole_address"]

#: Archives that give one member without reading all before it, by their endings: what fsspec calls them.
ARCHIVES = {".tar": "tar", ".zip": "zip"}

#: What buckets raise besides OSError, by the module that must have been imported for it to be raised.
_RAISED = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
    ("aiohttp", "ClientError"),
    ("zipfile", "BadZipFile"),
    ("tarfile", "TarError"),
)
_TRIES, _PAUSE = 3, 0.5
#: Members of a tar archive share one file and its position: they are read one after another.
_TURN = threading.Lock()


def place_errors() -> tuple[type[BaseException], ...]:
    """What reading from a place may raise."""
    found = [getattr(sys.modules[module], name, None) for module, name in _RAISED if module in sys.modules]
    return (OSError, *(kind for kind in found if kind is not None))


def reason(error: BaseException) -> str:
    """An error of a place in a few words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())[:200]


def is_glob(text: str) -> bool:
    """Whether a text is a pattern and not the name of something that is there."""
    return any(letter in text for letter in "*?[") and not Path(text).exists()


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder: a file system of fsspec and a path in it.

    archive: the address of the archive that holds it; '' outside of archives.
    """

    fs: Any
    path: str
    local: bool
    archive: str = ""

    def __str__(self) -> str:
        return path_text(self._text())

    def _text(self) -> str:
        text = self.path if self.local else str(self.fs.unstrip_protocol(self.path))
        return f"{text}::{self.archive}" if self.archive else text

    def __truediv__(self, name: str) -> Place:
        return self.at(f"{self.path.rstrip('/')}/{name}")

    def at(self, path: str) -> Place:
        """Another path in the same file system."""
        return Place(self.fs, path, self.local, self.archive)

    def stored(self) -> bytes:
        """What `open_place` opens again, whatever bytes the name holds."""
        return os.fsencode(self._text())

    def inside(self) -> Place | None:
        """Of a file that is an archive by its ending: what it holds, as a folder. Raises DataError: it cannot be opened."""
        kind = ARCHIVES.get(os.path.splitext(self.path)[1].lower())
        return open_place(os.fsencode(f"{kind}://::{self._text()}")) if kind else None

    def exists(self) -> bool:
        """Whether something is there. Raises DataError: it cannot be asked."""
        return bool(self._kind())

    def is_folder(self) -> bool:
        """Whether it is a folder (a prefix, in a bucket). Raises DataError."""
        return self._kind() == "directory"

    def _kind(self) -> str:
        try:
            return str(self.fs.info(self.path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except place_errors() as error:
            raise self._unread(error) from error

    def _unread(self, error: BaseException) -> DataError:
        return DataError(
            f"{self}: cannot be read ({reason(error)}); are name, rights and credentials as they should be?"
        )

    def read(self) -> bytes:
        """All bytes; a bucket is asked three times. Raises what `place_errors` lists."""
        if self.local:
            return Path(self.path).read_bytes()
        if self.archive:
            return self._member()
        for attempt in range(_TRIES):
            try:
                return bytes(self.fs.cat_file(self.path))
            except (FileNotFoundError, PermissionError, IsADirectoryError):
                raise
            except ValueError as error:
                raise OSError(errno.EINVAL, f"no address: {error}") from error
            except place_errors():
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE * 2**attempt)
        raise AssertionError

    def _member(self) -> bytes:
        try:
            with _TURN:
                return bytes(self.fs.cat_file(self.path))
        except (
            zlib.error,
            RuntimeError,
            KeyError,
        ) as error:  # damaged; encrypted, packed in an odd way; a link to nothing
            raise OSError(errno.EIO, f"its archive does not give it: {' '.join(map(str, error.args))}") from error

    def is_endless(self) -> bool:
        """Whether it is a pipe or a device of this machine: reading it might never end."""
        if not self.local:
            return False
        try:
            mode = os.stat(self.path).st_mode
        except OSError:
            return False
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    def open(self) -> Any:
        """A file object to read from, with `seek`."""
        return io.BytesIO(self.read()) if self.archive else self.fs.open(self.path, "rb")

    def fetch(self, out: Path) -> None:
        """Copy the file to a file of this machine."""
        if self.archive:
            out.write_bytes(self.read())
            return
        try:
            self.fs.get_file(self.path, str(out))
        except ValueError as error:
            raise OSError(errno.EINVAL, f"no address: {error}") from error

    def write(self, data: bytes) -> None:
        """The file appears whole or not at all. Raises OutputError."""
        try:
            if self.local:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
                with whole_file(self.path, overwrite=True) as aside:
                    aside.write_bytes(data)
            else:
                self.fs.pipe_file(self.path, data)
        except OutputError:
            raise
        except place_errors() as error:
            raise OutputError(f"{self}: cannot be written ({reason(error)})") from error

    def remove(self) -> None:
        """The file or folder is gone. Raises OutputError."""
        try:
            if not self._kind():
                return
            if self.local and Path(self.path).is_dir():
                shutil.rmtree(self.path)
            else:
                self.fs.rm(self.path, recursive=True)
        except place_errors() as error:
            raise OutputError(f"{self}: cannot be removed ({reason(error)})") from error

    def names(self) -> list[str]:
        """The names of what lies in this folder, sorted; none if it is not there."""
        try:
            found = self.fs.ls(self.path, detail=False, **({} if self.local else {"refresh": True}))
        except FileNotFoundError:
            return []
        except place_errors() as error:
            raise DataError(f"{self}: cannot be read ({reason(error)})") from error
        return sorted(name for name in (path.rstrip("/").rsplit("/", 1)[-1] for path in found) if name)

    def size(self) -> int:
        """Bytes of the file; 0 if it is not there. Raises DataError."""
        try:
            return int(self.fs.info(self.path).get("size") or 0)
        except FileNotFoundError:
            return 0
        except place_errors() as error:
            raise self._unread(error) from error

    def files(self, without: str = "") -> Iterator[tuple[Place, int | None]]:
        """Every file below this folder and, where listing tells it, its size; folder by folder, hidden ones left out; a glob's
        files, hidden ones if it asks for them (`.*.jpg`). Links to folders of this machine are not followed.

        without: a path in the same file system below which nothing is taken. Raises DataError.
        """
        walked = self._walked_here if self.local else self._walked
        found = self._packed if self.archive else self._globbed if is_glob(self.path) else walked
        try:
            for path, size in found():
                if not without or not path.startswith(without.rstrip("/") + "/"):
                    yield self.at(path), size
        except place_errors() as error:
            raise self._unread(error) from error

    def _walked_here(self) -> Iterator[tuple[str, int | None]]:
        def fail(error: OSError) -> None:
            raise error

        for folder, folders, names in os.walk(self.path, onerror=fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                yield os.path.join(folder, name).replace(os.sep, "/"), None  # as fsspec writes paths on Windows, too

    def _walked(self) -> Iterator[tuple[str, int | None]]:
        for _, folders, files in self.fs.walk(self.path, detail=True, on_error="raise"):
            for name in [name for name in folders if name.startswith(".")]:
                del folders[name]
            for name in sorted(name for name in files if not name.startswith(".")):
                yield files[name]["name"], int(files[name].get("size") or 0)

    def _packed(self) -> Iterator[tuple[str, int | None]]:
        """An archive's files in one go: fsspec goes through its whole list of members for each folder."""
        below = _tidy(self.path) + "/" if _tidy(self.path) else ""
        asked = re.compile(glob_translate(self.path) if is_glob(self.path) else re.escape(below))
        self.fs.exists("")  # now the list is there
        for path, facts in sorted(self.fs.dir_cache.items()):
            name = _tidy(path)
            if facts["type"] == "file" and asked.match(name) and not is_hidden(name, self.path):
                yield path, int(facts.get("size") or 0)

    def _globbed(self) -> Iterator[tuple[str, int | None]]:
        for path, facts in sorted(self.fs.glob(self.path, detail=True).items()):
            if facts.get("type") == "file" and not is_hidden(path, self.path):
                yield path, int(facts.get("size") or 0)


def open_place(text: str | os.PathLike[str] | bytes) -> Place:
    """The place that a path or an address (s3://, gs://, memory://, file://, ...) names.

    A path may hold `::`, which joins addresses (zip://a.jpg::b.zip): what is there is a path.
    Raises ConfigError (no such kind of address, or what it needs is not installed), DataError (it cannot be reached).
    """
    name = os.fsdecode(text)
    bare = name.removeprefix("file://")
    if "::" in bare and _is_here(bare):
        return Place(fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(bare)), True)
    inner, archive = _joined(name)
    kind, _, member = inner.partition("://")
    if archive and kind in ARCHIVES.values():
        return Place(_archive(kind, archive, _stamp(archive)), member, False, archive)
    try:
        fs, path = fsspec.core.url_to_fs(name)
    except ImportError as error:
        missing = str(error).strip() or "a package that is not installed"
        raise ConfigError(f"{name}: fsspec cannot open such addresses yet: {missing} (by pip)") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; addresses begin with s3://, gs://, az://, file:// ...") from error
    except place_errors() as error:
        raise DataError(f"{name}: cannot be reached ({reason(error)})") from error
    return Place(fs, path, "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)))


@lru_cache(maxsize=16)
def _archive(kind: str, archive: str, _stamp: tuple[int, int]) -> Any:
    """The file system of an archive: kept, as its list of members is read when it is opened. Raises DataError."""
    place = open_place(archive)
    try:
        return fsspec.filesystem(kind, fo=place.open())
    except FileNotFoundError as error:
        raise DataError(f"{place}: there is no such archive; check its name") from error
    except place_errors() as error:
        raise DataError(
            f"{place}: cannot be opened as .{kind} ({reason(error)}); mend it, or leave it out with a pattern"
        ) from error


def _joined(name: str) -> tuple[str, str]:
    """What is asked of an archive, and the archive's address, '' without one. Where more than one `::` may join them, the first
    with an address or a file of this machine behind it does.

    >>> _joined("tar://a::b.jpg::zip://c.tar::d.zip")
    ('tar://a::b.jpg', 'zip://c.tar::d.zip')
    """
    parts = name.split("::")
    ways = [("::".join(parts[:at]), "::".join(parts[at:])) for at in range(1, len(parts))]
    first = ways[0] if ways else (name, "")
    return next((way for way in ways if _is_address(way[1]) or os.path.isfile(way[1].removeprefix("file://"))), first)


def _is_address(name: str) -> bool:
    begin = name.partition("::")[0]
    return "://" in begin or begin in fsspec.available_protocols()


def _tidy(member: str) -> str:
    """A member's name as one would give it: `tar cf a.tar .` calls b.jpg ./b.jpg."""
    return posixpath.normpath("/" + member.lstrip("/"))[1:]


def _stamp(archive: str) -> tuple[int, int]:
    """When an archive of this machine was last written, and its bytes: one that was written anew is opened anew."""
    try:
        facts = os.stat(archive.removeprefix("file://"))
    except (OSError, ValueError):
        return 0, 0
    return facts.st_mtime_ns, facts.st_size


def whole_address(text: str) -> str:
    """An input's or root's text as it means the same from every folder.

    >>> whole_address("s3://bucket/photos"), whole_address("zip://*.jpg::/data/a.zip")
    ('s3://bucket/photos', 'zip://*.jpg::/data/a.zip')
    """
    inner, archive = _joined(text)
    if archive and "://" in inner and not _is_address(archive):
        return f"{inner}::{os.path.abspath(archive)}"
    return text if "://" in text or not text else os.path.abspath(text)


def _is_here(name: str) -> bool:
    """Whether a name with `::` is one of this machine: it is there, or no address of a chain begins so."""
    known = "://" in name or name.partition("::")[0] in fsspec.available_protocols()
    return not known or os.path.exists(os.path.expanduser(name))
