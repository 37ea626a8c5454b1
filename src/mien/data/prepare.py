"""From a manifest of pictures to a manifest of chips, all cut in one way."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mien.alone import ALONE, alone
from mien.data.manifest import Header, Manifest, Sample, join_manifests
from mien.data.sources import SOURCES
from mien.errors import ConfigError, DataError, ImageError, OutputError
from mien.faces import Box, Face
from mien.files import beside, check_free, whole_file
from mien.spec import CropSpec, encode
from mien.vision.align import TYPICAL_LANDMARKS, crop, crop_matrix, framed, similarity
from mien.vision.image import read_image

__all__ = ["FOUND", "Prepared", "chips", "five_of", "prepare", "prepare_file", "unfound", "without_chip"]

Detect = Callable[[np.ndarray], list[Face]]
#: A fact of chips of sources whose pictures are faces: whether one was found ('yes'), or the whole picture taken ('no').
FOUND = "face_found"
_BLOCK = 2048
#: Files of the folder of blocks: whose they are, the lock of the run that is at work there, and which run that is.
_NOTE = "what.txt"
#: Share of a side by which a recipe may look beyond a picture that is already cropped.
_OUTSIDE = 0.002
#: Width over height of a detector's box: the median of mien-face's boxes around 500 heads.
_ASPECT = 0.79


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """chips: the manifest of chips.  missed: (id, reason) of every row that gave none."""

    chips: Manifest
    missed: list[tuple[str, str]]


def prepare(
    manifest: Manifest,
    spec: CropSpec,
    detector: Detect | None = None,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = lambda rows: rows,
) -> Prepared:
    """Cut every picture by `spec` and store the chips losslessly (PNG).

    Where the face is: for sources of cropped faces, the whole picture (of which `spec` may show a part, not
    more); else the row's box and landmarks; else the largest face that `detector` finds. Where `spec` aligns by
    the box, a row with landmarks alone gets the box of the face that `detector` finds there, or one that fits them.
    Where none is found and the source's pictures are faces (`Card.faces`), the whole picture is it, and the chip's fact FOUND 'no'.
    Rows without a face or with an unreadable picture are listed in `missed` and counted in the header by split. Raises ConfigError if pictures of cropped
    faces show too little, DataError if the manifest holds chips already.
    """
    _check_pictures(manifest, spec)
    done = _cut(manifest, spec, detector, progress(manifest))
    chips = done.chips
    return Prepared(Manifest(_counted(chips.header, manifest, done.missed), chips.table, chips.root), done.missed)


def _counted(header: Header, manifest: Manifest, missed: list[tuple[str, str]]) -> Header:
    """The header, with the rows of each split that gave no chip among those left out."""
    gone = {name for name, _ in missed}
    splits = Counter(
        f"no chip ({split})" for name, split in zip(manifest.ids, manifest.splits(), strict=True) if name in gone
    )
    return msgspec.structs.replace(header, left_out=dict(Counter(header.left_out) + splits))


def without_chip(manifest: Manifest) -> int:
    """Rows that are not among these chips, of the same splits, because they gave none."""
    reasons = tuple(f"no chip ({split})" for split in set(manifest.splits()))
    return sum(rows for why, rows in manifest.header.left_out.items() if why.endswith(reasons))


def unfound(chips: pa.Table) -> int:
    """Rows of which the whole picture was taken since no face was found in it."""
    return chips[FOUND].to_pylist().count("no") if FOUND in chips.column_names else 0


def _cut(manifest: Manifest, spec: CropSpec, detector: Detect | None, samples: Iterable[Sample]) -> Prepared:
    kept, encoded, missed = [], [], []
    found: list[str | None] = []
    for row, sample in enumerate(samples):
        try:
            image = read_image(sample.image)
            face = _face(image, sample, manifest.header.framing, spec, detector)
            whole = face is None and _is_face(sample, manifest.header.source)
            if whole:
                face = framed(image.shape, spec)
            if face is None:
                raise DataError(f"{_where(sample)}: no face found")
            chip = crop(image, face, spec)
        except (ImageError, DataError) as error:
            missed.append((sample.id, str(error)))
            continue
        kept.append(row)
        encoded.append(_png(chip, spec))
        found.append(("no" if whole else "yes") if _is_face(sample, manifest.header.source) else None)
    header = msgspec.structs.replace(manifest.header, crop=spec, root="")
    done = manifest.take(kept).with_images(encoded, header)
    if _has_faces(manifest) and FOUND not in done.table.column_names:
        done = Manifest(header, done.table.append_column(FOUND, pa.array(found, pa.string())))
    return Prepared(done, missed)


def _is_face(sample: Sample, source: str) -> bool:
    """Whether a row's source says that its pictures are faces; merged rows name their own."""
    return _of_faces(sample.facts.get("source") or source)


def _has_faces(manifest: Manifest) -> bool:
    """Whether `_is_face` may hold for a row: by the sources' names, so that all blocks of a manifest have the same columns."""
    return any(_of_faces(name) for name in manifest.header.source.split(" + "))


def _of_faces(source: str) -> bool:
    return source in SOURCES and SOURCES[source].card.faces


def prepare_file(
    manifest: Manifest,
    spec: CropSpec,
    out: str | PathLike[str],
    detector: Callable[[], Detect] | None = None,
    workers: int = 1,
    overwrite: bool = False,
    made_by: str = "",
    progress: Callable[[Iterable[int], int], Iterable[int]] = lambda blocks, _: blocks,
) -> tuple[int, list[tuple[str, str]]]:
    """Prepare a large manifest into the file `out`, in blocks of 2,048 rows, each kept whole beside it until all are there.

    A killed run goes on with the blocks that are missing or damaged; a run with other rows or another crop starts afresh.
    One run at a time prepares a file. The rows that gave no chip are listed in OUT.missed.csv. Memory holds a block a worker.
    detector: makes the detector, once for each thread.  made_by: names it: blocks of another one are not reused.  progress: wraps the finished blocks, given how many there are.
    Returns the number of chips, and (id, reason) of each row that gave none. Raises OutputError (also: another run
    prepares this very file), ConfigError, DataError.
    """
    out, missed_file = _free(Path(out), overwrite)
    _check_pictures(manifest, spec)
    with _parts(out) as parts:
        _free(out, overwrite)  # a run that held the lock may have ended just now
        _keep_own(parts, manifest, spec, made_by)
        count = _blocks(parts, manifest, spec, detector, workers, progress)
        return _joined(parts, count, out, missed_file, manifest)


def _free(out: Path, overwrite: bool) -> tuple[Path, Path]:
    """The file of chips and the list of rows that gave none, if both may be written. Raises OutputError."""
    return check_free(out, overwrite), check_free(out.with_name(f"{out.stem}.missed.csv"), overwrite)


def _blocks(
    parts: Path,
    manifest: Manifest,
    spec: CropSpec,
    detector: Callable[[], Detect] | None,
    workers: int,
    progress: Callable[[Iterable[int], int], Iterable[int]],
) -> int:
    """Cut the blocks that are not there yet; returns how many there are in all."""
    own = threading.local()

    def work(number: int) -> int:
        if detector is not None and not hasattr(own, "detector"):
            own.detector = detector()
        path = parts / f"{number:06d}.parquet"
        block = Manifest(manifest.header, manifest.table.slice(number * _BLOCK, _BLOCK), manifest.root)
        if not _is_done(path, len(block)):
            done = _cut(block, spec, getattr(own, "detector", None), block)
            with whole_file(path.with_suffix(".csv"), overwrite=True) as part:
                part.write_text(_csv(done.missed), encoding="utf-8")
            done.chips.write(path, overwrite=True)
        return number

    count = -(-len(manifest) // _BLOCK)
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for _ in progress(pool.map(work, range(count)), count):
            pass
    return count


def _is_done(path: Path, rows: int) -> bool:
    """Whether a block is there and whole: a file that lost its end, as after a power failure, is not."""
    try:
        return pq.read_metadata(path).num_rows + len(_missed(path)) == rows
    except (pa.ArrowException, OSError, ValueError):
        return False


def _missed(path: Path) -> list[tuple[str, str]]:
    """The (id, reason) of a block's rows that gave no chip."""
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as lines:
        return [(name, why) for name, why in csv.reader(lines)]


def _content(manifest: Manifest) -> bytes:
    """A hash of every column, and of size and time of the pictures that are files."""
    digest = hashlib.sha256()
    for batch in manifest.table.to_batches():
        for row in batch.to_pylist():
            path = row["image"]["path"] if row["image"]["bytes"] is None else None
            place = (manifest.root or Path()) / path if path else None
            stamp = place.stat() if place is not None and place.is_file() else None
            digest.update(repr((row, stamp and (stamp.st_size, stamp.st_mtime_ns))).encode())
    return digest.digest()


@contextmanager
def _parts(out: Path) -> Iterator[Path]:
    """The folder of finished blocks, made if need be, for this run alone; gone at the end unless there is more to do.

    Raises OutputError: another run is at work there, or it cannot be made.
    """
    folder = beside(out, ".parts")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    with alone(folder, f"{out}: another run prepares it"):
        try:
            yield folder
        finally:
            if not (folder / _NOTE).is_file():
                shutil.rmtree(folder, ignore_errors=True)


def _keep_own(folder: Path, manifest: Manifest, spec: CropSpec, made_by: str) -> None:
    """Empty the folder of blocks of another work, and of what a killed run was writing. Raises OutputError."""
    what = hashlib.sha256(encode(manifest.header) + encode(spec) + made_by.encode() + _content(manifest)).hexdigest()
    note = folder / _NOTE
    try:
        strange = not note.is_file() or note.read_text(encoding="utf-8", errors="replace") != what
        for left in folder.iterdir():
            if left.name not in ALONE and (strange or left.name.startswith(".")):
                left.unlink()
        note.write_text(what, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _csv(missed: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(missed)
    return text.getvalue()


def _joined(
    parts: Path, blocks: int, out: Path, missed_file: Path, manifest: Manifest
) -> tuple[int, list[tuple[str, str]]]:
    files = [parts / f"{number:06d}.parquet" for number in range(blocks)]
    missed = [row for file in files for row in _missed(file)]
    if sum(pq.read_metadata(file).num_rows for file in files) == 0:
        (parts / _NOTE).unlink()  # so nothing of the folder stays
        name, why = missed[0] if missed else ("the manifest", "it has no rows")
        raise DataError(f"{out}: no row gave a chip, so it was not written ({name}: {why})")
    count = join_manifests(files, out, True, lambda header: _counted(header, manifest, missed))
    with whole_file(missed_file, overwrite=True) as part:
        part.write_text("id,reason\n" + _csv(missed), encoding="utf-8")
    (parts / _NOTE).unlink()  # so nothing of the folder stays
    return count, missed


def _check_pictures(manifest: Manifest, spec: CropSpec) -> None:
    """Chips are not cut again: where the face is in them no box or framing says. Raises DataError, ConfigError."""
    header = manifest.header
    if header.crop is not None:
        raise DataError(
            f"{header.source}: holds chips already, cut as {header.crop}; prepare the manifest of pictures they were cut from"
        )
    if header.framing is not None:
        _check_framing(header.framing, spec, header.source)


def _check_framing(framing: CropSpec, spec: CropSpec, source: str) -> None:
    """Pictures that are already cropped can be cut as they are or more tightly, not wider. Raises ConfigError."""
    for name in ("align", "mask"):
        theirs, ours = getattr(framing, name), getattr(spec, name)
        if theirs != ours:
            raise ConfigError(
                f"crop.{name}: {source}'s pictures are already cropped, with {theirs}; the recipe says {ours}"
            )
    matrix = np.vstack([crop_matrix(framed((1000, 1000), framing), spec), [0, 0, 1]])
    corners = np.array([(x, y, 1) for x in (0, spec.width) for y in (0, spec.height)]).T
    x, y = (np.linalg.inv(matrix) @ corners)[:2]
    if min(x.min(), y.min()) < -_OUTSIDE * 1000 or max(x.max(), y.max()) > (1 + _OUTSIDE) * 1000:
        name = next((n for n in ("points", "margin", "shift") if getattr(framing, n) != getattr(spec, n)), "points")
        raise ConfigError(
            f"crop.{name}: {source}'s pictures are already cropped, with {getattr(framing, name)}; the recipe says "
            f"{getattr(spec, name)}, which shows more than there is"
        )


def _face(
    image: np.ndarray, sample: Sample, framing: CropSpec | None, spec: CropSpec, detector: Detect | None
) -> Face | None:
    """Where the face is; None if nothing says so and none is found."""
    if framing is not None:
        return framed(image.shape, framing)
    if sample.landmarks is not None:
        five = five_of(sample.landmarks)
        look = detector if spec.align == "box" else None  # the other ways of aligning look at no box
        return Face(sample.box or _box_of(image, five, look), landmarks=five)
    found = detector(image) if detector is not None else []
    if sample.box is not None:
        inside = [face for face in found if _overlap(face.box, sample.box) > 0.3]
        return max(inside, key=lambda face: _overlap(face.box, sample.box)) if inside else Face(sample.box)  # type: ignore[arg-type]
    return max(found, key=lambda face: face.size, default=None)


def five_of(landmarks: np.ndarray) -> np.ndarray:
    """(5, 2) from 5 or 68 landmarks: eyes (means of their six points), tip of the nose, corners of the mouth.

    The 68 in the order of iBUG 300-W (Sagonas et al., ICCVW 2013). Raises DataError for another number.
    """
    if len(landmarks) == 5:
        return landmarks
    if len(landmarks) != 68:
        raise DataError(f"{len(landmarks)} landmarks; expected 5 or 68")
    eyes = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]]).astype(np.float32)


def _box_of(image: np.ndarray, five: np.ndarray, detector: Detect | None) -> Box:
    """The box of the found face that holds the landmarks' middle (of several, the one most like `_fitted`), else `_fitted`."""
    fitted = _fitted(five)
    x, y = five.mean(axis=0)
    found = [face.box for face in detector(image)] if detector is not None else []
    holding = [box for box in found if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
    return max(holding, key=lambda box: _overlap(box, fitted), default=fitted)


def _fitted(five: np.ndarray) -> Box:
    """The upright box, framed as a detector's, in which a face with these (5, 2) landmarks sits."""
    sides = np.array([_ASPECT, 1.0])
    matrix = similarity(TYPICAL_LANDMARKS * sides, five)
    half = np.hypot(matrix[0, 0], matrix[1, 0]) * sides / 2
    (x0, y0), (x1, y1) = (matrix[:, :2] @ (sides / 2) + matrix[:, 2] + side for side in (-half, half))
    return float(x0), float(y0), float(x1), float(y1)


def _where(sample: Sample) -> str:
    return str(sample.image) if isinstance(sample.image, Path) else sample.id


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / max(area - shared, 1e-9)


def _png(chip: np.ndarray, spec: CropSpec) -> bytes:
    stored = chip[..., ::-1] if spec.colour == "rgb" else chip[..., 0]
    return bytes(cv2.imencode(".png", stored)[1])


def chips(manifest: Manifest, cache: str | PathLike[str] | None = None) -> np.ndarray:
    """The chips of a prepared manifest: (n, h, w, k) uint8 with the border, k = 1 for grey and lightness, else 3 (RGB).

    cache: a file (.npy) that holds them, made if need be and mapped into memory: for more chips than memory holds.
    Raises DataError if the manifest was not prepared, or a chip has another size than the header says.
    """
    spec = manifest.header.crop
    if spec is None:
        raise DataError(f"{manifest.header.source}: pictures as they came, not chips; prepare them first")
    size = (spec.height + 2 * spec.border, spec.width + 2 * spec.border)
    shape = (len(manifest), *size, 3 if spec.colour == "rgb" else 1)
    if cache is None:
        out = np.empty(shape, np.uint8)
        _decode(manifest, spec, out)
        return out
    path = Path(cache)
    if not path.is_file():
        with whole_file(path) as part:
            _decode(manifest, spec, np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape))
    mapped = np.load(path, mmap_mode="r+")
    if mapped.shape != shape:
        raise DataError(f"{path}: holds {mapped.shape}, the manifest has {shape}; delete it")
    return mapped


def _decode(manifest: Manifest, spec: CropSpec, out: np.ndarray) -> None:
    mode = cv2.IMREAD_COLOR if spec.colour == "rgb" else cv2.IMREAD_GRAYSCALE
    row = 0
    for batch in manifest.table.select(["image"]).to_batches(max_chunksize=1024):
        for item in batch["image"].to_pylist():
            chip = cv2.imdecode(np.frombuffer(item["bytes"] or b"", np.uint8), mode) if item["bytes"] else None
            if chip is None or chip.shape[:2] != out.shape[1:3]:
                raise DataError(
                    f"{manifest.header.source}, row {row}: not a chip of {out.shape[2]}x{out.shape[1]} pixels"
                )
            out[row] = chip[..., ::-1] if spec.colour == "rgb" else chip[..., None]
            row += 1
