"""Reading for many at once: faces are found in parallel, and classified in one batch with whatever else waits.

No request is held back to fill a batch: while the model is busy, chips gather, and when it is free it takes them all. So a
lone request pays nothing, and the batches grow with the load.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mien.apps.measures import Measures
from mien.faces import Expression, Face
from mien.runtime.read import Reader
from mien.vision.image import read_image

__all__ = ["Batcher"]

T = TypeVar("T")
Waiting = tuple[list[np.ndarray], "asyncio.Future[list[Expression]]"]


class Batcher:
    """Reads encoded pictures for concurrent callers, all on one event loop.

    most: faces in one call of the model (one picture with more is still read whole).
    """

    def __init__(self, reader: Reader, measures: Measures, workers: int, max_pixels: int, most: int = 64) -> None:
        self._reader, self._measures, self._max_pixels, self._most = reader, measures, max_pixels, most
        self._finders = ThreadPoolExecutor(workers, "mien-find")
        self._model = ThreadPoolExecutor(1, "mien-classify")
        self._waiting: deque[Waiting] = deque()
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, data: bytes) -> list[Face]:
        """The faces of an encoded picture. Raises ImageError, ModelError.

        Cancelled, it ends at once if its turn has not come, or else with the look for faces that is begun.
        """
        loop = asyncio.get_running_loop()
        faces, chips = await _whole(self._finders.submit(self._find, data))
        self._measures.images.inc()
        self._measures.faces.inc(len(faces))
        if not faces:
            return []
        future: asyncio.Future[list[Expression]] = loop.create_future()
        self._waiting.append((chips, future))
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._classify())
        expressions = await future
        return [replace(face, expression=read) for face, read in zip(faces, expressions, strict=True)]

    def close(self) -> None:
        """Finish what is begun, take nothing more."""
        self._finders.shutdown(cancel_futures=True)
        self._model.shutdown(cancel_futures=True)

    def _find(self, data: bytes) -> tuple[list[Face], list[np.ndarray]]:
        start = time.perf_counter()
        image = read_image(data, self._max_pixels)
        decoded = time.perf_counter()
        faces = self._reader.detector(image)
        found = time.perf_counter()
        chips = [self._reader.classifier.chip(image, face) for face in faces]
        self._measures.stages.labels("decode").observe(decoded - start)
        self._measures.stages.labels("detect").observe(found - decoded)
        return list(faces), chips

    async def _classify(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._take()
            chips = [chip for part, _ in batch for chip in part]
            self._measures.batch.observe(len(chips))
            start = time.perf_counter()
            try:
                found = await loop.run_in_executor(self._model, self._reader.classifier.read, chips)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._measures.stages.labels("classify").observe(time.perf_counter() - start)
            answers = iter(found)
            for part, future in batch:
                mine = [next(answers) for _ in part]
                if not future.done():  # the caller may have gone
                    future.set_result(mine)

    def _take(self) -> list[Waiting]:
        batch = [self._waiting.popleft()]
        count = len(batch[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= self._most:
            batch.append(self._waiting.popleft())
            count += len(batch[-1][0])
        return batch


async def _whole(work: Future[T]) -> T:
    """What a thread's work gives. A thread cannot be stopped: who is cancelled while it works waits for its end."""
    try:
        return await asyncio.wrap_future(work)
    except asyncio.CancelledError:
        if not work.done():
            await asyncio.gather(asyncio.wrap_future(work), return_exceptions=True)
        raise
