"""The page: which files it is made of, what it must know (page.json), and writing it as a static site."""

from __future__ import annotations

import shutil
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

import mien
from mien.errors import ConfigError, OutputError
from mien.runtime.bench import photograph
from mien.runtime.detect import GridDetector
from mien.runtime.read import Reader
from mien.runtime.sessions import OnnxSession
from mien.runtime.table import TABLE_VERSION, table_columns
from mien.spec import DetectorSpec, ModelSpec
from mien.vision.draw import colour

__all__ = ["WEB", "DetectorPart", "ModelPart", "Site", "engine_missing", "page_files", "site", "unfit", "write_site"]

WEB = Path(__file__).parent / "web"
#: The engine: a file's name on the page -> in `vendor`. A module is called .js: nginx, among others, knows no type for .mjs, and
#: no browser runs a module without one.
_ENGINE = {
    "ort.wasm.bundle.min.js": "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "LICENSE.txt": "LICENSE.txt",
}
#: What a page of ours may hold besides, if an older mien wrote it or another model and detector were asked for.
_FORMER = frozenset({"vendor/ort.wasm.bundle.min.mjs", "models/detector.onnx", "example.jpg"})
_NO_ENGINE = (
    "the page's engine (onnxruntime-web) is not in this installation; in a clone of the repository, run: make web"
)


class ModelPart(msgspec.Struct, frozen=True, kw_only=True):
    """The expression model: its file, below the page, and its spec."""

    file: str
    spec: ModelSpec


class DetectorPart(msgspec.Struct, frozen=True, kw_only=True):
    """The detector: its file, its spec, and how it looks at a picture (the constants of GridDetector)."""

    file: str
    spec: DetectorSpec
    look: dict[str, float | None]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What the page knows, as page.json.

    detector: None if the picture already is the face.  palette: colours (red, green, blue) by label.  columns: of the table; those
    of its labels in the order of the labels.  rows: what each row of it ends with.
    engine: whether it can read in the browser; missing: why not.  server: whether a server behind the page answers /predict.
    example: whether example.jpg is there.  max_bytes: the largest upload the server takes.
    """

    version: str
    model: ModelPart
    detector: DetectorPart | None
    palette: dict[str, tuple[int, int, int]]
    columns: tuple[str, ...]
    rows: dict[str, str | int]
    engine: bool
    missing: str = ""
    example: bool = False
    server: bool = False
    max_bytes: int = 0


def engine_missing(web: Path = WEB) -> str:
    """What to do if the page's engine is not there; '' if it is."""
    return "" if all((web / "vendor" / name).is_file() for name in _ENGINE.values()) else _NO_ENGINE


def unfit(reader: Reader) -> str:
    """Why a browser cannot run this reader's model; '' if it can."""
    spec, session = reader.classifier.spec, reader.classifier.session
    if spec.crop.mask != "none":
        return f"the page cannot cut chips as {spec.name} wants them (crop.mask={spec.crop.mask})"
    if isinstance(session, OnnxSession) and session.batch:
        return f"the page reads any number of faces at once, the file of {spec.name} exactly {session.batch}"
    return ""


def site(reader: Reader, max_bytes: int = 0, web: Path = WEB) -> Site:
    """What the page must know to read as this reader does. max_bytes above 0 says that a server is there."""
    spec, missing = reader.classifier.spec, engine_missing(web) or unfit(reader)
    return Site(
        version=mien.__version__,
        model=ModelPart(file="models/model.onnx", spec=spec),
        detector=_detector(reader.detector),
        palette={label: colour(label) for label in (*spec.labels, "unknown")},
        columns=tuple(column.name for column in table_columns(spec.labels)),
        rows={"model": spec.name, "smoothing": 0, "table_version": TABLE_VERSION},
        engine=not missing,
        missing=missing,
        example=photograph() is not None,
        server=max_bytes > 0,
        max_bytes=max_bytes,
    )


def _detector(detector: Any) -> DetectorPart | None:
    if not isinstance(detector, GridDetector):
        return None
    names = {"small": "_SMALL", "border": "_BORDER", "sure": "_SURE", "longest": "_LONGEST", "pixels": "_PIXELS"}
    look = {ours: getattr(detector, theirs) for ours, theirs in {**names, "panorama": "_PANORAMA"}.items()}
    spec = msgspec.structs.replace(
        detector.spec, threshold=detector.threshold, overlap=detector.overlap, long_side=detector.long_side
    )
    return DetectorPart(file="models/detector.onnx", spec=spec, look={**look, "min_size": detector.min_size})


def page_files(model: Path, detector: Path | None, web: Path = WEB) -> dict[str, Path]:
    """Every file of the page but page.json: its address below the page -> where it lies.

    model, detector: the model files; the detector is None if the picture already is the face.
    Raises ConfigError: browsers run .onnx files alone.
    """
    if model.suffix.lower() != ".onnx":
        raise ConfigError(
            f"{model}: the page's engine reads .onnx models alone; give one (mien export --to onnx-int8 is small)"
        )
    files = {path.name: path for path in sorted(web.iterdir()) if path.suffix in {".html", ".css", ".js", ".svg"}}
    engine = {f"vendor/{name}": web / "vendor" / held for name, held in _ENGINE.items()}
    files |= {address: path for address, path in engine.items() if path.is_file()}
    files["models/model.onnx"] = model
    if detector is not None:
        files["models/detector.onnx"] = detector
    example = photograph()
    return files if example is None else {**files, "example.jpg": example}


def write_site(
    folder: str | PathLike[str], reader: Reader, model: Path, detector: Path | None, overwrite: bool = False
) -> int:
    """Write the page as a static site, whole or not at all; its size in bytes.

    Raises ConfigError (the engine is missing, no browser can run the model), OutputError (the folder holds something; it
    cannot be written).
    """
    about = site(reader)
    if unfit(reader):
        raise ConfigError(f"{model}: {unfit(reader)}; give another model, or read by the server (mien serve)")
    if about.missing:
        raise ConfigError(about.missing)
    folder, files = Path(folder), page_files(model, detector)
    _check(folder, overwrite, {*files, *_FORMER, "page.json"})
    new = not folder.exists()
    try:
        # Inside a folder that is there: it may be where somebody stands, or a volume of its own, and cannot be replaced.
        with tempfile.TemporaryDirectory(prefix=".mien-page-", dir=folder.parent if new else folder) as name:
            part = Path(name) / "site"
            for address, path in files.items():
                (part / address).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, part / address)
            (part / "page.json").write_bytes(msgspec.json.encode(about))
            size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
            if new:
                part.rename(folder)
            else:
                _swap(part, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return size


def _swap(part: Path, folder: Path) -> None:
    """Put what is in `part`, which lies two below the folder, in the place of what is in the folder; page.json goes first and
    comes last. Raises OSError: then all is as it was."""
    old = part.parent / "old"
    old.mkdir()
    away = [(path, old / path.name) for path in folder.iterdir() if path != part.parent and path.name not in _SYSTEM]
    moves = sorted(away, key=_is_last, reverse=True)
    moves += sorted(((path, folder / path.name) for path in part.iterdir()), key=_is_last)
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        raise


#: What systems put into folders and at the top of volumes by themselves: it is left where it is.
_SYSTEM = frozenset({
    "lost+found", ".DS_Store", ".Trashes", ".fseventsd", ".Spotlight-V100", ".TemporaryItems", "Thumbs.db", "desktop.ini",
    "System Volume Information", "$RECYCLE.BIN",
})  # fmt: skip


def _is_last(move: tuple[Path, Path]) -> bool:
    return move[0].name == "page.json"


def _check(folder: Path, overwrite: bool, ours: set[str]) -> None:
    """Raises OutputError: the place is taken by something that is not a page of ours to be replaced.

    ours: the addresses of the page's files; a folder that holds anything else is never replaced.
    """
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: no folder {folder.parent}; make it first")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file; give the name of a folder")
    held = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    there = [path for path in held if not {path.relative_to(folder).parts[0], path.name} & _SYSTEM]
    other = next((path for path in there if path.relative_to(folder).as_posix() not in ours), None)
    filled = any(path.name not in _SYSTEM for path in folder.iterdir())
    if other is not None or (filled and not (folder / "page.json").is_file()):
        what = "other things" if other is None else f"{other.relative_to(folder)}, which is no part of the page"
        raise OutputError(f"{folder}: holds {what}; choose an empty folder or a new name")
    if filled and not overwrite:
        raise OutputError(f"{folder}: holds a page already; choose another name or pass --overwrite")
