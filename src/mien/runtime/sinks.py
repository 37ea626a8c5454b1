"""Sinks: where frames and faces go. Context managers; files appear whole, and Ctrl-C keeps what was written."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from mien.errors import ConfigError, OutputError, VideoError
from mien.faces import Face, Frame, ImageRecord, face_record
from mien.files import check_free
from mien.runtime.times import Times
from mien.vision.draw import draw
from mien.vision.video import VideoWriter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["CsvSink", "JsonlSink", "LiveTable", "Sink", "VideoSink", "json_line", "open_table"]


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

    def __init__(self, path: str | PathLike[str], overwrite: bool = False, image: str | None = None) -> None:
        self.path, self._image = check_free(path, overwrite), image
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
    """One line of JSON a frame, faces or not. image: what each line says its frame is from, such as the video's name."""

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        self._put(json_line(faces, self._image, frame) + "\n")


class CsvSink(_Table):
    """One row a face and frame; a frame without faces has none.

    Columns: image (what the frame is from), index (of the frame, from 0), seconds, face (its number in the frame, the
    largest is 0), track, x0, y0, x1, y1 (pixels), score, label, confidence, certain (0 or 1), valence, arousal; p_<label>
    for every label; then the landmarks in pixels, left and right as the picture shows them. Unknown is empty.
    """

    _FIXED = "image index seconds face track x0 y0 x1 y1 score label confidence certain valence arousal".split()  # noqa: SIM905
    _POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

    def __init__(
        self, path: str | PathLike[str], labels: Sequence[str], overwrite: bool = False, image: str | None = None
    ) -> None:
        super().__init__(path, overwrite, image)
        self._labels = tuple(labels)

    def __enter__(self) -> CsvSink:
        super().__enter__()
        points = [f"{name}_{axis}" for name in self._POINTS for axis in "xy"]
        self._row([*self._FIXED, *(f"p_{name}" for name in self._labels), *points])
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
            where = [self._image, frame.index, round(frame.seconds, 4), number, face.track, *face.box, face.score]
            points = [None] * 10 if face.landmarks is None else [edge for point in face.landmarks for edge in point]
            self._row([*where, *known, *shares, *points])


def open_table(
    path: str | PathLike[str], labels: Sequence[str], overwrite: bool = False, image: str | None = None
) -> CsvSink | JsonlSink:
    """The table sink for a file name: .csv, or .jsonl. Raises ConfigError for another ending."""
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return CsvSink(path, labels, overwrite, image)
    if suffix == ".jsonl":
        return JsonlSink(path, overwrite, image)
    raise ConfigError(f"{path}: no table form for {suffix or 'a name without ending'!r}; use .csv or .jsonl")


class VideoSink:
    """An annotated H.264 video. times: where the time of drawing is added as a stage."""

    def __init__(
        self, path: str | PathLike[str], rate: float, overwrite: bool = False, times: Times | None = None
    ) -> None:
        self.path, self._rate, self._overwrite = check_free(path, overwrite), rate, overwrite
        self._times = times or Times()
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
        with self._times.stage("draw"):
            drawn = draw(frame.image, faces)
        self._writer.write(drawn, frame.seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)


class LiveTable:
    """The faces in view as a table on the terminal, renewed eight times a second. For cameras."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=console or Console(stderr=True), auto_refresh=False, transient=True)
        self._shown = -math.inf

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        now = time.monotonic()
        if now - self._shown >= 1 / 8:
            self._shown = now
            self._live.update(_in_view(frame, faces), refresh=True)


def _in_view(frame: Frame, faces: Sequence[Face]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    title = f"{frame.seconds:.1f} s, frame {frame.index}, {len(faces)} faces"
    table = Table("face", "expression", "confidence", "valence", "arousal", title=title)
    for number, face in enumerate(faces):
        read = face.expression
        row = (
            ("", "", "", "")
            if read is None
            else (escape(read.label), f"{read.confidence:.0%}", f"{read.valence:+.2f}", f"{read.arousal:+.2f}")
        )
        table.add_row(str(number), *row)
    return table
