"""The clock of a video: seconds that only go forward, whatever the times in the file do."""

from __future__ import annotations

import math

__all__ = ["Clock"]

#: Frames by which a time may be out of order, and how many may be so; further back the clock began anew.
_ORDER = 20
#: Seconds between two frames of one time.
_TINY = 1e-3


class Clock:
    """The seconds of each frame, in the order in which frames are shown: later than those of the frame before.

    They are the file's own times from `zero`, as long as these go forward. A frame that is out of order comes one frame after
    the last, and times go on as the file says them. Where they leap back (parts joined into one file, a stream that begins
    anew) they go on from there; if they come forward again within a few frames, it was these that were out of order.

    rate: frames a second.  zero: the file's time of second 0; None: that of the first frame.

    >>> clock = Clock(rate=2)
    >>> [clock(time) for time in (7.0, 7.5, 8.25, 7.75, 8.75, None)]
    [0.0, 0.5, 1.25, 1.75, 1.751, 2.251]
    """

    def __init__(self, rate: float, zero: float | None = None) -> None:
        self._step, self._zero = 1 / rate, zero
        self._seconds: float | None = None
        self._time = self._latest = -math.inf
        self._leapt: tuple[float, int] | None = None

    def __call__(self, time: float | None) -> float:
        """time: of the frame, as the file says it; None: it says none."""
        if self._zero is None:
            self._zero = time or 0.0
        if self._seconds is None:
            self._seconds = 0.0 if time is None else time - self._zero
        elif time is None:
            self._seconds += self._step
        else:
            self._seconds = self._after(time, self._seconds, self._zero)
        if time is not None:
            self._time, self._latest = time, max(self._latest, time)
        return self._seconds

    def _after(self, time: float, seconds: float, zero: float) -> float:
        """The seconds of a frame of this time, after a frame of these."""
        far, way = _ORDER * self._step, time - self._time
        again = self._time < self._latest < time
        if self._leapt is not None:
            before, count = self._leapt
            self._leapt = (before, count + 1) if count < _ORDER else None
            if way > far and time - before > seconds - far:
                self._zero, self._leapt, zero, again = before, None, before, True
        if time - zero > seconds:
            return time - zero
        if again or way == 0:
            return seconds + _TINY
        seconds += self._step
        if way < -far:
            self._zero, self._latest, self._leapt = time - seconds, time, self._leapt or (zero, 1)
        return seconds
