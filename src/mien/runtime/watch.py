"""Watching: the frames of a video through detector, classifier, tracker and smoother, stage beside stage."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from mien.errors import ConfigError
from mien.faces import Box, Face, Frame
from mien.runtime.follow import Finder
from mien.runtime.pipeline import newest, overlapped
from mien.runtime.track import OverlapTracker, Smoother, Tracker

if TYPE_CHECKING:
    from mien.runtime.read import Reader

__all__ = ["PART", "Memory", "Watching", "kept", "watched"]

#: Seconds of video after which a reading can be gone on with; see Finder.
PART = 10.0

#: A frame, its faces, those found and left out, and whether a cut lies before it.
_Found = tuple[Frame, list[Face], list[Face], bool]


@dataclass(frozen=True)
class Watching:
    """How a video is read: settings alone, so one serves any number of videos, one after another or at once.

    gap: seconds between two looks for faces, which are followed in between; 0 looks in every frame.
    most: only so many faces, the largest.  least: only faces of so many pixels or more.
    smoothing: the time constant of the average over the past, in seconds; 0 leaves answers as read.
    live: let frames go that come faster than they can be read; None: of a camera and of a stream without an end, as
        mien.vision.video.is_live tells.
    tracker: makes the tracker of a video, such as `lambda: OverlapTracker(patience=5)`; each video gets one of its own.
    part: seconds of video after which a reading can be gone on with; see Finder.
    step: about so many seconds lie between two frames, where that is known: the first step is then no hole (0: it is not; math.inf:
        whatever it is).
    Raises ConfigError: a number that cannot be meant, a tracker instead of what makes one.

    >>> Watching(tracker=OverlapTracker(patience=5))
    Traceback (most recent call last):
    mien.errors.ConfigError: tracker: give what makes one for each video, such as OverlapTracker or lambda: OverlapTracker(patience=5)
    """

    gap: float = 0.0
    most: int | None = None
    least: float | None = None
    smoothing: float = 0.0
    live: bool | None = None
    part: float = PART
    step: float = 0.0
    tracker: Callable[[], Tracker] = OverlapTracker

    def __post_init__(self) -> None:
        for name, seconds in (("gap", self.gap), ("smoothing", self.smoothing)):
            if not _number(seconds) or not 0 <= seconds < math.inf:
                raise ConfigError(f"{name}: {seconds!r}: give seconds from 0 on")
        if not _number(self.step) or not self.step >= 0:
            raise ConfigError(f"step: {self.step!r}: give seconds from 0 on")
        if not _number(self.part) or not 0 < self.part < math.inf:
            raise ConfigError(f"part: {self.part!r}: give seconds above 0")
        if self.most is not None and (not _number(self.most) or not isinstance(self.most, Integral) or self.most < 1):
            raise ConfigError(f"most: {self.most!r}: give a whole number of faces from 1 on, or None for all")
        if self.least is not None and (not _number(self.least) or not 0 <= self.least < math.inf):
            raise ConfigError(f"least: {self.least!r}: give pixels, or None for faces of any size")
        if not _makes(self.tracker):
            raise ConfigError(
                "tracker: give what makes one for each video, such as OverlapTracker or lambda: OverlapTracker(patience=5)"
            )


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _makes(tracker: Callable[..., object]) -> bool:
    """Whether it can be called with nothing, as a tracker cannot."""
    try:
        inspect.signature(tracker).bind()
    except TypeError:
        return False
    except ValueError:  # of what is written in C, nothing is known
        return True
    return True


class Memory:
    """What is known across the frames of one video: who is who, and what each showed. It begins empty.

    hiding: know, too, where faces are that are not given out; see `hidden`.
    """

    def __init__(self, how: Watching, hiding: bool = False) -> None:
        self._tracker, self._smoother = how.tracker(), Smoother(how.smoothing)
        self._everyone = OverlapTracker() if hiding else None
        self._left: list[Box] = []
        for _, tracker in self._kept():
            tracker.expect(how.step)

    def __call__(self, faces: Sequence[Face], left: Sequence[Face], seconds: float, cut: bool) -> list[Face]:
        """The faces that were read in one frame, in the same order, numbered and smoothed.

        left: those that were found and left out.  cut: a cut lies before this frame.
        """
        for tracker in (self._tracker, self._everyone):
            if cut and isinstance(tracker, OverlapTracker):
                tracker.cut()
        if self._everyone is not None:
            self._everyone([*faces, *left], seconds)
            self._left = [face.box for face in left]
        return self._smoother(self._tracker(faces, seconds), seconds)

    def hidden(self, seconds: float) -> list[Box]:
        """Where faces are in this frame, the last one seen, beside those given out: faces that were left out, and the places
        where lost ones should be. For a memory that is `hiding`."""
        if self._everyone is None:
            raise RuntimeError("Memory(how, hiding=True) knows this")
        return [*self._left, *self._everyone.away(seconds)]

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on after this frame; for the tracker of this library."""
        states = {name: tracker.state() for name, tracker in self._kept()}
        return {**states, "smoother": self._smoother.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        for name, tracker in self._kept():
            tracker.restore(state[name])
        self._smoother.restore(state["smoother"])

    def _kept(self) -> list[tuple[str, OverlapTracker]]:
        trackers = {"tracker": self._tracker, "everyone": self._everyone}
        return [(name, tracker) for name, tracker in trackers.items() if isinstance(tracker, OverlapTracker)]


def kept(faces: Sequence[Face], most: int | None, least: float | None) -> tuple[list[Face], list[Face]]:
    """The faces that are wanted (of at least so many pixels, and only so many, the largest) and those left out, each in the
    same order."""
    large = [i for i, face in enumerate(faces) if least is None or face.size >= least]
    wanted = set(sorted(large, key=lambda i: -faces[i].size)[:most])
    return [faces[i] for i in sorted(wanted)], [face for i, face in enumerate(faces) if i not in wanted]


def watched(
    reader: Reader,
    moving: Iterable[Frame],
    how: Watching,
    *,
    memory: Memory | None = None,
    before: Frame | None = None,
    between: Callable[[float], None] | None = None,
) -> Iterator[tuple[Frame, list[Face]]]:
    """Each frame with its faces, read and numbered. Decoding, finding and reading overlap; few frames are in memory.

    how: its `live` is to be decided already: None is no here, where nothing but frames is known.

    memory: what is known already, where a reading goes on.  before: the frame before the first, there.
    between: called with the time of a frame that begins a new part, before that frame is numbered: then all frames before it
        have been given out and `memory.state()` is the state to go on from.
    Raises what the frames raise, after the frames before it.
    """
    times, finder = reader.times, Finder(reader.detector, how.gap, how.part)
    memory = memory or Memory(how)
    if before is not None:
        finder.prime(before.image)

    def find(frame: Frame) -> _Found:
        with times.stage("detect"):
            faces, cut = finder(frame.image, frame.seconds)
        return frame, *kept(faces, how.most, how.least), cut

    def read(found: _Found) -> _Found:
        frame, faces, left, cut = found
        with times.stage("classify"):
            return frame, reader.classifier(frame.image, faces), left, cut

    last = None if before is None else before.seconds
    source = _timed(newest(moving) if how.live else moving, reader)
    for frame, faces, left, cut in overlapped(source, find, read):
        if between is not None and last is not None and frame.seconds // how.part != last // how.part:
            between(frame.seconds)
        last = frame.seconds
        with times.stage("track"):
            known = memory(faces, left, frame.seconds, cut)
        yield frame, known


def _timed(moving: Iterable[Frame], reader: Reader) -> Iterator[Frame]:
    frames = iter(moving)
    while True:
        with reader.times.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
