"""Sinks: where frames and faces go. Context managers; files appear whole, and Ctrl-C keeps what was written."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mien.faces import Face, Frame, ImageRecord, face_record
from mien.runtime.copy import VideoSink
from mien.runtime.table import TableSink, open_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Bar", "LiveTable", "Sink", "TableSink", "VideoSink", "json_line", "open_table"]


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
    table = Table("person", "expression", "confidence", "valence", "arousal", title=title)
    for number, face in enumerate(faces):
        read = face.expression
        row = (
            ("", "", "", "")
            if read is None
            else (escape(read.words), f"{read.confidence:.0%}", f"{read.valence:+.2f}", f"{read.arousal:+.2f}")
        )
        table.add_row(str(number if face.track is None else face.track), *row)
    return table


class Bar:
    """How far a video of `total` frames is read; silent where stderr is no terminal."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("reading", total=total)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:  # noqa: ARG002 - a Sink
        """See Sink."""
        main = faces[0].expression if faces else None
        text = f"{len(faces)} faces" if main is None else f"{len(faces)} faces, {main.words} {main.confidence:.0%}"
        self._bar.update(self._task, advance=1, description=text)
