"""mien watch: the faces of a video or a camera, frame by frame."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import VideoError

if TYPE_CHECKING:
    from mien.runtime.read import Reader


def watch(
    source: Annotated[str, typer.Argument(help="A video file, an address, or a camera's number.")],
    save: Annotated[Path | None, typer.Option(help="Annotated video (.mp4).")] = None,
    table: Annotated[Path | None, typer.Option(help="Table (.csv or .jsonl): a row a face and frame.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[str, typer.Option(help="auto, yunet, haar or whole.")] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local YuNet file.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Read each Nth frame.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores by default.")] = None,
) -> None:
    """Read a video or a camera. Ctrl-C ends it and keeps what was written.

    Exit code 1 if the video was cut off or damaged (what was decoded is kept).
    """
    from mien.runtime.read import load
    from mien.runtime.sinks import VideoSink, open_table
    from mien.vision.video import video_info

    place: str | int = int(source) if source.isdigit() else source
    info = video_info(place)
    reader = load(model, detector, threads, detector_file)
    sinks: list[Any] = []
    if table:
        sinks.append(open_table(table, reader.classifier.spec.labels, overwrite))
    if save:
        sinks.append(VideoSink(save, info.rate / every, overwrite))
    count, problem, start = [0, 0], "", time.perf_counter()
    total = None if isinstance(place, int) or info.frames is None else -(-info.frames // every)
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(sink) for sink in sinks]
            show = stack.enter_context(_Progress(total))
            for frame, faces in reader.watch(place, every):
                with reader.times.stage("write"):
                    for sink in opened:
                        sink.write(frame, faces)
                count[0] += 1
                count[1] += len(faces)
                show.step(faces)
    except KeyboardInterrupt:
        print("mien: interrupted; what was written is kept", file=sys.stderr)
    except VideoError as error:
        problem = str(error)
    _summary(reader, count, time.perf_counter() - start)
    for sink in sinks:
        if sink.path.exists():
            print(f"written: {sink.path}")
    if problem:
        print(f"mien: {problem}; what was decoded is kept", file=sys.stderr)
        raise typer.Exit(1 if count[0] else 2)


class _Progress:
    """A progress bar for files, a line with the main face for cameras; silent where stderr is no terminal."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("reading", total=total)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def step(self, faces: Any) -> None:
        """One more frame."""
        main = faces[0].expression if faces else None
        text = f"{len(faces)} faces" if main is None else f"{len(faces)} faces, {main.label} {main.confidence:.0%}"
        self._bar.update(self._task, advance=1, description=text)


def _summary(reader: Reader, count: list[int], wall: float) -> None:
    from rich.console import Console
    from rich.table import Table

    frames = max(count[0], 1)
    table = Table(
        "stage",
        "seconds",
        "ms a frame",
        title=f"{count[0]} frames, {count[1]} faces, {count[0] / wall:.1f} frames a second",
    )
    for name, seconds in reader.times.seconds.items():
        table.add_row(name, f"{seconds:.2f}", f"{1000 * seconds / frames:.1f}")
    table.add_row("all", f"{wall:.2f}", f"{1000 * wall / frames:.1f}")
    Console().print(table)
