"""The table of a watched video or of pictures: one row a face and frame, the same columns as CSV, JSON lines and Parquet (docs/table.md)."""

from __future__ import annotations

import csv
import os
import re
import shutil
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import msgspec

from mien.errors import ConfigError, DataError, MissingExtra, OutputError, VideoError
from mien.faces import Face, Frame, face_record
from mien.files import beside, check_free, path_text, whole_file

__all__ = [
    "TABLE_FORMS",
    "TABLE_VERSION",
    "Column",
    "TableSink",
    "convert",
    "open_table",
    "read_rows",
    "rows_of",
    "share_columns",
    "table_columns",
]

#: Raised by one whenever a column changes its name, place, kind or meaning.
TABLE_VERSION = 1
TABLE_FORMS = (".csv", ".jsonl", ".parquet")


class Column(NamedTuple):
    """A column: its name (letters, digits and underscores, at most 60), its kind ('text', 'whole', 'number'), its meaning."""

    name: str
    kind: str
    words: str


_FIXED = (
    Column("image", "text", "what the frame is from"),
    Column("index", "whole", "number of the frame in its source, from 0"),
    Column("seconds", "number", "time of the frame from the start of its source"),
    Column("face", "whole", "number of the face in its frame, the largest is 0; empty: a frame without a face"),
    Column("track", "whole", "number of the person across frames, from 1, as far as places and motion tell"),
    Column("x0", "number", "left edge of the face's box, pixels of the upright frame"),
    Column("y0", "number", "upper edge"),
    Column("x1", "number", "right edge"),
    Column("y1", "number", "lower edge"),
    Column("score", "number", "how sure the detector is that this is a face, 0 to 1"),
    Column("label", "text", "the most probable expression"),
    Column("confidence", "number", "its probability, 0 to 1"),
    Column("certain", "whole", "1 if the confidence reaches the model's threshold, else 0"),
    Column("valence", "number", "-1 (unpleasant) to 1 (pleasant)"),
    Column("arousal", "number", "-1 (calm) to 1 (excited)"),
)
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_LAST = (
    Column("model", "text", "the model's name"),
    Column("smoothing", "number", "time constant of the average over the past, seconds; 0: as read in this frame"),
    Column("table_version", "whole", f"version of this list of columns: {TABLE_VERSION}"),
)


def table_columns(labels: Sequence[str]) -> list[Column]:
    """The columns, in order. A probability's column is 'p_' and its label, other signs as underscores; names differ in more
    than case, as SPSS wants it.

    >>> [column.name for column in table_columns(["happiness", "very sad"])][15:17]
    ['p_happiness', 'p_very_sad']
    """
    shares, used = [], set()
    for label in labels:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:50] or "label"
        name, number = f"p_{plain}", 2
        while name.lower() in used:
            name, number = f"p_{plain}_{number}", number + 1
        used.add(name.lower())
        shares.append(Column(name, "number", f"probability of {label}, 0 to 1"))
    points = [Column(f"{point}_{axis}", "number", f"{point.replace('_', ' ')} as the picture shows it, {axis}, pixels")
              for point in _POINTS for axis in "xy"]  # fmt: skip
    return [*_FIXED, *shares, *points, *_LAST]


def share_columns(header: Sequence[str]) -> list[str]:
    """The columns of probabilities, by their place: the 'p_...' that follow `arousal`; one that was added elsewhere is none.

    >>> share_columns(["arousal", "p_anger", "p_fear", "left_eye_x", "p_value"])
    ['p_anger', 'p_fear']
    """
    after = header[list(header).index("arousal") + 1 :] if "arousal" in header else []
    return list(takewhile(lambda name: name.startswith("p_"), after))


def rows_of(
    frame: Frame | None,
    faces: Sequence[Face],
    labels: Sequence[str],
    image: str | None,
    model: str | None,
    smoothing: float,
) -> list[list[Any]]:
    """The rows of one frame, or of a picture that is none (frame: None), a value for each column; None for what is unknown.
    A frame without faces has one row."""
    where = [image, None, None] if frame is None else [image, frame.index, round(frame.seconds, 4)]
    tail = [model, smoothing, TABLE_VERSION]
    if not faces:
        return [[*where, *[None] * (12 + len(labels) + 10), *tail]]
    found = []
    for number, face in enumerate(map(face_record, faces)):
        read = face.expression
        known = (
            [None] * 5 if read is None else [read.label, read.confidence, int(read.certain), read.valence, read.arousal]
        )
        shares = [None if read is None else read.probabilities.get(name) for name in labels]
        points = [None] * 10 if face.landmarks is None else [edge for point in face.landmarks for edge in point]
        found.append([*where, number, face.track, *face.box, face.score, *known, *shares, *points, *tail])
    return found


class TableSink:
    """The table of a video, or of pictures, by its ending: .csv, .jsonl or .parquet. A Sink.

    Rows are added to a file beside it, which becomes the table at the end, at Ctrl-C and when the source breaks; any other
    error leaves nothing.
    image: what each row says its frame is from, such as the video's name.  model, smoothing: see the columns.
    kept: bytes of an earlier part file to go on from (`checkpoint` said them).
    resumable: keep that file, to be gone on with, until `forget`.  lasting: keep it where the table cannot be written (a full disk).
    Raises ConfigError for another ending, MissingExtra for Parquet without pyarrow, OutputError.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        labels: Sequence[str],
        overwrite: bool = False,
        image: str | None = None,
        model: str | None = None,
        smoothing: float = 0.0,
        kept: int | None = None,
        resumable: bool = False,
        lasting: bool = False,
    ) -> None:
        self.path, self._overwrite = check_free(path, overwrite), overwrite
        _checked(self.path)
        self.part = beside(self.path, ".part")
        self._labels, self._about = tuple(labels), (None if image is None else path_text(image), model, smoothing)
        self._kept, self._resumable, self._lasting = kept, resumable, lasting
        self._file: IO[str] | None = None

    def __enter__(self) -> TableSink:
        try:
            if self._kept is None:
                self._file = self.part.open("w", newline="", encoding="utf-8")
                self._row([column.name for column in table_columns(self._labels)])
            else:
                os.truncate(self.part, self._kept)
                self._file = self.part.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise _unwritten(self.path, error) from error
        return self

    def _row(self, values: Sequence[Any]) -> None:
        assert self._file is not None
        try:
            csv.writer(self._file, lineterminator="\n").writerow(["" if v is None else v for v in values])
        except OSError as error:
            raise _unwritten(self.path, error) from error

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        for row in rows_of(frame, faces, self._labels, *self._about):
            self._row(row)

    def write_picture(self, image: str, faces: Sequence[Face]) -> None:
        """Take the faces of a picture that is no frame: of its rows index, seconds and track are unknown. Raises OutputError."""
        for row in rows_of(None, faces, self._labels, path_text(image), *self._about[1:]):
            self._row(row)

    def checkpoint(self) -> int:
        """Everything so far is safely on the disk: how many bytes."""
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            return self.part.stat().st_size
        except OSError as error:
            raise _unwritten(self.path, error) from error

    def forget(self) -> None:
        """Nothing is gone on with: the part file is not needed any more."""
        self.part.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        ended = kind is None or issubclass(kind, (KeyboardInterrupt, VideoError))
        broken = isinstance(error, OutputError)
        try:
            self._file.close()
            if ended:
                convert(self.part, self.path, self._labels, self._overwrite, self._resumable)
        except OSError as problem:
            broken = True
            raise (problem if isinstance(problem, OutputError) else _unwritten(self.path, problem)) from problem
        finally:
            if not self._resumable and not (broken and self._lasting):
                self.forget()


def _unwritten(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")


def _checked(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix not in TABLE_FORMS:
        raise ConfigError(
            f"{path}: no table form for {suffix or 'a name without ending'!r}; use .csv, .jsonl or .parquet"
        )
    if suffix == ".parquet":
        _arrow()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra.of("Parquet needs pyarrow", "data") from error
    return pyarrow, pyarrow.parquet


def open_table(
    path: str | PathLike[str], labels: Sequence[str], overwrite: bool = False, image: str | None = None
) -> TableSink:
    """The table sink for a file name. Raises ConfigError for an ending that is not .csv, .jsonl or .parquet."""
    return TableSink(path, labels, overwrite, image)


def convert(part: Path, path: Path, labels: Sequence[str], overwrite: bool = False, keep: bool = False) -> None:
    """The table as its ending says, from its rows as CSV; a few thousand rows in memory at a time. Raises OutputError.

    keep: leave the rows where they are too."""
    with whole_file(path, overwrite) as aside:
        suffix = path.suffix.lower()
        if suffix == ".csv":
            shutil.copyfile(part, aside) if keep else part.replace(aside)
        elif suffix == ".jsonl":
            _as_lines(part, aside, table_columns(labels))
        else:
            _as_parquet(part, aside, table_columns(labels), labels)


#: What R, pandas, SPSS and spreadsheets write where a number is unknown.
_MISSING = frozenset(("NA", "NaN", "nan", "N/A", "#N/A", "NULL", "null", "None", "<NA>", "."))

_TRUTH = {"TRUE": 1, "True": 1, "true": 1, "FALSE": 0, "False": 0, "false": 0}


def _number(text: str) -> float | None:
    return None if text in _MISSING else float(text)


def _whole(text: str) -> int | None:
    """Programs that know no missing whole number write 3.0, those that know truth write it for `certain`."""
    if text in _TRUTH:
        return _TRUTH[text]
    value = _number(text)
    if value is not None and not value.is_integer():
        raise ValueError(text)
    return None if value is None else int(value)


_KINDS: dict[str, Callable[[str], Any]] = {"text": str, "whole": _whole, "number": _number}
_WORDS = {"whole": "a whole number", "number": "a number"}


def _typed(part: Path, columns: Sequence[Column]) -> Iterator[list[Any]]:
    """The rows of a part file with their types."""
    turns = [_KINDS[column.kind] for column in columns]
    with part.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        next(lines)
        for line in lines:
            yield [turn(text) if text else None for turn, text in zip(turns, line, strict=True)]


def _as_lines(part: Path, out: Path, columns: Sequence[Column]) -> None:
    names, encode = [column.name for column in columns], msgspec.json.Encoder().encode
    with out.open("wb") as file:
        for row in _typed(part, columns):
            file.write(encode(dict(zip(names, row, strict=True))) + b"\n")


def _as_parquet(part: Path, out: Path, columns: Sequence[Column], labels: Sequence[str], size: int = 20_000) -> None:
    arrow, parquet = _arrow()
    kinds = {"text": arrow.string(), "whole": arrow.int64(), "number": arrow.float64()}
    facts = msgspec.json.encode({"table_version": TABLE_VERSION, "labels": list(labels)})
    fields = [arrow.field(c.name, kinds[c.kind], metadata={"meaning": c.words}) for c in columns]
    schema = arrow.schema(fields, metadata={"mien": facts})
    with out.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        batch: list[list[Any]] = []
        for row in _typed(part, columns):
            batch.append(row)
            if len(batch) == size:
                writer.write_table(_arrow_table(arrow, batch, schema))
                batch = []
        writer.write_table(_arrow_table(arrow, batch, schema))


def _arrow_table(arrow: Any, rows: list[list[Any]], schema: Any) -> Any:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return arrow.table([arrow.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


#: Columns by name, or how to choose them from the header; None: all.
Choice = Sequence[str] | Callable[[list[str]], Sequence[str]] | None


def read_rows(path: str | PathLike[str], names: Choice = None) -> Iterator[dict[str, Any]]:
    """The rows of a table in any of its forms, one after another, with their types; None for what is unknown.

    What other programs make of a table is understood: 3.0 for 3, TRUE for 1, NA and NaN, semicolons or tabs with decimal commas, more
    columns (text in CSV), a byte order mark, empty lines.
    names: only these columns, or what a function chooses from the header. Raises DataError: no table of a video, of a newer
    version, or a value that is not what its column holds.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such table; `mien watch VIDEO --table {path.name}` makes one")
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: no table of a video; its name must end in .csv, .jsonl or .parquet")
    try:
        yield from read(path, names)
    except (OSError, UnicodeDecodeError, csv.Error, msgspec.DecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error


def _known(path: Path, header: Sequence[str], version: Any) -> None:
    for name in ("seconds", "track", "label", "table_version"):
        if name not in header:
            raise DataError(f"{path}: not a table of `mien watch`: it has no column {name!r}")
    try:
        number = _whole(str(version or 0)) or 0
    except ValueError:
        raise DataError(
            f"{path}: its table_version is {version!r}, not a number; not a table of `mien watch`"
        ) from None
    if number > TABLE_VERSION:
        raise DataError(f"{path}: version {version} of the table, newer than this library; pip install -U mien")


def _chosen(header: list[str], names: Choice) -> list[str]:
    wanted = names(header) if callable(names) else names
    return [name for name in header if wanted is None or name in wanted]


def _csv_rows(path: Path, names: Choice) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        mark = max(",;\t", key=file.readline().count)  # no name of ours holds one
        file.seek(0)
        lines = csv.reader(file, delimiter=mark)
        header = next(lines, [])
        _known(path, header, 0)
        kinds = {c.name: c.kind for c in (*_FIXED, *_LAST)} | dict.fromkeys(share_columns(header), "number")
        kinds |= {f"{point}_{axis}": "number" for point in _POINTS for axis in "xy"}
        wanted = [(header.index(name), name, kinds.get(name, "text")) for name in _chosen(header, names)]
        last = header.index("table_version")
        for row, line in enumerate(filter(None, lines)):
            number = lines.line_num
            if len(line) != len(header):
                raise DataError(f"{path}: line {number}: has {len(line)} values, its header {len(header)}")
            if not row:
                _known(path, header, line[last])
            yield {name: _read(path, number, name, kind, line[i], mark) for i, name, kind in wanted}


def _read(path: Path, number: int, name: str, kind: str, text: str, mark: str) -> Any:
    """A value of a CSV file. Where commas do not part columns they are decimal ones. Raises DataError."""
    if not text or kind == "text":
        return text or None
    try:
        return _KINDS[kind](text if mark == "," else text.replace(",", "."))
    except ValueError:
        raise DataError(f"{path}: line {number}: {name} is {text!r}; expected {_WORDS[kind]}") from None


def _json_rows(path: Path, names: Choice) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        chosen: list[str] = []
        for number, line in enumerate(filter(bytes.strip, file), 1):
            row = msgspec.json.decode(line.removeprefix(BOM_UTF8), type=dict[str, Any])
            if number == 1:
                _known(path, list(row), row.get("table_version"))
                chosen = _chosen(list(row), names)
            yield row if names is None else {name: row[name] for name in chosen if name in row}


def _parquet_rows(path: Path, names: Choice) -> Iterator[dict[str, Any]]:
    arrow, parquet = _arrow()
    try:
        with path.open("rb") as file, parquet.ParquetFile(file) as table:  # pyarrow opens no name that is not UTF-8
            header = table.schema_arrow.names
            version = msgspec.json.decode((table.schema_arrow.metadata or {}).get(b"mien", b"{}")).get("table_version")
            _known(path, header, version)
            for batch in table.iter_batches(columns=_chosen(header, names)):
                for row in batch.to_pylist():
                    yield {name: None if value != value else value for name, value in row.items()}
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
