"""What `mien watch` has seen: what a person is shown meanwhile, what is said at the end; and how a live reading is stopped."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.faces import Frame
    from mien.runtime.read import Reader

__all__ = ["Seen", "began", "display", "stopped_as_by_ctrl_c", "summary", "total"]


@dataclass
class Seen:
    """What was watched so far: frames, faces and people; the source's problem, if it broke; when it began.

    gone: frames that were let go, as they came faster than they could be read.
    """

    frames: int = 0
    faces: int = 0
    read: int = 0
    gone: int = 0
    problem: str = ""
    start: float = field(default_factory=time.perf_counter)


def display(place: str | int, total: int | None) -> Any:
    """What a person sees meanwhile: a table of the faces in view for a camera, a bar for a file."""
    from mien.runtime.sinks import Bar, LiveTable

    return LiveTable() if isinstance(place, int) and sys.stderr.isatty() else Bar(total)


def total(info: Any, every: int, span: tuple[float, float | None]) -> int | None:
    """How many frames will be read, as far as the header tells."""
    if info.frames is None or not info.seconds:
        return None
    part = max(0.0, min(span[1] or info.seconds, info.seconds) - span[0]) / info.seconds
    return max(1, round(info.frames * part / every))


def began(frame: Frame) -> str:
    """The date and time of second 0, by this machine's clock, while the first frame that is read is at hand."""
    zero = datetime.now().astimezone() - timedelta(seconds=frame.seconds)
    return zero.isoformat(" ", "seconds")


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM (systemd, a container) and SIGHUP (a terminal that closes) end the reading as Ctrl-C does, once; one that is
    ignored (nohup) stays so."""
    here = threading.current_thread() is threading.main_thread()
    names = [name for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    old = {number: signal.getsignal(number) for name in names for number in [getattr(signal, name)]}
    heard = [number for number, handler in old.items() if handler != signal.SIG_IGN]

    def stop(*_: object) -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, old[number] or signal.SIG_DFL)


def summary(reader: Reader, seen: Seen) -> None:
    """Print the time of each stage, and what was seen."""
    from rich.table import Table

    from mien.cli.tables import print_table

    wall, frames = time.perf_counter() - seen.start, max(seen.read, 1)
    table = Table("stage", "seconds", "ms a frame", caption="stages run beside each other")
    for name, seconds in reader.times.seconds.items():
        table.add_row(name, f"{seconds:.2f}", f"{1000 * seconds / frames:.1f}")
    table.add_row("all", f"{wall:.2f}", f"{1000 * wall / frames:.1f}")
    print_table(table)
    gone = f"; {seen.gone} more came faster than they could be read and were let go" if seen.gone else ""
    print(f"{seen.frames} frames, {seen.faces} faces, {seen.read / wall:.1f} frames a second{gone}")
