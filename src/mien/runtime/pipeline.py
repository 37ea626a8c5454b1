"""Stages that overlap: each in a thread of its own, in order, with a bounded number of items on the way."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import cache
from typing import Any
from weakref import WeakSet

__all__ = ["newest", "overlapped"]

_END = object()
#: Seconds that the calls at hand may take to end when Python exits.
_LEAVE = 2.0


def overlapped(source: Iterable[Any], *stages: Callable[[Any], Any], depth: int = 6) -> Iterator[Any]:
    """Each item of the source after all stages, in order; source and stages each run in a thread of their own.

    depth: how many items are on the way at most, so memory does not grow however slow the last stage is.
    What the source or a stage raises is raised here, after the items before it.

    >>> list(overlapped(range(4), lambda x: x + 1, lambda x: 2 * x))
    [2, 4, 6, 8]
    """
    moving = iter(source)
    workers = [_Worker("mien") for _ in range(1 + len(stages))]
    waiting: deque[Future[Any]] = deque()
    try:
        while True:
            while len(waiting) < depth:
                waiting.append(_asked(moving, workers, stages))
            found = waiting.popleft().result()
            if found is _END:
                return
            yield found
    finally:
        for worker in workers:
            worker.stop()


def _asked(moving: Iterator[Any], workers: list[_Worker], stages: tuple[Callable[[Any], Any], ...]) -> Future[Any]:
    future = workers[0].submit(next, moving, _END)
    for worker, stage in zip(workers[1:], stages, strict=True):
        future = worker.submit(_after, future, stage)
    return future


def _after(future: Future[Any], stage: Callable[[Any], Any]) -> Any:
    item = future.result()
    return item if item is _END else stage(item)


def newest(source: Iterable[Any]) -> Iterator[Any]:
    """For cameras and streams: the latest item each time one is asked for; what nobody asked for in time is let go.

    So the answer never lags behind what is in front of the camera, however slow the reading.
    """
    slot: queue.Queue[Any] = queue.Queue(maxsize=1)
    worker = _Worker("mien-live")

    def pull() -> None:
        for item in source:
            if worker.stopped:
                return
            if slot.full():
                _take(slot)
            slot.put(item)

    done = worker.submit(pull)
    try:
        while not worker.stopped:
            try:
                yield slot.get(timeout=0.1)
            except queue.Empty:
                if done.done() and slot.empty():
                    done.result()
                    return
    finally:
        worker.stop()
        _take(slot)


def _take(slot: queue.Queue[Any]) -> None:
    try:
        slot.get_nowait()
    except queue.Empty:
        return


class _Worker:
    """A thread of its own that runs calls one after another.

    Python does not wait for it at exit, as it does for those of ThreadPoolExecutor: a camera gives pictures for ever, or none.
    All are stopped then, and the calls at hand have a moment to end, so that no library is left in the middle of one.
    """

    def __init__(self, name: str) -> None:
        self.stopped = False
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._calls = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _workers().add(self)

    def submit(self, call: Callable[..., Any], *given: Any) -> Future[Any]:
        """Its result to come."""
        future: Future[Any] = Future()
        self._calls.put((future, call, given))
        return future

    def stop(self) -> None:
        """Calls that were not begun are cancelled; the one at hand goes on to its end."""
        self.stopped = True
        self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the call at hand, so long at most."""
        self._thread.join(max(seconds, 0.0))

    def _run(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call, given = asked
            if self.stopped:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call(*given))
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                future.set_exception(error)
            del future, call, given, asked  # or the last item stays in memory until the next call


@cache
def _workers() -> WeakSet[_Worker]:
    """Those that may still be at work; from the first one on, they are stopped when Python exits."""
    found: WeakSet[_Worker] = WeakSet()

    def leave() -> None:
        workers, until = list(found), time.monotonic() + _LEAVE
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join(until - time.monotonic())

    atexit.register(leave)
    return found
