"""The manifest: a dataset as one table, in the image layout of Hugging Face Parquet files, with a header.

A row is a picture of a face and what is known of it. Columns for many, `Sample` objects for a handful.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from mien.errors import ConfigError, DataError, DatasetNotFound, MissingExtra
from mien.faces import Box
from mien.files import whole_file
from mien.labels import LabelSet
from mien.spec import CropSpec, encode, strict

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra.of("Reading datasets needs pyarrow", "data") from error

__all__ = ["SPLITS", "Header", "Manifest", "Sample", "is_manifest", "join_manifests", "make_manifest", "row_numbers"]

#: The only words for splits inside mien; a source's card says how its own words map onto them.
SPLITS = ("train", "validation", "test")
_KEY = b"mien"
#: The most rows of a part (a row group, a chunk in memory), and the most bytes of more than one row: Arrow counts the bytes
#: of a column's chunk in 32 bits.
_PART = 4096
_BYTES = 1 << 28
_Row = TypeVar("_Row")
#: What columns mean to mien; all others hold facts.
_COLUMNS = frozenset({"id", "image", "target", "split", "box", "landmarks", "valence", "arousal", "subject", "votes"})


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One row: a picture and what is known of it.

    id: unique in its manifest, such as 'fer2013:4711'.  image: the encoded picture, or a path to it.
    box, landmarks ((5, 2) or (68, 2)): pixels of the picture, or None.
    target: (c,) float32 distribution over the header's labels (a hard label is one-hot), or None if unlabelled.
    valence, arousal: in [-1, 1]; NaN where nobody annotated them.  subject: who, where known.
    votes: (c,) how many raters said each label, or None.  facts: anything else that is known (age, gender, site), by name.
    """

    id: str
    image: bytes | Path = field(repr=False)
    target: np.ndarray | None = None
    split: str = "train"
    box: Box | None = None
    landmarks: np.ndarray | None = None
    valence: float = math.nan
    arousal: float = math.nan
    subject: str | None = None
    votes: np.ndarray | None = None
    facts: Mapping[str, str | None] = field(default_factory=dict)


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a manifest says of itself.

    crop: set once the pictures are chips, all cut in this way; None for pictures as they came.
    framing: for sources whose pictures are already cropped faces: how they were cropped.
    left_out: rows that reading left out, by reason.  warnings: what reading noticed and the reader should know.
    root: the folder that image paths start from, relative to the manifest's file where possible.
    """

    source: str
    labels: tuple[str, ...]
    rule: str = ""
    licence: str = ""
    crop: CropSpec | None = None
    framing: CropSpec | None = None
    left_out: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    root: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """A dataset: header and columns. Iterating yields Samples in row order."""

    header: Header
    table: pa.Table
    root: Path | None = None

    def __repr__(self) -> str:
        """Without the pictures: one line.

        >>> Manifest(Header(source="mine", labels=("a", "b")), make_manifest([], Header(source="", labels=("a", "b"))).table)
        Manifest(mine: 0 rows; labels: a, b; facts: none)
        """
        facts, rows = ", ".join(self.facts) or "none", f"{len(self):,} rows"
        return f"Manifest({self.header.source}: {rows}; labels: {', '.join(self.header.labels)}; facts: {facts})"

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Sample]:
        for batch in self.table.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                yield self._sample(row)

    def _sample(self, row: dict) -> Sample:  # type: ignore[type-arg]
        stored = row["image"]["bytes"]
        image = stored if stored is not None else (self.root or Path()) / row["image"]["path"]
        points = None if row["landmarks"] is None else np.asarray(row["landmarks"], np.float32).reshape(-1, 2)
        target = None if row["target"] is None else np.asarray(row["target"], np.float32)
        box = None if row["box"] is None else tuple(row["box"])
        valence, arousal = (math.nan if row[name] is None else row[name] for name in ("valence", "arousal"))
        votes = None if row.get("votes") is None else np.asarray(row["votes"], np.int32)
        facts = {name: row[name] for name in self.facts}
        return Sample(
            row["id"], image, target, row["split"], box, points, valence, arousal, row["subject"], votes, facts
        )  # type: ignore[arg-type]

    @property
    def facts(self) -> list[str]:
        """The names of the columns that hold further facts."""
        return [name for name in self.table.column_names if name not in _COLUMNS]

    @property
    def labels(self) -> LabelSet:
        """The label set of the targets, in their order."""
        return LabelSet(self.header.labels)

    @property
    def ids(self) -> list[str]:
        """The ids, in row order."""
        return list(self.table["id"].to_pylist())

    def targets(self) -> np.ndarray:
        """(n, c) float32 distributions; a row of NaN where a sample is unlabelled."""
        unlabelled = [math.nan] * len(self.labels)
        rows = [unlabelled if row is None else row for row in self.table["target"].to_pylist()]
        return np.asarray(rows, np.float32).reshape(len(self), len(self.labels))

    def votes(self) -> np.ndarray | None:
        """(n, c) int64 raters a label; 0 throughout a row without votes; None if no row has any."""
        if "votes" not in self.table.column_names:
            return None
        none = [0] * len(self.labels)
        rows = [none if row is None else row for row in self.table["votes"].to_pylist()]
        return np.asarray(rows, np.int64).reshape(len(self), len(self.labels))

    def affect(self) -> np.ndarray:
        """(n, 2) float32 (valence, arousal); NaN where nobody annotated them."""
        columns = [self.table[name].to_numpy(zero_copy_only=False) for name in ("valence", "arousal")]
        return np.stack(columns, axis=1).astype(np.float32)

    def splits(self) -> np.ndarray:
        """(n,) the split of each row."""
        return np.asarray(self.table["split"].to_pylist(), dtype=object)

    def split(self, name: str) -> Manifest:
        """The rows of one split. Raises DataError if there are none."""
        rows = np.flatnonzero(self.splits() == name)
        if not len(rows):
            there = ", ".join(sorted(set(self.splits()))) or "none"
            raise DataError(f"{self.header.source}: no rows in split {name!r}; it has: {there}")
        return self.take(rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """These rows, in this order, or those where a mask (n,) of truths is true. Raises IndexError for a row that is not
        there, a mask of another length, and what is neither."""
        return Manifest(self.header, _taken(self.table, row_numbers(rows, len(self))), self.root)

    def counts(self) -> dict[str, int]:
        """Rows per label, by the target's largest entry; unlabelled rows are not counted."""
        targets = self.targets()
        best = targets[~np.isnan(targets).any(axis=1)].argmax(axis=1)
        return {name: int((best == i).sum()) for i, name in enumerate(self.labels)}

    def with_images(self, images: Sequence[bytes], header: Header) -> Manifest:
        """The same rows with other pictures (chips): boxes and landmarks no longer apply and become null."""
        paths = pc.struct_field(self.table["image"], "path").to_pylist()
        table = self.table.set_column(self.table.schema.get_field_index("image"), "image", _images(images, paths))
        for name in ("box", "landmarks"):
            index = table.schema.get_field_index(name)
            table = table.set_column(index, name, pa.nulls(len(self), table.schema.field(name).type))
        return Manifest(header, table)

    def fingerprint(self) -> str:
        """sha256 over header, ids, pictures, targets, splits and affect: the same data, the same word, wherever it lies.

        Of a picture that is a file, its path from the root.
        """
        digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self.header, root="")))
        for sample in self.rootless():
            picture = sample.image if isinstance(sample.image, bytes) else sample.image.as_posix().encode()
            target = b"" if sample.target is None else sample.target.tobytes()
            digest.update(sample.id.encode() + picture + target + _rest(sample))
        return digest.hexdigest()

    def rootless(self) -> Manifest:
        """The same rows with paths as they are stored, from the root: what does not change when a dataset moves."""
        return Manifest(self.header, self.table)

    def write(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write as Parquet, whole or not at all. Raises OutputError."""
        header = msgspec.structs.replace(self.header, root=_relative(self.root, Path(path).parent))
        table = self.table.replace_schema_metadata({**(self.table.schema.metadata or {}), _KEY: encode(header)})
        with whole_file(path, overwrite) as part, pq.ParquetWriter(part, table.schema, compression="zstd") as to:
            _append(table, to)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Manifest:
        """Read a manifest that mien wrote. Raises DatasetNotFound, DataError."""
        path = Path(path)
        if not path.is_file():
            raise DatasetNotFound(f"{path}: no such manifest")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({error})") from error
        text = (table.schema.metadata or {}).get(_KEY)
        if text is None:
            raise DataError(f"{path}: a Parquet file without mien's header; read it through a source first")
        try:
            header = strict(msgspec.json.decode(text), Header)
        except (ConfigError, msgspec.DecodeError) as error:
            raise DataError(f"{path}: its header is malformed: {error}") from error
        wanted = _batch([]).schema
        for name in wanted.names:
            if name not in table.column_names or table.schema.field(name).type != wanted.field(name).type:
                raise DataError(
                    f"{path}: its column {name} is missing or not {wanted.field(name).type}; read the dataset again"
                )
        return cls(header, table, path.parent / header.root)


def _rest(sample: Sample) -> bytes:
    """Split and affect for the fingerprint; nothing for a row of the train split without affect: such rows have been named
    in the specs of trained models since before these counted.
    """
    affect = [None if math.isnan(value) else value for value in (sample.valence, sample.arousal)]
    return b"" if (sample.split, *affect) == ("train", None, None) else msgspec.json.encode([sample.split, *affect])


def is_manifest(path: str | PathLike[str]) -> bool:
    """Whether a file is a manifest that mien wrote, by its header."""
    try:
        return Path(path).is_file() and _KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def join_manifests(
    files: Sequence[Path],
    out: str | PathLike[str],
    overwrite: bool = False,
    headed: Callable[[Header], Header] = lambda header: header,
) -> int:
    """Write the rows of manifest files with equal headers into one, a file at a time; returns the number of rows.

    headed: makes the header of the whole from that of the files.
    """
    if not files:
        raise DataError(f"{out}: nothing to join")
    schema = pq.read_schema(files[0])
    header = headed(strict(msgspec.json.decode(schema.metadata[_KEY]), Header))
    schema = schema.with_metadata({**schema.metadata, _KEY: encode(header)})
    with whole_file(out, overwrite) as part, pq.ParquetWriter(part, schema, compression="zstd") as to:
        rows = 0
        for file in files:
            table = pq.read_table(file)
            _append(table, to)
            rows += table.num_rows
    return rows


def _append(table: pa.Table, to: pq.ParquetWriter) -> None:
    """Write a table's rows in row groups that can be read back."""
    for part in _parts(range(len(table)), _sizes(table).__getitem__):
        to.write_table(table.slice(part[0], len(part)))


def _parts(rows: Iterable[_Row], size: Callable[[_Row], int]) -> Iterator[list[_Row]]:
    """Rows, one after another, in lists of at most `_PART` rows and `_BYTES` bytes (a larger row stands alone)."""
    part: list[_Row] = []
    held = 0
    for row in rows:
        own = size(row)
        if part and (len(part) == _PART or held + own > _BYTES):
            yield part
            part, held = [], 0
        part.append(row)
        held += own
    if part:
        yield part


def _sizes(table: pa.Table) -> list[int]:
    """The bytes of each row's picture; 0 where it is a path."""
    lengths = pc.binary_length(pc.struct_field(table["image"], "bytes"))
    return list(pc.fill_null(lengths, 0).to_pylist())


def row_numbers(rows: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """(k,) int64 numbers of rows of a table of `count`, from numbers or from a mask (count,) of truths.

    Raises IndexError: a row that is not there, a mask of another length, what is neither.

    >>> row_numbers(np.array(["train", "test", "train"]) == "train", 3)
    array([0, 2])
    """
    given = np.asarray(rows)
    if given.dtype == bool:
        if given.shape != (count,):
            raise IndexError(f"a mask of shape {given.shape} for a table of {count} rows; give one truth a row")
        return np.flatnonzero(given)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise IndexError(f"rows of type {given.dtype} and shape {given.shape}: give whole numbers, or a mask of truths")
    if given.size and not 0 <= given.min() <= given.max() < count:
        raise IndexError(f"rows {given.min()} to {given.max()} of a table of {count}")
    return given.astype(np.int64)


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """These rows of a table, chunk by chunk: `Table.take` joins a column's chunks, which fails beyond 2 GiB."""
    if (np.diff(rows) > 0).all():
        wanted = np.zeros(len(table), bool)
        wanted[rows] = True
        return table.filter(pa.array(wanted))
    batches = table.to_batches()
    starts = np.cumsum([0, *map(len, batches)])
    parts = _parts(rows.tolist(), _sizes(table).__getitem__)
    return pa.concat_tables([_gathered(batches, starts, np.array(part)) for part in parts])


def _gathered(batches: Sequence[pa.RecordBatch], starts: np.ndarray, rows: np.ndarray) -> pa.Table:
    """Rows of batches that begin at `starts`, few enough for one chunk, in the order asked for."""
    order = np.argsort(rows, kind="stable")
    places, owners = np.empty_like(order), np.searchsorted(starts, rows[order], side="right") - 1
    places[order] = np.arange(len(rows))
    pieces = [batches[i].take(pa.array(rows[order][owners == i] - starts[i])) for i in np.unique(owners)]
    return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(places))


def _relative(root: Path | None, folder: Path) -> str:
    """The way from a manifest's folder to the root of its image paths: relative where there is one, else absolute."""
    if root is None:
        return ""
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return str(root.resolve())


def make_manifest(
    samples: Iterable[Sample], header: Header | Callable[[], Header], root: Path | None = None
) -> Manifest:
    """A manifest from samples, taken one after another: memory holds the columns, not the samples.

    header: or a function that gives it once the samples are consumed (for what is known only then).
    Raises DataError: a repeated id, an unknown split, a target of another width or that is no distribution, a box that is not
    four numbers, a path that leaves the root, what is of another type than Sample says. What else is odd in the rows is for
    mien.data.audit to find.
    """
    batches, seen = [], set[str]()
    start = 0
    for part in _parts(samples, _size):
        _check(part, seen, start)
        batches.append(_batch(part))
        start += len(part)
    known = header() if callable(header) else header
    parts = [pa.Table.from_batches([batch]) for batch in batches or [_batch([])]]
    table = pa.concat_tables(parts, promote_options="default")
    _check_targets(table, known)
    return Manifest(known, table, root)


def _size(sample: Sample) -> int:
    return len(sample.image) if isinstance(sample.image, bytes) else 0


def _batch(samples: Sequence[Sample]) -> pa.RecordBatch:
    columns = {
        "id": pa.array([s.id for s in samples], pa.string()),
        "image": _images(
            [s.image if isinstance(s.image, bytes) else None for s in samples],
            [None if isinstance(s.image, bytes) else s.image.as_posix() for s in samples],
        ),
        "target": pa.array([None if s.target is None else s.target.tolist() for s in samples], pa.list_(pa.float32())),
        "split": pa.array([s.split for s in samples], pa.string()),
        "box": pa.array([s.box for s in samples], pa.list_(pa.float32())),
        "landmarks": pa.array(
            [None if s.landmarks is None else s.landmarks.ravel().tolist() for s in samples], pa.list_(pa.float32())
        ),
        "valence": pa.array([s.valence for s in samples], pa.float32()),
        "arousal": pa.array([s.arousal for s in samples], pa.float32()),
        "subject": pa.array([s.subject for s in samples], pa.string()),
    }
    if any(s.votes is not None for s in samples):
        votes = [None if s.votes is None else s.votes.tolist() for s in samples]
        columns["votes"] = pa.array(votes, pa.list_(pa.int32()))
    for name in dict.fromkeys(name for s in samples for name in s.facts):
        columns[name] = pa.array([s.facts.get(name) for s in samples], pa.string())
    return pa.RecordBatch.from_pydict(columns)


def _images(data: Sequence[bytes | None], paths: Sequence[str | None]) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": b, "path": p} for b, p in zip(data, paths, strict=True)], kind)


def _check(samples: Sequence[Sample], seen: set[str], start: int) -> None:
    for row, sample in enumerate(samples, start):
        where = f"row {row} ({sample.id})"
        _check_types(sample, where)
        if sample.id in seen:
            raise DataError(f"{where}: the id stands on an earlier row too")
        seen.add(sample.id)
        if sample.split not in SPLITS:
            raise DataError(f"{where}: unknown split {sample.split!r}; expected one of {', '.join(SPLITS)}")
        clash = sorted(_COLUMNS & set(sample.facts))
        if clash:
            raise DataError(f"{where}: a fact may not be called {clash[0]!r}; that column has a meaning already")
        if not isinstance(sample.image, bytes) and (sample.image.is_absolute() or ".." in sample.image.parts):
            raise DataError(f"{where}: the path {sample.image} leaves the dataset's folder")


def _check_types(sample: Sample, where: str) -> None:
    """Raises DataError for what Arrow would refuse in its own words, or keep though it breaks what reads it."""
    arrays = [(name, getattr(sample, name)) for name in ("target", "landmarks", "votes")]
    texts = [("id", sample.id), ("subject", sample.subject), *sample.facts.items()]
    wrong = [(name, value, "an array") for name, value in arrays if not isinstance(value, np.ndarray | None)]
    wrong += [(name, value, "a text") for name, value in texts if not isinstance(value, str | None)]
    if not isinstance(sample.image, bytes | Path):
        wrong.append(("image", sample.image, "encoded bytes (of JPEG or PNG, say) or a Path"))
    if wrong:
        name, value, expected = wrong[0]
        raise DataError(f"{where}: {name} is of type {type(value).__name__}; give {expected}")
    if sample.box is not None and len(sample.box) != 4:
        raise DataError(f"{where}: a box of {len(sample.box)} numbers; give x0, y0, x1, y1")
    target = sample.target
    if target is not None and not ((target >= 0).all() and abs(target.sum() - 1) < 0.01):
        raise DataError(f"{where}: target {target.tolist()} is no distribution; give numbers from 0 on whose sum is 1")


def _check_targets(table: pa.Table, header: Header) -> None:
    widths = pc.list_value_length(table["target"])
    wrong = pc.and_(pc.is_valid(widths), pc.not_equal(widths, len(header.labels)))
    at = pc.index(wrong.combine_chunks(), True).as_py() if len(wrong) else -1
    if at >= 0:
        raise DataError(
            f"{header.source}, row {at} ({table['id'][at]}): target has {widths[at]} numbers for {len(header.labels)} labels"
        )
