"""The plan: every input, in blocks. It is made once and kept, so that a restart does the same blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mien.apps.annotate.places import ARCHIVES, Place, is_glob, open_place, place_errors, reason
from mien.errors import ConfigError, DataError
from mien.vision.image import SUFFIXES, VIDEOS, left_out, other_kind

__all__ = ["CHUNK", "PARQUET", "Asked", "Block", "Line", "Planned", "check_input", "make_plan", "read_block"]

#: File name endings that are taken for Parquet.
PARQUET = frozenset({".parquet", ".pq"})
#: Endings of what somebody may give and is not read, and the next move.
_UNREAD = {
    **dict.fromkeys((".txt", ".csv", ".tsv", ".json", ".jsonl"), "a list of paths is read as Parquet with a column `path` "
                    "(in Python: pandas.read_csv(FILE).to_parquet('list.parquet'))"),
    **dict.fromkeys((".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "unpack it first; .tar and .zip are read as they are"),
}  # fmt: skip
#: Blocks in a file of the plan, and in a folder of parts.
CHUNK = 1000
#: Bytes of video that take about as long as one image; what a video of unknown size counts.
_VIDEO_BYTES, _VIDEO_UNKNOWN = 100_000, 64
_BYTES = ("image", "bytes", "jpg", "jpeg", "png", "webp")
_PATHS = ("path", "file", "file_name", "filename", "url", "uri", "video")
_SCHEMA = pa.schema([("kind", pa.string()), ("place", pa.binary()), ("start", pa.int64()), ("size", pa.int64())])


class Line(NamedTuple):
    """kind: 'image', 'video' or 'rows'.  place: what `open_place` opens.  start, size: rows of a Parquet file."""

    kind: str
    place: bytes
    start: int = 0
    size: int = 1


class Block(NamedTuple):
    """What is done in one go and becomes one part."""

    number: int
    lines: tuple[Line, ...]

    @property
    def inputs(self) -> int:
        """How many inputs it has."""
        return sum(line.size for line in self.lines)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What to annotate.

    input: a folder, a file, a glob or an address.  block: inputs in a block.  column: of Parquet files, the one with images or paths; '' to find it.
    keep: columns to carry over (as `input_NAME` where the
    annotation, or its table of faces, has that name itself).  root: where relative paths in Parquet files begin; '' for the file's own folder.
    """

    input: str
    block: int = 1024
    column: str = ""
    keep: tuple[str, ...] = ()
    root: str = ""


class Planned(NamedTuple):
    """blocks, inputs: how many.  column: the Parquet column with images or paths.  kept: Arrow schema of the columns carried
    over, as bytes; both empty for files.  others: pictures that are not read, by their endings."""

    blocks: int
    inputs: int
    column: str
    kept: bytes
    others: Mapping[str, int]


def make_plan(asked: Asked, folder: Place, out: Place, told: Callable[[int], None] = lambda _: None) -> Planned:
    """List the inputs into files of the folder, a thousand blocks each; memory holds one such file.

    out: where the parts go; nothing below it is an input.  told: hears how many inputs were found so far.
    Raises DataError: nothing to annotate, an input that cannot be listed, a Parquet file that is none or lacks a column.
    """
    listing = _Listing(asked, out)
    writer = _Writer(folder, told)
    for lines in listing.blocks():
        writer.add(lines)
    writer.flush()
    if not writer.inputs:
        raise listing.empty()
    kept = pa.schema(listing.kept).serialize().to_pybytes() if listing.kept else b""
    return Planned(writer.blocks, writer.inputs, listing.column, kept, listing.others)


def check_input(asked: Asked, out: Place) -> None:
    """Raises DataError where there is nothing to annotate: before anything that was annotated is removed."""
    listing = _Listing(asked, out)
    if next(listing.blocks(), None) is None:
        raise listing.empty()


def chunk_name(block: int) -> str:
    """The plan's file that holds a block."""
    return f"plan-{block // CHUNK:06d}.arrow"


def read_block(folder: Place, number: int) -> Block:
    """A block of the plan. Raises DataError."""
    place = folder / chunk_name(number)
    try:
        with place.open() as file:
            own = pa.ipc.open_file(file).get_batch(number % CHUNK)
    except (*place_errors(), pa.ArrowInvalid) as error:
        raise DataError(f"{place}: the plan cannot be read ({reason(error)}); begin anew with --overwrite") from error
    columns = [own.column(name).to_pylist() for name in _SCHEMA.names]
    return Block(number, tuple(Line(*values) for values in zip(*columns, strict=True)))


class _Writer:
    """Numbers blocks and writes them, a thousand a file, each a batch of its own; memory holds one compressed file."""

    def __init__(self, folder: Place, told: Callable[[int], None]) -> None:
        self.blocks = self.inputs = 0
        self._folder, self._told = folder, told
        self._stream: Any = None
        self._file: Any = None

    def add(self, lines: Sequence[Line]) -> None:
        """One more block."""
        if self.blocks % CHUNK == 0:
            self.flush()
            self._stream = pa.BufferOutputStream()
            self._file = pa.ipc.new_file(self._stream, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd"))
        columns = [pa.array(values, kind) for values, kind in zip(zip(*lines, strict=True), _SCHEMA.types, strict=True)]
        self._file.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        self.blocks += 1
        self.inputs += sum(line.size for line in lines)
        self._told(self.inputs)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._file is not None:
            self._file.close()
            (self._folder / chunk_name(self.blocks - 1)).write(self._stream.getvalue().to_pybytes())
            self._file = None


@dataclass
class _Listing:
    """What an input holds; known once its blocks have been gone through."""

    asked: Asked
    out: Place
    column: str = ""
    kept: list[pa.Field] = field(default_factory=list)
    seen: int = 0
    others: Counter[str] = field(default_factory=Counter)
    archives: int = 0

    def blocks(self) -> Iterator[list[Line]]:
        """The lines of each block."""
        place = open_place(self.asked.input)
        files = self._files(place)
        first = next(files, None)
        if first is None:
            return
        if first[0] == "parquet":
            yield from self._row_blocks(entry for entry in chain([first], files))
        else:
            if self.asked.column or self.asked.keep or self.asked.root:
                raise ConfigError("--column, --keep, --root: are for Parquet files; the input holds pictures or videos")
            yield from self._file_blocks(chain([first], files))

    def _files(self, place: Place) -> Iterator[tuple[str, Place, int | None]]:
        """(kind, place, size if known) of each file that is an input. Raises DataError: both Parquet and others, no pattern."""
        if is_glob(place.path) and any("**" in part and part != "**" for part in place.path.split("/")):
            raise DataError(
                f"{place}: ** stands for folders, alone between slashes (pics/**/*.jpg); within a name write *"
            )
        if not is_glob(place.path) and not place.is_folder():
            if not place.exists():
                raise DataError(f"{place}: there is no such file, folder or pattern; check its name")
            inside = place.inside()
            if inside is None:
                yield self._only(place), place, None
                return
            place = inside
        known: tuple[str, Place] | None = None
        for file, size in self._found(place):
            self.seen += 1
            kind = _kind(file.path)
            if not kind:
                self.others.update(filter(None, [other_kind(file.path)]))
                self.archives += _ending(file.path) in ARCHIVES
                continue
            if known and (kind == "parquet") != (known[0] == "parquet"):
                raise DataError(
                    f'{place}: holds Parquet files and others ({known[1]}, {file}); say with a pattern which: "*.parquet" or "*.jpg"'
                )
            known = kind, file
            yield kind, file, size

    def _only(self, place: Place) -> str:
        """The kind of the only input; one of an ending that is not known may be a picture."""
        if _ending(place.path) in _UNREAD:
            raise DataError(f"{place}: nothing to annotate by its ending; {_UNREAD[_ending(place.path)]}")
        return _kind(place.path) or "image"

    def _found(self, place: Place) -> Iterator[tuple[Place, int | None]]:
        """The files of a folder or a glob; what archives hold, where a glob asks for them by their ending."""
        packed = is_glob(place.path) and _ending(place.path) in ARCHIVES
        for file, size in place.files(self.out.path if self.out.fs == place.fs else ""):
            inside = file.inside() if packed else None
            if inside is None:
                yield file, size
            else:
                yield from inside.files()

    def _file_blocks(self, files: Iterable[tuple[str, Place, int | None]]) -> Iterator[list[Line]]:
        lines: list[Line] = []
        weight = 0
        for kind, place, size in files:
            lines.append(Line(kind, place.stored()))
            weight += 1 if kind == "image" else max(1, (place.size() if size is None else size) // _VIDEO_BYTES)
            if weight >= self.asked.block:
                yield lines
                lines, weight = [], 0
        if lines:
            yield lines

    def _row_blocks(self, files: Iterable[tuple[str, Place, int | None]]) -> Iterator[list[Line]]:
        for _, place, _ in files:
            groups, column, kept, videos = self._footer(place)
            if not self.column:
                self.column, self.kept = column, kept
            elif (column, kept) != (self.column, self.kept):
                raise DataError(
                    f"{place}: its columns differ from those of the files before it (column {self.column!r}, "
                    f"kept {[str(f) for f in self.kept]}); annotate it on its own"
                )
            step = max(1, self.asked.block // _VIDEO_UNKNOWN) if videos else self.asked.block
            for start, count in _cut(groups, step):
                yield [Line("rows", place.stored(), start, count)]

    def _footer(self, place: Place) -> tuple[list[int], str, list[pa.Field], bool]:
        """Rows of each row group, the column of images, the columns to keep, whether the column is named for videos."""
        try:
            with place.open() as file:
                parquet = pq.ParquetFile(file)
                groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
                schema = parquet.schema_arrow
        except (*place_errors(), pa.ArrowInvalid) as error:
            raise DataError(
                f"{place}: cannot be read as Parquet ({reason(error)}); mend it, or leave it out with a pattern"
            ) from error
        used = {*_BYTES, *_PATHS, "id", self.asked.column, *self.asked.keep}
        twice = next((name for name, count in Counter(schema.names).items() if count > 1 and name in used), None)
        if twice is not None:
            raise DataError(f"{place}: two columns are called {twice!r}; rename one and write the file anew")
        column = _column(place, schema, self.asked.column)
        kept = [_kept(place, schema, name) for name in self.asked.keep]
        same = next((one.name for one in kept if [other.name for other in kept].count(one.name) > 1), None)
        if same is not None:
            raise ConfigError(f"--keep: two columns would be called {same!r}; leave one out, or rename it in the input")
        return groups, column, kept, column == "video"

    def empty(self) -> DataError:
        """Why there is nothing to annotate."""
        if self.column:
            why = "its Parquet files have no rows"
        elif self.seen:
            why = f"none of its {self.seen} files is a picture, a video or Parquet by its ending"
            why += f"; {left_out(self.others)}" if self.others else ""
            why += '; archives are looked into where a pattern names them, as "FOLDER/*.tar"' if self.archives else ""
        else:
            why = "no file lies there"
        return DataError(f"{self.asked.input}: nothing to annotate: {why}")


def _ending(path: str) -> str:
    return path[path.rfind(".") :].lower() if "." in path else ""


def _kind(path: str) -> str:
    suffix = _ending(path)
    if suffix in PARQUET:
        return "parquet"
    return "image" if suffix in SUFFIXES else "video" if suffix in VIDEOS else ""


def _cut(groups: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """(start, count) of blocks of about `size` rows, which end where row groups end if these are not much larger.

    >>> list(_cut([100, 100, 100], 200)), list(_cut([500], 200))
    ([(0, 200), (200, 100)], [(0, 167), (167, 167), (334, 166)])
    """
    start = count = 0
    for rows in groups:
        if rows > 1.5 * size:
            if count:
                yield start, count
                start, count = start + count, 0
            pieces = -(-rows // size)
            for piece in range(pieces):
                share = rows // pieces + (piece < rows % pieces)
                yield start, share
                start += share
            continue
        count += rows
        if count >= size:
            yield start, count
            start, count = start + count, 0
    if count:
        yield start, count


def _column(place: Place, schema: pa.Schema, asked: str) -> str:
    """The column that holds images or paths. Raises DataError."""
    names = [asked] if asked else [name for name in (*_BYTES, *_PATHS) if name in schema.names]
    for name in names:
        if name in schema.names and _holds(schema.field(name).type):
            return name
    if asked and asked not in schema.names:
        raise DataError(f"{place}: no column {asked!r}; there are {', '.join(schema.names)}")
    what = (
        f"column {asked!r} holds neither" if asked else f"no column of images or paths among {', '.join(schema.names)}"
    )
    raise DataError(f"{place}: {what}; name one of bytes, of text, or a struct of `bytes` and `path` with --column")


def _holds(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    if pa.types.is_dictionary(kind):  # a category of pandas
        return _holds(kind.value_type)
    plain = ("binary", "large_binary", "binary_view", "fixed_size_binary", "string", "large_string", "string_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in plain)


def _kept(place: Place, schema: pa.Schema, name: str) -> pa.Field:
    from mien.apps.annotate.columns import FACE_LISTS, OWN
    from mien.runtime.table import table_columns

    if name not in schema.names:
        raise DataError(f"{place}: no column {name!r} to keep; there are {', '.join(schema.names)}")
    ours = {"part", *FACE_LISTS, *(column.name for column in (*OWN, *table_columns(())))}
    taken = name.lower() in ours or name.lower().startswith("p_")  # as rows of faces have them, too
    meaning = {"meaning": "as in the input", "input": name}
    return pa.field(f"input_{name}" if taken else name, schema.field(name).type, metadata=meaning)
