"""Where model files come from: a name -> a verified local file.

Models that ship lie inside the package. The one file that is fetched (YuNet, only when it is asked for and not
cached) comes from pinned addresses and must have the pinned sha256. MIEN_OFFLINE=1 forbids fetching, MIEN_CACHE names
the cache folder, MIEN_YUNET a local file. The fetch sends nothing but a request for the file: it is mien's only use of the
network.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mien.errors import ModelError, ModelNotFound, near_miss
from mien.files import digest, is_there, whole_file
from mien.runtime.engines import FORMS

__all__ = ["DEFAULT_MODEL", "ENTRIES", "Entry", "cache_folder", "fetch", "locate", "model_file"]

DEFAULT_MODEL = "ferplus-small"
_WEIGHTS = Path(__file__).parent.parent / "weights"
_COMMIT = "0047ac24afb1a50a0c6105001c89d1b5b805dbf1"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A model file known by name. `urls` is empty for those inside the package."""

    name: str
    kind: str
    file: str
    licence: str
    about: str
    urls: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0
    variable: str = ""


ENTRIES: dict[str, Entry] = {
    "ferplus-small": Entry(
        name="ferplus-small",
        kind="expression",
        file="ferplus-small.onnx",
        licence="Apache-2.0 (see its card)",
        about="eight expressions and affect; inside the package",
    ),
    "ferplus-nano": Entry(
        name="ferplus-nano",
        kind="expression",
        file="ferplus-nano.onnx",
        licence="Apache-2.0 (see its card)",
        about="the same, a third of the work: for crowds, phones, browsers; inside the package",
    ),
    "ferplus-small-int8": Entry(
        name="ferplus-small-int8",
        kind="expression",
        file="ferplus-small-int8.onnx",
        licence="Apache-2.0 (see its card)",
        about="ferplus-small in eight bits: half the size, faster on processors with VNNI or AMX; inside the package",
    ),
    "ferplus-nano-int8": Entry(
        name="ferplus-nano-int8",
        kind="expression",
        file="ferplus-nano-int8.onnx",
        licence="Apache-2.0 (see its card)",
        about="ferplus-nano in eight bits: the smallest; inside the package",
    ),
    "fer2013-small": Entry(
        name="fer2013-small",
        kind="expression",
        file="fer2013-small.onnx",
        licence="Apache-2.0 (see its card)",
        about="FER2013's seven classes, for comparisons with the field; inside the package",
    ),
    "fer2013-small-int8": Entry(
        name="fer2013-small-int8",
        kind="expression",
        file="fer2013-small-int8.onnx",
        licence="Apache-2.0 (see its card)",
        about="fer2013-small in eight bits: half the size, faster on processors with VNNI or AMX; inside the package",
    ),
    "fer2013-nano": Entry(
        name="fer2013-nano",
        kind="expression",
        file="fer2013-nano.onnx",
        licence="Apache-2.0 (see its card)",
        about="the same, a ninth of the work; inside the package",
    ),
    "fer2013-nano-int8": Entry(
        name="fer2013-nano-int8",
        kind="expression",
        file="fer2013-nano-int8.onnx",
        licence="Apache-2.0 (see its card)",
        about="fer2013-nano in eight bits: the smallest of FER2013's; inside the package",
    ),
    "mien-face": Entry(
        name="mien-face",
        kind="detector",
        file="mien-face.onnx",
        licence="Apache-2.0 (see its card)",
        about="face detector, distilled from YuNet; inside the package",
    ),
    "yunet": Entry(
        name="yunet",
        kind="detector",
        file="yunet_n_dynamic.onnx",
        licence="Apache-2.0",
        about="face detector by S. Yu et al.; fetched when asked for",
        urls=(
            f"https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/{_COMMIT}/onnx/yunet_n_dynamic.onnx",
            f"https://cdn.jsdelivr.net/gh/ShiqiYu/libfacedetection.train@{_COMMIT}/onnx/yunet_n_dynamic.onnx",
        ),
        sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        size=322_906,
        variable="MIEN_YUNET",
    ),
}


def cache_folder() -> Path:
    """Where fetched files are kept; not made until something is fetched."""
    if os.environ.get("MIEN_CACHE"):
        return Path(os.environ["MIEN_CACHE"])
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "mien"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home()) / "mien"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "mien"


def _home() -> Path:
    """The folder for temporary files where the user has none, as in a container whose passwd does not know him."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def model_file(name: str | os.PathLike[str]) -> Path:
    """The expression model file of a name or a path. Raises ModelNotFound with the nearest known name."""
    path = Path(name)
    if path.suffix.lower() in FORMS or path.is_file():
        return path
    known = [entry.name for entry in ENTRIES.values() if entry.kind == "expression"]
    if (path / "weights.safetensors").is_file():
        raise ModelNotFound(f"{name}: a run; make its model file first: mien export {name}")
    if str(name) in ENTRIES and str(name) not in known:
        raise ModelNotFound(f"{name}: is a face detector, no expression model; --detector takes it")
    if str(name) not in known:
        raise ModelNotFound(f"{name}: no model of that name and no such file; {near_miss(str(name), known)}")
    return _WEIGHTS / ENTRIES[str(name)].file


def locate(entry: Entry) -> Path | None:
    """The local file of an entry if it is there already (package, variable or cache), else None."""
    if not entry.urls:
        path = _WEIGHTS / entry.file
        return path if path.is_file() else None
    given = os.environ.get(entry.variable) if entry.variable else None
    if given:
        if not (is_there(given) and Path(given).is_file()):
            raise ModelNotFound(f"{given}: no such file ({entry.variable} names it)")
        return Path(given)
    cached = cache_folder() / entry.file
    if not cached.is_file():
        return None
    if digest(cached) != entry.sha256:
        raise ModelError(
            f"{cached}: altered (its sha256 is not the pinned one); delete it, then: mien models pull {entry.name}"
        )
    return cached


def fetch(entry: Entry, urls: Sequence[str] | None = None, timeout: float = 5.0) -> Path:
    """The local file of an entry, fetched into the cache if need be.

    urls: other addresses than the entry's, such as a mirror; the hash must agree all the same.
    Raises ModelNotFound (no address answers; offline) and ModelError (the file has another hash; it is not kept).
    """
    found = locate(entry)
    if found is not None:
        return found
    if not (urls or entry.urls):
        raise ModelNotFound(f"{entry.name}: {entry.file} is missing from the installation; reinstall mien")
    if os.environ.get("MIEN_OFFLINE", "").lower() not in {"", "0", "false", "no", "off"}:
        raise ModelNotFound(_by_hand(entry, "not fetched (offline)"))
    from http.client import HTTPException  # looking never needs the network

    reasons = []
    for url in urls or entry.urls:
        try:
            return _keep(entry, _download(url, timeout, entry.size), url)
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            if isinstance(error, ModelError):
                raise
            reasons.append(f"{url}: {getattr(error, 'reason', error)}")
    raise ModelNotFound(_by_hand(entry, f"cannot be fetched ({'; '.join(reasons)})"))


def _by_hand(entry: Entry, why: str) -> str:
    hint = f", or set {entry.variable} to its place" if entry.variable else ""
    return f"{entry.name}: {why}; place {entry.file} in {cache_folder()} by hand{hint}"


def _download(url: str, timeout: float, size: int) -> bytes:
    from urllib.request import Request, urlopen

    request = Request(url, headers={"User-Agent": "mien"})  # noqa: S310 - pinned addresses
    with urlopen(request, timeout=timeout) as answer:  # noqa: S310
        data = bytes(answer.read(size * 2 + 1024))
        expected = answer.headers.get("Content-Length", "")
    if expected.isdecimal() and len(data) < min(int(expected), size):
        raise OSError(f"cut off after {len(data)} of {expected} bytes")
    return data


def _keep(entry: Entry, data: bytes, url: str) -> Path:
    got = hashlib.sha256(data).hexdigest()
    if got != entry.sha256:
        raise ModelError(
            f"{url}: sha256 {got[:16]}... ({len(data)} bytes), expected {entry.sha256[:16]}...; not used; is there a "
            "login page between you and the network? MIEN_OFFLINE=1 goes on without fetching"
        )
    cache_folder().mkdir(parents=True, exist_ok=True)
    path = cache_folder() / entry.file
    with whole_file(path, overwrite=True) as part:
        part.write_bytes(data)
    return path
