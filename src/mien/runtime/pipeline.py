"""Stages that overlap: each in a thread of its own, in order, with a bounded number of items on the way."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["newest", "overlapped"]

_END = object()


def overlapped(source: Iterable[Any], *stages: Callable[[Any], Any], depth: int = 6) -> Iterator[Any]:
    """Each item of the source after all stages, in order; source and stages each run in a thread of their own.

    depth: how many items are on the way at most, so memory does not grow however slow the last stage is.
    What the source or a stage raises is raised here, after the items before it.

    >>> list(overlapped(range(4), lambda x: x + 1, lambda x: 2 * x))
    [2, 4, 6, 8]
    """
    moving = iter(source)
    pools = [ThreadPoolExecutor(1, "mien") for _ in range(1 + len(stages))]
    waiting: deque[Future[Any]] = deque()
    try:
        while True:
            while len(waiting) < depth:
                waiting.append(_asked(moving, pools, stages))
            found = waiting.popleft().result()
            if found is _END:
                return
            yield found
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _asked(
    moving: Iterator[Any], pools: list[ThreadPoolExecutor], stages: tuple[Callable[[Any], Any], ...]
) -> Future[Any]:
    future = pools[0].submit(next, moving, _END)
    for pool, stage in zip(pools[1:], stages, strict=True):
        future = pool.submit(_after, future, stage)
    return future


def _after(future: Future[Any], stage: Callable[[Any], Any]) -> Any:
    item = future.result()
    return item if item is _END else stage(item)


def newest(source: Iterable[Any]) -> Iterator[Any]:
    """For cameras and streams: the latest item each time one is asked for; what nobody asked for in time is let go.

    So the answer never lags behind what is in front of the camera, however slow the reading.
    """
    slot: queue.Queue[Any] = queue.Queue(maxsize=1)
    pool = ThreadPoolExecutor(1, "mien-live")
    going = [True]

    def pull() -> None:
        for item in source:
            if not going[0]:
                return
            if slot.full():
                _take(slot)
            slot.put(item)

    done = pool.submit(pull)
    try:
        while True:
            try:
                yield slot.get(timeout=0.1)
            except queue.Empty:
                if done.done() and slot.empty():
                    done.result()
                    return
    finally:
        going[0] = False
        _take(slot)
        pool.shutdown(wait=False, cancel_futures=True)


def _take(slot: queue.Queue[Any]) -> None:
    try:
        slot.get_nowait()
    except queue.Empty:
        return
