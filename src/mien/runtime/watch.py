"""Watching: the frames of a video through detector, classifier, tracker and smoother, stage beside stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mien.faces import Face, Frame
from mien.runtime.follow import Finder
from mien.runtime.pipeline import newest, overlapped
from mien.runtime.track import OverlapTracker, Smoother, Tracker

if TYPE_CHECKING:
    from mien.runtime.read import Reader

__all__ = ["PART", "Watching", "kept", "watched"]

#: Seconds of video after which a reading can be gone on with; see Finder.
PART = 10.0


@dataclass
class Watching:
    """How a video is read, and what is known across its frames.

    gap: seconds between two looks for faces, which are followed in between; 0 looks in every frame.
    most: only so many faces, the largest.  least: only faces of so many pixels or more.
    smoothing: the time constant of the average over the past, in seconds; 0 leaves answers as read.
    live: let frames go that come faster than they can be read.
    """

    gap: float = 0.0
    most: int | None = None
    least: float | None = None
    smoothing: float = 0.0
    live: bool = False
    part: float = PART
    tracker: Tracker = field(default_factory=OverlapTracker)

    def __post_init__(self) -> None:
        self.smoother = Smoother(self.smoothing)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on after this frame; for the tracker of this library."""
        tracker = self.tracker.state() if isinstance(self.tracker, OverlapTracker) else None
        return {"tracker": tracker, "smoother": self.smoother.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another watching was."""
        if isinstance(self.tracker, OverlapTracker):
            self.tracker.restore(state["tracker"])
        self.smoother.restore(state["smoother"])


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
    before: Frame | None = None,
    between: Callable[[float], None] | None = None,
) -> Iterator[tuple[Frame, list[Face]]]:
    """Each frame with its faces, read and numbered. Decoding, finding and reading overlap; few frames are in memory.

    before: the frame before the first, where a reading goes on.
    between: called with the time of a frame that begins a new part, before that frame is numbered: then all frames before it
        have been given out and `how.state()` is the state to go on from.
    Raises what the frames raise, after the frames before it.
    """
    times, finder = reader.times, Finder(reader.detector, how.gap, how.part)
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
        yield frame, _known(how, faces, cut, frame.seconds, reader)


def _timed(moving: Iterable[Frame], reader: Reader) -> Iterator[Frame]:
    frames = iter(moving)
    while True:
        with reader.times.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _known(how: Watching, faces: Sequence[Face], cut: bool, seconds: float, reader: Reader) -> list[Face]:
    with reader.times.stage("track"):
        if cut and isinstance(how.tracker, OverlapTracker):
            how.tracker.cut()
        return how.smoother(how.tracker(faces, seconds), seconds)
