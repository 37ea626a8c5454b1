"""Where the time goes: seconds by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Times"]


@dataclass(slots=True)
class Times:
    """Seconds spent in each stage; a stage within a stage counts for itself, not for the one around it."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inside: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        around, self._inside = self._inside, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[name] += took - self._inside
            self._inside = around + took
