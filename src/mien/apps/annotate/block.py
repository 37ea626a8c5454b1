"""Annotating a block: a plain function from a block of the plan to rows, the same under every runner."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mien.apps.annotate.columns import Row
from mien.apps.annotate.places import Place, open_place, place_errors, reason
from mien.apps.annotate.plan import Block, Line
from mien.errors import ConfigError, DataError, ImageError, VideoError
from mien.faces import Frame
from mien.runtime.read import Reader
from mien.vision.image import VIDEOS, read_image

__all__ = ["Source", "annotate_block"]

#: Files that are fetched while others are read; rows of a Parquet file in memory at once.
_AHEAD, _BATCH = 8, 32


class Source(NamedTuple):
    """How inputs are to be read.

    rate: frames a second of a video; 0 reads every frame.  column, keep, root: of Parquet files; see mien.apps.annotate.plan.
    """

    rate: float = 1.0
    column: str = ""
    keep: tuple[str, ...] = ()
    root: str = ""


class _Input(NamedTuple):
    """A row to be filled and where its content is: encoded bytes, a place, a reason why there is none, or bytes to come.

    far: whether it is not on this machine; of a reason, whether the place is at fault and not the input.
    """

    row: Row
    content: bytes | Place | str | Future[bytes]
    far: bool = False


def annotate_block(
    block: Block,
    reader: Reader,
    source: Source,
    seen: Callable[[int], None] = lambda _: None,
    lost: Mapping[int, str] | None = None,
) -> list[Row]:
    """The rows of a block: one an input, in order; what cannot be read says so in `error`.

    seen: called with the number of each input in its block before it is read.  lost: inputs not to be read, and why.
    Raises DataError if every input failed for reasons of the place (network, credentials): then the inputs are not at fault.
    """
    rows, unreached = [], []
    with ThreadPoolExecutor(_AHEAD, "mien-fetch") as pool:
        for number, (row, content, far) in enumerate(_ahead(_inputs(block, source), pool, lost or {})):
            rows.append(row)
            if lost and number in lost:
                row.error = lost[number]
                continue
            seen(number)
            try:
                _fill(row, content, reader, source)
                if far and isinstance(content, str):
                    unreached.append(row)
            except (ImageError, VideoError) as error:
                row.error = str(error).removeprefix("the bytes given: ").removeprefix(f"{row.image}: ")
            except place_errors() as error:
                row.error = f"cannot be read ({reason(error)})"
                if far and not isinstance(error, FileNotFoundError):
                    unreached.append(row)
    if unreached and len(unreached) == len(rows):
        raise DataError(
            f"{unreached[0].image}: {unreached[0].error}, nor any other of its block's {len(rows)} inputs; are network and "
            "credentials as they should be? Finished parts are kept: then give the same command again"
        )
    return rows


def _fill(row: Row, content: Any, reader: Reader, source: Source) -> None:
    if isinstance(content, Future):
        content = content.result()
    if isinstance(content, str):
        row.error = content
    elif isinstance(content, bytes):
        image = read_image(content)
        row.add(Frame(image), reader(image))
    else:
        with _at_hand(content) as path:
            _watch(row, path, reader, source.rate)


def _watch(row: Row, path: Path, reader: Reader, rate: float) -> None:
    from mien.runtime.watch import Watching, watched
    from mien.vision.video import frames  # PyAV is needed for videos alone

    try:
        gap = 1 / rate if rate else 0.0
        for frame, faces in watched(reader, frames(path, gap=gap), Watching(step=gap)):
            row.add(frame, faces)
    except VideoError as error:
        row.error = str(error).removeprefix(f"{path}: ")


@contextmanager
def _at_hand(place: Place) -> Iterator[Path]:
    """A file of this machine with the video: itself, or a copy that is removed afterwards."""
    if place.local:
        yield Path(place.path)
        return
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        copy = Path(folder) / f"video{os.path.splitext(place.path)[1]}"
        place.fetch(copy)
        yield copy


def _ahead(inputs: Iterator[_Input], pool: ThreadPoolExecutor, lost: Mapping[int, str]) -> Iterator[_Input]:
    """The inputs, while the bytes of those to come are fetched; neither videos nor lost ones are fetched ahead."""
    waiting: deque[_Input] = deque()
    for number, (row, content, far) in enumerate(inputs):
        fetched = isinstance(content, Place) and not row.video and number not in lost
        coming = pool.submit(content.read) if fetched and isinstance(content, Place) else content
        waiting.append(_Input(row, coming, far or (isinstance(content, Place) and not content.local)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _inputs(block: Block, source: Source) -> Iterator[_Input]:
    for line in block.lines:
        place = open_place(line.place)
        if line.kind == "rows":
            yield from _rows(place, line, source)
        else:
            odd = "cannot be read (a pipe or a device, not a file)" if place.is_endless() else ""
            yield _Input(Row(str(place), video=line.kind == "video"), odd or place)


def _rows(place: Place, line: Line, source: Source) -> Iterator[_Input]:
    """Each row of a stretch of a Parquet file; from where it is damaged on, rows that say so."""
    done = 0
    try:
        with place.open() as file:
            parquet = pq.ParquetFile(file)
            for values, number in _values(parquet, line, source):
                yield _row(place, values, number, source)
                done += 1
        why = "its file has fewer rows than when the plan was made"
    except (pa.ArrowException, *place_errors()) as error:
        if not (place.local or isinstance(error, (pa.ArrowException, FileNotFoundError)) or type(error) is OSError):
            raise DataError(f"{place}: cannot be read ({reason(error)}); finished parts are kept") from error
        gone = isinstance(error, FileNotFoundError)
        why = "there is no such file" if gone else f"its Parquet block is damaged ({reason(error)})"
    for number in range(line.start + done, line.start + line.size):
        yield _Input(Row(f"{place}#{number}", number), why)


def _values(parquet: pq.ParquetFile, line: Line, source: Source) -> Iterator[tuple[pa.RecordBatch, int]]:
    """(a batch of this row alone, its number) of each row of the stretch; only the row groups that it touches are read."""
    names = [n for n in dict.fromkeys((source.column, "id", *source.keep)) if n in parquet.schema_arrow.names]
    start = groups_start = 0
    groups: list[int] = []
    for group in range(parquet.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        if start < line.start + line.size and end > line.start:
            groups_start = groups_start if groups else start
            groups.append(group)
        start = end
    number = groups_start
    for batch in parquet.iter_batches(_BATCH, row_groups=groups, columns=names, use_threads=False) if groups else ():
        skip = max(0, line.start - number)
        end = line.start + line.size - number
        for offset in range(skip, min(len(batch), end)):
            yield batch.slice(offset, 1), number + offset
        number += len(batch)


def _row(place: Place, values: pa.RecordBatch, number: int, source: Source) -> _Input:
    image, path = _content(values.column(source.column)[0])
    name = _name(values.column("id")[0]) if "id" in values.schema.names else None
    row = Row(name if name is not None else path or f"{place}#{number}", number)
    row.kept = {name: values.column(name) for name in source.keep}
    if image is not None:
        return _Input(row, bytes(image))
    if not path:
        return _Input(row, "the row holds no image and no path")
    if "\0" in path:
        return _Input(row, "cannot be read (no file is called so)")
    name = path.partition("?")[0] if path.startswith(("http://", "https://")) else path  # signed addresses
    row.video = os.path.splitext(name)[1].lower() in VIDEOS
    try:
        return _Input(row, _beside(place, path, source.root))
    except (ConfigError, DataError) as error:
        return _Input(row, str(error).removeprefix(f"{path}: "), far=True)


def _content(cell: pa.Scalar) -> tuple[bytes | None, str | None]:
    """Bytes and path of a cell: a struct of both (and perhaps more), bytes, or text."""
    if isinstance(cell, pa.StructScalar):
        image, path = (cell[name].as_py() if cell.is_valid and name in cell else None for name in ("bytes", "path"))
        return image, path
    value = cell.as_py()
    return (None, value) if isinstance(value, str) else (value, None)


def _name(cell: pa.Scalar) -> str | None:
    """An identity as text; of what Python has no value for (a date of the year 10000) as Arrow writes it."""
    try:
        value = cell.as_py()
    except (OverflowError, ValueError):
        return str(cell.cast(pa.string()).as_py())
    return None if value is None else str(value)


def _beside(place: Place, path: str, root: str) -> Place:
    """What a path in a Parquet file names: an address, an absolute path, or one that begins at the root."""
    if "://" in path or os.path.isabs(path):
        return open_place(path)
    if root:
        return open_place(root) / path
    return place.at(place.path.rpartition("/")[0]) / path
