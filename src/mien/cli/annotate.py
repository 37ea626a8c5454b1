"""mien annotate: much at once, into partitioned Parquet."""

from __future__ import annotations

import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.options import Device, Engine
from mien.errors import ConfigError

if TYPE_CHECKING:
    from mien.apps.annotate.job import Done


class Runner(str, Enum):  # noqa: UP042 - typer shows its values
    """Who does the work."""

    local = "local"
    ray = "ray"


def annotate(
    input: Annotated[  # noqa: A002 - the word that the help shows
        str, typer.Argument(help="A folder, a file, a quoted glob, Parquet of images or paths, or a bucket's address.")
    ],
    out: Annotated[str, typer.Option(help="The folder of the annotation (a bucket's address too).")],
    runner: Annotated[Runner, typer.Option(help="This machine, or a Ray cluster.")] = Runner.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or Ray's actors; one a core by default.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; by default the one begun here.")] = None,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[str, typer.Option(help="auto (mien-face), mien-face, yunet or whole.")] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local detector file in YuNet's form.")] = None,
    min_size: Annotated[
        float | None,
        typer.Option(min=1, help="Look for faces from this size on, pixels; slower, and finds more that are none."),
    ] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    per_second: Annotated[float, typer.Option(min=0, max=1000, help="Frames a second of videos; 0 reads each.")] = 1.0,
    block: Annotated[int, typer.Option(min=1, max=1_000_000, help="Inputs in a part.")] = 1024,
    column: Annotated[str, typer.Option(help="Of Parquet: where images or paths are; found by default.")] = "",
    keep: Annotated[
        list[str] | None, typer.Option(help="Of Parquet: a column to carry over (several allowed).")
    ] = None,
    root: Annotated[str, typer.Option(help="Where relative paths in Parquet begin; its own folder by default.")] = "",
    retry: Annotated[
        bool, typer.Option("--retry", help="Do blocks again in which something could not be read.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Remove what an earlier annotation left in the folder.")] = False,
) -> None:
    """Annotate images or videos into partitioned Parquet: one row an input, its faces as lists (docs/scale.md).

    What was stopped or killed goes on where it was: give the same command again.
    Exit code 1 if something could not be read (its row says why) or the work was interrupted, 2 if nothing could.
    """
    if address is not None and runner is not Runner.ray:
        raise ConfigError("--address: is a Ray cluster's; add --runner ray")
    from mien.apps.annotate.run import annotate as run

    show = _Show()
    try:
        with show:
            found = run(
                input, out, runner=runner.value, workers=workers, address=address, model=model, detector=detector,
                detector_file=detector_file, min_size=min_size, rate=per_second, engine=engine, device=device, block=block, column=column,
                keep=tuple(keep or ()), root=root, overwrite=overwrite, retry=retry, show=show,
            )  # fmt: skip
    except KeyboardInterrupt:
        print(
            f"mien: interrupted; {show.parts} finished parts are kept: the same command goes on there", file=sys.stderr
        )
        raise typer.Exit(1) from None
    if found.before:
        print(f"{found.before} of {found.blocks} parts were there already")
    print(f"{found.inputs} inputs, {found.frames} frames, {found.faces} faces{show.speed()}")
    print(
        f"{found.seconds / 3600:.3f} core-hours in all, {1000 * found.seconds / found.inputs:.1f} ms of a core an input"
    )
    print(f"written: {out}")
    if found.failed:
        such = f", such as {found.example}" if found.example else ""
        print(
            f"mien: {found.failed} of {found.inputs} inputs could not be read (to their end){such}; the column `error` says "
            "why of each",
            file=sys.stderr,
        )
        raise typer.Exit(1 if found.frames else 2)


class _Show:
    """A bar with the time left where stderr is a terminal, else a line a minute."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self._bar = Progress(
            *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), speed_estimate_period=300
        )
        self._task = self._bar.add_task("listing", total=None)
        self._open: dict[int, int] = {}
        self._total = self._done = self._before = self._failed = self.parts = 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> _Show:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def planning(self, inputs: int) -> None:
        """See mien.apps.annotate.run.Show."""
        self._bar.update(self._task, completed=inputs)

    def begins(self, inputs: int, done: int, failed: int) -> None:
        """See Show."""
        self._total, self._done, self._before, self._failed = inputs, done, done, failed
        self._began = self._told = time.monotonic()
        self._bar.reset(self._task, total=inputs, completed=done, description="annotating")

    def seen(self, block: int, number: int) -> None:
        """See Show."""
        self._open[block] = number
        self._shown()

    def finished(self, done: Done) -> None:
        """See Show."""
        self._open.pop(done.block, None)
        self._done, self._failed, self.parts = self._done + done.inputs, self._failed + done.failed, self.parts + 1
        self._shown()

    def tell(self, words: str) -> None:
        """See Show."""
        self._bar.console.print(f"mien: {words}", highlight=False, markup=False, soft_wrap=True)

    def _shown(self) -> None:
        done = self._done + sum(self._open.values())
        failed = f", {self._failed} unreadable" if self._failed else ""
        self._bar.update(self._task, completed=done, description=f"annotating{failed}")
        now = time.monotonic()
        if self._bar.disable and now - self._told >= 60:
            self._told, rate = now, (done - self._before) / (now - self._began)
            left = f", {_span((self._total - done) / rate)} left" if rate else ""
            self.tell(f"{done:,} of {self._total:,} ({done / self._total:.0%}), {rate:.1f} a second{failed}{left}")

    def speed(self) -> str:
        """How fast this run was, in words; empty if it did nothing."""
        took, done = time.monotonic() - self._began, self._done - self._before
        return f"; {done} inputs in {_span(took)}, {done / max(took, 1e-9):.1f} a second" if done else ""


def _span(seconds: float) -> str:
    """h:mm:ss.

    >>> _span(3725.4)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
