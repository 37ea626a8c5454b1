"""Watching: the frames of a video through detector, classifier, tracker and smoother, stage beside stage."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mien.errors import ConfigError
from mien.faces import Face, Frame
from mien.runtime.follow import Finder
from mien.runtime.pipeline import newest, overlapped
from mien.runtime.track import OverlapTracker, Smoother, Tracker

if TYPE_CHECKING:
    from mien.runtime.read import Reader

__all__ = ["PART", "Memory", "Watching", "kept", "watched"]

#: Seconds of video after which a reading can be gone on with; see Finder.
PART = 10.0


@dataclass(frozen=True)
class Watching:
    """How a video is read: settings alone, so one serves any number of videos, one after another or at once.

    gap: seconds between two looks for faces, which are followed in between; 0 looks in every frame.
    most: only so many faces, the largest.  least: only faces of so many pixels or more.
    smoothing: the time constant of the average over the past, in seconds; 0 leaves answers as read.
    live: let frames go that come faster than they can be read.
    tracker: makes the tracker of a video, such as `lambda: OverlapTracker(patience=5)`; each video gets one of its own.
    Raises ConfigError: a tracker instead of what makes one.

    >>> Watching(tracker=OverlapTracker(patience=5))
    Traceback (most recent call last):
    mien.errors.ConfigError: tracker: give what makes one for each video, such as OverlapTracker or lambda: OverlapTracker(patience=5)
    """

    gap: float = 0.0
    most: int | None = None
    least: float | None = None
    smoothing: float = 0.0
    live: bool = False
    part: float = PART
    tracker: Callable[[], Tracker] = OverlapTracker

    def __post_init__(self) -> None:
        if not _makes(self.tracker):
            raise ConfigError(
                "tracker: give what makes one for each video, such as OverlapTracker or lambda: OverlapTracker(patience=5)"
            )


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
    """What is known across the frames of one video: who is who, and what each showed. It begins empty."""

    def __init__(self, how: Watching) -> None:
        self.tracker, self._smoother = how.tracker(), Smoother(how.smoothing)

    def __call__(self, faces: Sequence[Face], seconds: float, cut: bool) -> list[Face]:
        """The faces that were read in one frame, in the same order, numbered and smoothed; cut: a cut lies before it."""
        if cut and isinstance(self.tracker, OverlapTracker):
            self.tracker.cut()
        return self._smoother(self.tracker(faces, seconds), seconds)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on after this frame; for the tracker of this library."""
        tracker = self.tracker.state() if isinstance(self.tracker, OverlapTracker) else None
        return {"tracker": tracker, "smoother": self._smoother.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        if isinstance(self.tracker, OverlapTracker):
            self.tracker.restore(state["tracker"])
        self._smoother.restore(state["smoother"])


def kept(faces: Sequence[Face], most: int | None, least: float | None) -> list[Face]:
    """The faces that are wanted, in the same order: of at least so many pixels, and only so many, the largest first."""
    large = [face for face in faces if least is None or face.size >= least]
    if most is None or len(large) <= most:
        return large
    best = sorted(range(len(large)), key=lambda i: -large[i].size)[:most]
    return [large[i] for i in sorted(best)]


def watched(
    reader: Reader,
    moving: Iterable[Frame],
    how: Watching,
    memory: Memory | None = None,
    before: Frame | None = None,
    between: Callable[[float], None] | None = None,
) -> Iterator[tuple[Frame, list[Face]]]:
    """Each frame with its faces, read and numbered. Decoding, finding and reading overlap; few frames are in memory.

    memory: what is known already, where a reading goes on.  before: the frame before the first, there.
    between: called with the time of a frame that begins a new part, before that frame is numbered: then all frames before it
        have been given out and `memory.state()` is the state to go on from.
    Raises what the frames raise, after the frames before it.
    """
    times, finder = reader.times, Finder(reader.detector, how.gap, how.part)
    memory = memory or Memory(how)
    if before is not None:
        finder.prime(before.image)

    def find(frame: Frame) -> tuple[Frame, list[Face], bool]:
        with times.stage("detect"):
            faces, cut = finder(frame.image, frame.seconds)
        return frame, kept(faces, how.most, how.least), cut

    def read(found: tuple[Frame, list[Face], bool]) -> tuple[Frame, list[Face], bool]:
        frame, faces, cut = found
        with times.stage("classify"):
            return frame, reader.classifier(frame.image, faces), cut

    last = None if before is None else before.seconds
    source = _timed(newest(moving) if how.live else moving, reader)
    for frame, faces, cut in overlapped(source, find, read):
        if between is not None and last is not None and frame.seconds // how.part != last // how.part:
            between(frame.seconds)
        last = frame.seconds
        with times.stage("track"):
            known = memory(faces, frame.seconds, cut)
        yield frame, known


def _timed(moving: Iterable[Frame], reader: Reader) -> Iterator[Frame]:
    frames = iter(moving)
    while True:
        with reader.times.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
