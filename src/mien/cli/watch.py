"""mien watch: the faces of a video or a camera, frame by frame."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import OutputError, VideoError

if TYPE_CHECKING:
    from mien.faces import Face, Frame
    from mien.runtime.read import Reader


def watch(
    source: Annotated[str, typer.Argument(help="A video file, an address, or a camera's number.")],
    save: Annotated[Path | None, typer.Option(help="Annotated video (.mp4).")] = None,
    table: Annotated[Path | None, typer.Option(help="Table (.csv or .jsonl): a row a face and frame.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[str, typer.Option(help="auto (mien-face), mien-face, yunet or whole.")] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local detector file in YuNet's form.")] = None,
    min_size: Annotated[float | None, typer.Option(help="Smallest face to look for, pixels.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Read each Nth frame.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores by default.")] = None,
) -> None:
    """Read a video or a camera. Ctrl-C ends it, keeps what was written and counts as success.

    Exit code 1 if the video was cut off or damaged (what was decoded is kept), 2 if nothing could be read.
    """
    for output in (save, table):
        _check(output, source, overwrite)
    from mien.runtime.read import load
    from mien.runtime.sinks import VideoSink, open_table
    from mien.vision.video import video_info

    place: str | int = int(source) if _is_camera(source) else source
    info = video_info(place)
    reader = load(model, detector, threads, detector_file, min_size)
    sinks: list[Any] = []
    if table:
        sinks.append(open_table(table, reader.classifier.spec.labels, overwrite, source))
    if save:
        sinks.append(VideoSink(save, info.rate / every, overwrite, reader.times))
    total = None if isinstance(place, int) or info.frames is None else -(-info.frames // every)
    seen = Seen()
    run(reader, place, every, [*sinks, _display(place, total)], seen)
    _summary(reader, seen)
    for sink in sinks:
        if sink.path.exists():
            print(f"written: {sink.path}")
    if seen.problem:
        kept = "; what was decoded is kept" if seen.frames else ""
        print(f"mien: {seen.problem}{kept}", file=sys.stderr)
        raise typer.Exit(1 if seen.frames else 2)


@dataclass
class Seen:
    """What was watched so far: frames and faces; the source's problem, if it broke; when it began."""

    frames: int = 0
    faces: int = 0
    problem: str = ""
    start: float = field(default_factory=time.perf_counter)


def run(reader: Reader, place: str | int, every: int, sinks: Sequence[Any], seen: Seen) -> None:
    """Feed every frame to every sink, to the end of the source, its breaking or Ctrl-C."""
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(sink) for sink in sinks]
            for frame, faces in reader.watch(place, every):
                with reader.times.stage("write"):
                    for sink in opened:
                        sink.write(frame, faces)
                seen.frames += 1
                seen.faces += len(faces)
    except KeyboardInterrupt:
        print(f"mien: interrupted after {seen.frames} frames; what was written is kept", file=sys.stderr)
    except VideoError as error:
        seen.problem = str(error)


def _is_camera(source: str) -> bool:
    return source.isascii() and source.isdecimal() and not Path(source).exists()


def _check(output: Path | None, source: str, overwrite: bool) -> None:
    """Raises OutputError before any work: the output cannot be written there, or is the video itself."""
    from mien.files import check_free

    if output is not None and check_free(output, overwrite).exists() and output.resolve() == Path(source).resolve():
        raise OutputError(f"{output}: is the video to read; choose another name")


def _display(place: str | int, total: int | None) -> Any:
    """What a person sees meanwhile: a table of the faces in view for a camera, a bar for a file."""
    if isinstance(place, int) and sys.stderr.isatty():
        from mien.runtime.sinks import LiveTable

        return LiveTable()
    return _Progress(total)


class _Progress:
    """A sink that shows how far the video is read; silent where stderr is no terminal."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("reading", total=total)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:  # noqa: ARG002 - a Sink
        """One more frame."""
        main = faces[0].expression if faces else None
        text = f"{len(faces)} faces" if main is None else f"{len(faces)} faces, {main.label} {main.confidence:.0%}"
        self._bar.update(self._task, advance=1, description=text)


def _summary(reader: Reader, seen: Seen) -> None:
    from rich.console import Console
    from rich.table import Table

    wall, frames = time.perf_counter() - seen.start, max(seen.frames, 1)
    table = Table("stage", "seconds", "ms a frame")
    for name, seconds in reader.times.seconds.items():
        table.add_row(name, f"{seconds:.2f}", f"{1000 * seconds / frames:.1f}")
    table.add_row("all", f"{wall:.2f}", f"{1000 * wall / frames:.1f}")
    Console().print(table)
    print(f"{seen.frames} frames, {seen.faces} faces, {seen.frames / wall:.1f} frames a second")
