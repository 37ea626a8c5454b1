"""The runner of one machine: a process a core, each with one block at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from mien.apps.annotate.job import Done
from mien.apps.annotate.worker import Child, Files
from mien.runtime.machine import cores

__all__ = ["run_local"]

Event = Done | tuple[int, int] | BaseException | None


def run_local(
    out: str,
    numbers: Iterable[int],
    files: Files,
    workers: int | None = None,
    seen: Callable[[int, int], None] = lambda _b, _i: None,
) -> Iterator[Done]:
    """Each block as it is finished, in any order. No more blocks are in work than there are workers, and a worker holds one
    input and the rows of its block, so memory does not grow with the number of inputs.

    numbers: the blocks to do.  workers: processes; one a core by default.  seen: called with a block and the number of the
    input in it that is about to be read.  Raises what the first worker raises, whatever it is; open blocks are then given up.
    """
    count = workers or cores()
    todo, lock = iter(numbers), threading.Lock()
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    children = [Child(out, files, lambda block, number: events.put((block, number))) for _ in range(count)]
    stop = threading.Event()

    def next_number() -> int | None:
        with lock:
            return None if stop.is_set() else next(todo, None)

    def work(child: Child) -> None:
        try:
            while (number := next_number()) is not None:
                events.put(child.do(number))
        except BaseException as error:  # noqa: BLE001 - raised where the events are taken
            events.put(error)
        finally:
            events.put(None)

    threads = [threading.Thread(target=work, args=(child,), daemon=True, name="mien-child") for child in children]
    for thread in threads:
        thread.start()
    running = count
    try:
        while running:
            event = events.get()
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, Done):
                yield event
            else:
                seen(*event)
    finally:
        stop.set()
        for child in children:
            with suppress(OSError):
                child.close()
