"""Who is who across frames: a tracker by overlap and motion, and a smoother over seconds.

Both are told the time of each frame, so they behave alike at any frame rate. Both can be stopped and started again: `state`
is a JSON value that `restore` takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np

from mien.faces import Box, Face

__all__ = ["OverlapTracker", "Smoother", "Tracker", "assigned"]

#: Seconds that the first step of a video counts at most: it may be a hole.
_FIRST = 30.0


class Tracker(Protocol):
    """Anything that gives faces their track numbers: the same faces in the same order, frame after frame."""

    def __call__(self, faces: Sequence[Face], seconds: float) -> list[Face]:
        """seconds: the time of this frame, never before the last one's."""


@dataclass(slots=True)
class _Track:
    """What is known of one person: where the face was last seen (centre, sides), how it moves (pixels a second)."""

    number: int
    x: float
    y: float
    width: float
    height: float
    seen: float
    vx: float = 0.0
    vy: float = 0.0
    hits: int = 1

    def at(self, seconds: float) -> tuple[float, float]:
        """The expected centre: it goes on as it moved, ever slower (half a second's way at most)."""
        way = _FADE * (1 - math.exp(-max(seconds - self.seen, 0.0) / _FADE))
        return self.x + self.vx * way, self.y + self.vy * way

    def see(self, box: Box, seconds: float) -> None:
        """The face was found here."""
        x, y, self.width, self.height = _middle(box)
        gap = seconds - self.seen
        if gap > 0:
            share = 1 - math.exp(-gap / _LEARN) if self.hits > 1 else 0.7
            self.vx += share * ((x - self.x) / gap - self.vx)
            self.vy += share * ((y - self.y) / gap - self.vy)
        self.x, self.y, self.seen, self.hits = x, y, seconds, self.hits + 1


_FADE, _LEARN = 0.5, 0.15
_FAR = 1e6


class OverlapTracker:
    """Joins each face to the track whose expected box it fits best, all faces at once (least total cost).

    The cost of a pair is the distance of the centres in face widths, plus half of the part not shared, plus half of the
    logarithm of the ratio of sizes. A pair is possible within `reach` face widths and a ratio of sizes of 1.4, both more the
    longer the face was away (2.5 widths and 2 at most). A face that fits no track begins a new one; numbers start at 1 and are never
    given to two tracks. Faces are not recognised: who takes another's place within `patience` goes on with its track.

    patience: seconds that a track outlives its last face; where frames come further apart, one and a half times the median of
    the last eight steps between two: a hole (a stream that died) is none of these. The first step of a video counts up to 30 seconds, or what `expect` was told.
    reach: in face widths, from one frame to the next.
    """

    def __init__(self, patience: float = 2.0, reach: float = 0.75) -> None:
        self.patience, self.reach = patience, reach
        self._believed = _FIRST
        self._tracks: list[_Track] = []
        self._next = 1
        self._frame: float | None = None
        self._steps: list[float] = []
        self._lasts = patience

    def __call__(self, faces: Sequence[Face], seconds: float) -> list[Face]:
        """See Tracker."""
        self._pace(seconds)
        self._tracks = [track for track in self._tracks if seconds - track.seen <= self._lasts]
        costs = np.array([[self._cost(track, face.box, seconds) for track in self._tracks] for face in faces])
        pairs = assigned(costs.reshape(len(faces), len(self._tracks)))
        numbered, known = [], list(self._tracks)
        for row, face in enumerate(faces):
            column = pairs.get(row)
            if column is None or costs[row, column] >= _FAR:
                x, y, width, height = _middle(face.box)
                track = _Track(self._next, x, y, width, height, seconds)
                self._tracks.append(track)
                self._next += 1
            else:
                track = known[column]
                track.see(face.box, seconds)
            numbered.append(replace(face, track=track.number))
        return numbered

    def _pace(self, seconds: float) -> None:
        """How long a track outlives its last face, from the steps before this one; the first step has nothing before it, and is
        believed up to 30 seconds or the step that was told."""
        step = None if self._frame is None else max(seconds - self._frame, 0.0)
        step = min(step, self._believed) if step is not None and not self._steps else step
        before = self._steps or ([] if step is None else [step])
        self._lasts = max(self.patience, 1.5 * median(before)) if before else self.patience
        self._steps = [*self._steps, *([] if step is None else [step])][-8:]
        self._frame = seconds

    def expect(self, step: float) -> None:
        """Frames will come about so many seconds apart: the first step is believed so far, where that is more than 30."""
        self._believed = max(_FIRST, 1.5 * step)

    def cut(self) -> None:
        """The picture changed altogether: who comes now is someone else, as far as boxes tell."""
        self._tracks = []

    def away(self, seconds: float) -> list[Box]:
        """Where the faces should be that have a track but are not seen now."""
        found = []
        for track in self._tracks:
            if 0 < seconds - track.seen <= self._lasts:
                (x, y), w, h = track.at(seconds), track.width / 2, track.height / 2
                found.append((x - w, y - h, x + w, y + h))
        return found

    def _cost(self, track: _Track, box: Box, seconds: float) -> float:
        x, y, width, height = _middle(box)
        gap = max(seconds - track.seen, 0.0)
        side = max((track.width + track.height + width + height) / 4, 1e-6)
        px, py = track.at(seconds)
        far = math.hypot(x - px, y - py) / side
        ratio = abs(math.log(max(width * height, 1e-6) / max(track.width * track.height, 1e-6))) / 2
        if far > min(self.reach + 1.5 * gap, 2.5) or ratio > min(math.log(1.4) + 0.4 * gap, math.log(2)):
            return _FAR
        return far + 0.5 * (1 - _overlap((px, py, track.width, track.height), (x, y, width, height))) + 0.5 * ratio

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        pace = {"frame": self._frame, "steps": self._steps}
        return {"next": self._next, "tracks": [asdict(track) for track in self._tracks], **pace}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another tracker was."""
        self._next, self._tracks = state["next"], [_Track(**track) for track in state["tracks"]]
        self._frame, self._steps = state["frame"], state["steps"]


def _middle(box: Box) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(edge) for edge in box)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Shared over joined area of two boxes given as centre and sides."""
    wide = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    high = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    shared = max(wide, 0.0) * max(high, 0.0)
    return shared / max(a[2] * a[3] + b[2] * b[3] - shared, 1e-9)


def assigned(costs: np.ndarray) -> dict[int, int]:
    """The pairing row -> column with the least total cost, of (n, m) costs; min(n, m) pairs.

    Shortest augmenting paths with potentials (H. W. Kuhn, "The Hungarian method", 1955; R. Jonker, A. Volgenant, 1987).

    >>> assigned(np.array([[1.0, 2.0], [1.0, 9.0]]))
    {0: 1, 1: 0}
    """
    n, m = costs.shape
    if not n or not m:
        return {}
    if n > m:
        return {row: column for column, row in sorted(assigned(costs.T).items(), key=lambda pair: pair[1])}
    up, down = np.zeros(n), np.zeros(m)
    owner = np.full(m, -1)
    for start in range(n):
        _augment(costs, start, up, down, owner)
    return {int(row): int(column) for row, column in sorted((owner[c], c) for c in range(m) if owner[c] >= 0)}


def _augment(costs: np.ndarray, start: int, up: np.ndarray, down: np.ndarray, owner: np.ndarray) -> None:
    """Give the row `start` a column along the cheapest path, moving other rows where that is cheaper."""
    m = costs.shape[1]
    least, came = np.full(m, np.inf), np.full(m, -1)
    done = np.zeros(m, bool)
    row, column = start, -1
    while True:
        rest = costs[row] - up[row] - down
        better = ~done & (rest < least)
        least[better], came[better] = rest[better], column
        following = int(np.where(done, np.inf, least).argmin())
        step = least[following]
        up[start] += step
        for j in np.flatnonzero(done):
            up[owner[j]] += step
            down[j] -= step
        least[~done] -= step
        done[following] = True
        column = following
        if owner[column] < 0:
            break
        row = owner[column]
    while column >= 0:
        before = came[column]
        owner[column] = owner[before] if before >= 0 else start
        column = before


class Smoother:
    """Averages what each track shows over seconds: probabilities and affect, exponentially, the past only.

    A reading `constant` seconds old weighs 1/e of the present one, whatever the frame rate: the mean of all readings x_i of a
    track at t_i is sum(w_i x_i) / sum(w_i) with w_i = exp(-(t - t_i) / constant), so each counts once, the first as any
    other, however irregularly they come. A value that is unknown (NaN) in a frame stays unknown there and counts nowhere.
    Heat and features stay those of the frame. Faces without a track or without an expression pass as they are, and so does
    everything if `constant` is 0.
    """

    def __init__(self, constant: float) -> None:
        self.constant = constant
        self._known: dict[int, _Mean] = {}

    def __call__(self, faces: Sequence[Face], seconds: float) -> list[Face]:
        """The same faces, in the same order, with smoothed expressions."""
        if self.constant <= 0:
            return list(faces)
        oldest = seconds - max(20 * self.constant, 5.0)
        self._known = {track: mean for track, mean in self._known.items() if mean.seconds >= oldest}
        return [self._smoothed(face, seconds) for face in faces]

    def _smoothed(self, face: Face, seconds: float) -> Face:
        read = face.expression
        if read is None or face.track is None:
            return face
        now = np.array([*read.probabilities, read.valence, read.arousal], np.float64)
        mean = self._known.get(face.track) or _Mean(seconds, np.zeros_like(now), np.zeros_like(now))
        mean = self._known[face.track] = mean.joined(now, seconds, self.constant)
        shown = np.where(np.isnan(now), np.nan, mean.values)
        calm = replace(
            read, probabilities=shown[:-2].astype(np.float32), valence=float(shown[-2]), arousal=float(shown[-1])
        )
        return replace(face, expression=calm)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        return {
            str(track): [mean.seconds, mean.weights.tolist(), mean.values.tolist()]
            for track, mean in self._known.items()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another smoother was."""
        self._known = {
            int(track): _Mean(seconds, np.array(weights), np.array(values))
            for track, (seconds, weights, values) in state.items()
        }


class _Mean(NamedTuple):
    """The weighted mean of what a track showed up to `seconds`, and the sum of the weights, of each value."""

    seconds: float
    weights: np.ndarray
    values: np.ndarray

    def joined(self, now: np.ndarray, seconds: float, constant: float) -> _Mean:
        """With one more reading, of weight 1."""
        known = ~np.isnan(now)
        weights = self.weights * math.exp(-max(seconds - self.seconds, 0.0) / constant) + known
        step = np.where(known, now - self.values, 0.0) / np.maximum(weights, 1.0)
        return _Mean(seconds, weights, self.values + step)
