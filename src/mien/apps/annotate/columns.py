"""The columns of an annotation: one row an input, its faces as lists that mean what the table of a video means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import msgspec
import pyarrow as pa

from mien.faces import Face, Frame, face_record
from mien.runtime.table import TABLE_VERSION, Column, table_columns

__all__ = ["ANNOTATION_VERSION", "FACE_LISTS", "OWN", "Row", "face_rows", "schema_of", "table_of"]

#: Raised by one whenever a column changes its name, type or meaning.
ANNOTATION_VERSION = 1

OWN = (
    Column("image", "text", "the input: a path or address; of a Parquet row its id, else its path, else FILE#ROW"),
    Column("row", "whole", "number of the row in its Parquet file, from 0; empty for a file"),
    Column("error", "text", "why the input could not be read, or not to its end; empty: all is well"),
    Column("video", "truth", "whether it is a video"),
    Column("width", "whole", "pixels, upright"),
    Column("height", "whole", "pixels, upright"),
    Column("frames", "whole", "how many frames were read; 1 for an image, 0 if it could not be read"),
    Column("faces", "whole", "how many faces were found, the length of the lists of faces"),
    Column("frame_index", "wholes", "of each frame read: its number in the video, from 0"),
    Column("frame_seconds", "numbers", "of each frame read: its time from the start"),
)
#: Lists with one entry a face: largest first within a frame, frame after frame. All but three are columns of the table.
FACE_LISTS = ("index", "seconds", "face", "track", "box", "score", "landmarks", "label", "confidence", "certain",
              "probabilities", "valence", "arousal")  # fmt: skip
_LISTS = {
    "box": "x0, y0, x1, y1: edges in pixels of the upright picture",
    "landmarks": "x, y of left eye, right eye, nose, left and right mouth corner as the picture shows them, pixels",
    "probabilities": "one for each label, in the order of the metadata's labels, 0 to 1",
}


@dataclass
class Row:
    """What is known of one input; filled frame by frame.

    kept: the input's own columns that are carried over, each an Arrow array of one value.
    """

    image: str
    row: int | None = None
    video: bool = False
    error: str | None = None
    width: int | None = None
    height: int | None = None
    kept: dict[str, pa.Array] = field(default_factory=dict)
    frame_index: list[int] = field(default_factory=list)
    frame_seconds: list[float] = field(default_factory=list)
    found: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, frame: Frame, faces: Sequence[Face]) -> None:
        """The faces of one more frame."""
        self.height, self.width = frame.image.shape[:2]
        seconds = round(frame.seconds, 4)
        self.frame_index.append(frame.index)
        self.frame_seconds.append(seconds)
        for number, face in enumerate(map(face_record, faces)):
            read = face.expression
            points = None if face.landmarks is None else [edge for point in face.landmarks for edge in point]
            known = (None,) * 6
            if read is not None:
                shares = list(read.probabilities.values()) or None
                known = (read.label, read.confidence, read.certain, shares, read.valence, read.arousal)  # type: ignore[assignment]
            self.found.append((frame.index, seconds, number, face.track, list(face.box), face.score, points, *known))

    def values(self) -> dict[str, Any]:
        """A value for each column of our own. Lists are empty where nothing was found, null where nothing could be read."""
        own = (
            self.image,
            self.row,
            self.error,
            self.video,
            self.width,
            self.height,
            len(self.frame_index),
            len(self.found),
        )
        read = bool(self.frame_index)
        frames = (self.frame_index, self.frame_seconds) if read else (None, None)
        lists: Iterable[Any] = zip(*self.found, strict=True) if self.found else [[] if read else None] * len(FACE_LISTS)
        names = (*(column.name for column in OWN), *FACE_LISTS)
        return dict(zip(names, [*own, *frames, *lists], strict=True))


def schema_of(labels: Sequence[str], kept: Sequence[pa.Field] = (), facts: dict[str, Any] | None = None) -> pa.Schema:
    """The Arrow schema: `OWN`, the columns carried over, the lists of faces; each field says what it means.

    facts: what the metadata says besides the version and the labels.
    """
    number, whole = pa.float32(), pa.int32()
    kinds = {"text": pa.string(), "whole": pa.int64(), "truth": pa.bool_(), "wholes": pa.list_(whole),
             "numbers": pa.list_(pa.float64())}  # fmt: skip
    table = {column.name: column for column in table_columns(labels)}
    items = {"box": pa.list_(number), "landmarks": pa.list_(number), "probabilities": pa.list_(number),
             "label": pa.string(), "certain": pa.bool_(), "seconds": pa.float64(),
             **dict.fromkeys(("index", "face", "track"), whole)}  # fmt: skip
    fields = [pa.field(c.name, kinds[c.kind], metadata={"meaning": c.words}) for c in OWN]
    fields += kept
    for name in FACE_LISTS:
        words = _LISTS[name] if name in _LISTS else table[name].words
        fields.append(pa.field(name, pa.list_(items.get(name, number)), metadata={"meaning": f"of each face: {words}"}))
    header = {"annotation_version": ANNOTATION_VERSION, "labels": list(labels), **(facts or {})}
    return pa.schema(fields, metadata={"mien": msgspec.json.encode(header)})


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows as an Arrow table."""
    values, own = [row.values() for row in rows], {*FACE_LISTS, *(column.name for column in OWN)}
    columns = [pa.array([v[f.name] for v in values], f.type) if f.name in own else _carried(rows, f) for f in schema]
    return pa.table(columns, schema=schema)


def _carried(rows: Sequence[Row], field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """A column carried over. It is Arrow data all the way: Python has no nanoseconds and no dates after the year 9999."""
    missing = pa.nulls(1, field.type)
    return pa.chunked_array([row.kept.get(field.name, missing) for row in rows], field.type).combine_chunks()


def face_rows(folder: str | PathLike[str]) -> Iterator[dict[str, Any]]:
    """One row a face and frame from an annotation's folder, with the columns of the table of a video (docs/table.md), and the
    columns carried over; a frame without a face has one row. Inputs that could not be read have none.
    """
    import pyarrow.dataset as ds

    data = ds.dataset(folder, format="parquet", exclude_invalid_files=False)
    header = msgspec.json.decode(data.schema.metadata[b"mien"])
    columns = table_columns(header["labels"])
    names = [column.name for column in columns]
    more = [name for name in data.schema.names if name not in {*FACE_LISTS, *(c.name for c in OWN)}]
    for batch in data.to_batches(batch_size=256):
        for row in batch.to_pylist():
            for values in _unrolled(row, len(header["labels"]), header.get("model")):
                yield dict(zip(names, values, strict=True)) | {name: row[name] for name in more}


def _unrolled(row: dict[str, Any], labels: int, model: str | None) -> Iterator[list[Any]]:
    tail, faces = [model, 0.0, TABLE_VERSION], iter(range(row["faces"]))
    at = next(faces, None)
    for index, seconds in zip(row["frame_index"] or (), row["frame_seconds"] or (), strict=True):
        where = [row["image"], index, seconds]
        if at is None or row["index"][at] != index:
            yield [*where, *[None] * (12 + labels + 10), *tail]
        while at is not None and row["index"][at] == index:
            face = {name: row[name][at] for name in FACE_LISTS}
            shares = _rounded(face["probabilities"], 4) or [None] * labels
            known = [face["label"], *_rounded([face["confidence"]], 4)]
            known += [None if face["certain"] is None else int(face["certain"])]
            known += _rounded([face["valence"], face["arousal"]], 4)
            yield [*where, face["face"], face["track"], *_rounded(face["box"], 2), *_rounded([face["score"]], 4), *known,
                   *shares, *(_rounded(face["landmarks"], 2) or [None] * 10), *tail]  # fmt: skip
            at = next(faces, None)


def _rounded(values: Sequence[float | None] | None, digits: int) -> list[float | None]:
    """As they were before they became float32."""
    return [None if value is None else round(value, digits) for value in values or ()]
