"""Sinks: where frames and faces go. Context managers; files appear whole, and Ctrl-C keeps what was written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import msgspec

from mien.errors import ConfigError, OutputError, VideoError
from mien.faces import Face, Frame, ImageRecord, face_record
from mien.files import check_free
from mien.vision.draw import draw
from mien.vision.video import VideoWriter

__all__ = ["CsvSink", "JsonlSink", "Sink", "VideoSink", "json_line", "open_table"]


class Sink(Protocol):
    """Anything that takes frames with their faces, one after another."""

    def __enter__(self) -> Sink: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...
    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """Take one frame."""


def json_line(faces: Sequence[Face], image: str | None = None, frame: Frame | None = None) -> str:
    """The one JSON form: see mien.faces.ImageRecord."""
    records = tuple(face_record(face) for face in faces)
    if frame is None:
        record = ImageRecord(image, records)
    else:
        record = ImageRecord(image, records, frame.index, round(frame.seconds, 4))
    return msgspec.json.encode(record).decode()


class _Table:
    """A text file written aside and renamed at the end."""

    def __init__(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        self.path = check_free(path, overwrite)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._file: IO[str] | None = None

    def __enter__(self) -> Any:
        try:
            self._file = self._part.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        return self

    def _put(self, text: str) -> None:
        assert self._file is not None
        try:
            self._file.write(text)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            self._file.close()
            if kind is None or issubclass(kind, (KeyboardInterrupt, VideoError)):
                self._part.replace(self.path)
        except OSError as problem:
            raise OutputError(f"{self.path}: cannot be written ({problem.strerror or problem})") from problem
        finally:
            self._part.unlink(missing_ok=True)


class JsonlSink(_Table):
    """One line of JSON a frame, faces or not."""

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        self._put(json_line(faces, frame=frame) + "\n")


class CsvSink(_Table):
    """One row a face and frame; a frame without faces has none.

    Columns: index, seconds, face (its number in the frame, the largest is 0), track, x0, y0, x1, y1 (pixels), score,
    label, confidence, certain (0 or 1), valence, arousal, then p_<label> for every label. Unknown is empty.
    """

    _FIXED = "index seconds face track x0 y0 x1 y1 score label confidence certain valence arousal".split()  # noqa: SIM905

    def __init__(self, path: str | PathLike[str], labels: Sequence[str], overwrite: bool = False) -> None:
        super().__init__(path, overwrite)
        self._labels = tuple(labels)

    def __enter__(self) -> CsvSink:
        super().__enter__()
        self._row([*self._FIXED, *(f"p_{name}" for name in self._labels)])
        return self

    def _row(self, values: Sequence[Any]) -> None:
        assert self._file is not None
        try:
            csv.writer(self._file, lineterminator="\n").writerow(["" if v is None else v for v in values])
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        for number, face in enumerate(map(face_record, faces)):
            read = face.expression
            known = (
                [None] * 5
                if read is None
                else [read.label, read.confidence, int(read.certain), read.valence, read.arousal]
            )
            shares = [None if read is None else read.probabilities[name] for name in self._labels]
            where = [frame.index, round(frame.seconds, 4), number, face.track, *face.box, face.score]
            self._row([*where, *known, *shares])


def open_table(path: str | PathLike[str], labels: Sequence[str], overwrite: bool = False) -> CsvSink | JsonlSink:
    """The table sink for a file name: .csv, or .jsonl. Raises ConfigError for another ending."""
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return CsvSink(path, labels, overwrite)
    if suffix == ".jsonl":
        return JsonlSink(path, overwrite)
    raise ConfigError(f"{path}: no table form for {suffix or 'a name without ending'!r}; use .csv or .jsonl")


class VideoSink:
    """An annotated H.264 video."""

    def __init__(self, path: str | PathLike[str], rate: float, overwrite: bool = False) -> None:
        self.path, self._rate, self._overwrite = check_free(path, overwrite), rate, overwrite
        if self.path.suffix.lower() != ".mp4":
            raise ConfigError(f"{path}: the video is H.264 in MP4; use a name that ends in .mp4")
        self._writer: VideoWriter | None = None

    def __enter__(self) -> VideoSink:
        return self

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        if self._writer is None:
            height, width = frame.image.shape[:2]
            self._writer = VideoWriter(self.path, width, height, self._rate, self._overwrite)
        self._writer.write(draw(frame.image, faces), frame.seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
