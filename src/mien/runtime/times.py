"""Where the time goes: seconds by stage."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Times"]


class Times:
    """Seconds spent in each stage; a stage within a stage counts for itself, not for the one around it.

    Stages may run in several threads at once: then their seconds add up to more than the clock's.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock, self._here = threading.Lock(), threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        around, self._here.inside = getattr(self._here, "inside", 0.0), 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            with self._lock:
                self.seconds[name] += took - self._here.inside
            self._here.inside = around + took
