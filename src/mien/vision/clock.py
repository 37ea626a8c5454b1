"""The clock of a video: seconds that only go forward, whatever the times in the file do."""

from __future__ import annotations

__all__ = ["Clock"]

#: Frames by which a time may be out of order; further back the clock began anew.
_ORDER = 20
#: Seconds between two frames that the file gives one time.
_TINY = 1e-3


class Clock:
    """The seconds of each frame, in the order in which frames are shown: later than those of the frame before.

    They are the file's own times from `zero`, as long as these go forward. Where they leap back (parts joined into one file,
    a stream that begins anew) they go on one frame after the last; so does a frame that is only out of order.

    rate: frames a second.  zero: the file's time of second 0; None: that of the first frame.

    >>> clock = Clock(rate=2)
    >>> [clock(time) for time in (7.0, 7.5, 8.25, 7.75, 8.75, None)]
    [0.0, 0.5, 1.25, 1.75, 2.25, 2.75]
    """

    def __init__(self, rate: float, zero: float | None = None) -> None:
        self._step, self._zero = 1 / rate, zero
        self._seconds: float | None = None
        self._time: float | None = None

    def __call__(self, time: float | None) -> float:
        """time: of the frame, as the file says it; None: it says none."""
        before, self._time = self._time, time
        if self._zero is None:
            self._zero = time or 0.0
        now = None if time is None else time - self._zero
        if self._seconds is None:
            self._seconds = now or 0.0
        elif now is not None and now > self._seconds:
            self._seconds = now
        else:
            self._seconds += _TINY if time is not None and time == before else self._step
            if time is not None and before is not None and before - time > _ORDER * self._step:
                self._zero = time - self._seconds
        return self._seconds
