"""What a table of a video says of each person: shares, mean affect, episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mien.errors import DataError
from mien.evaluation.intervals import block_bootstrap, memory
from mien.runtime.table import read_rows, share_columns

__all__ = ["Episode", "Person", "Summary", "Timeline", "episodes", "everybody", "read_timeline", "spread", "summary"]

_LONGEST_FRAME = 1.0
_MOST_CELLS = 20_000
_VALUES = ("valence", "arousal", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, eq=False)
class Person:
    """One track: seconds (n,) ascending, probabilities (n, c), affect (n, 2) as valence and arousal (NaN where the model answers one of the two alone), boxes (n, 4), and how long each
    row lasted (n,), in seconds: to the next frame of the video, at most one second, or a usual step if that is longer; doubts: in
    which rows the answer was not certain (n,), None for none."""

    track: int
    seconds: np.ndarray
    probabilities: np.ndarray
    affect: np.ndarray
    boxes: np.ndarray
    lasted: np.ndarray
    doubts: np.ndarray | None = None

    @property
    def doubted(self) -> float:
        """Seconds in which the answer was not certain."""
        return 0.0 if self.doubts is None else float(self.lasted[self.doubts].sum())

    @property
    def seen(self) -> float:
        """Seconds in which the face was read."""
        return float(self.lasted.sum())


@dataclass(frozen=True, eq=False)
class Timeline:
    """A table by people, those longest seen first. frames: how many were read; step: the median time between two; rate: frames
    a second of the source, those that were not read too (None: the table has no `index`); table: where it lies."""

    source: str
    model: str
    smoothing: float
    labels: tuple[str, ...]
    begin: float
    end: float
    frames: int
    step: float
    filled: float
    people: tuple[Person, ...]
    rate: float | None
    table: Path


def read_timeline(path: str | PathLike[str]) -> Timeline:
    """A table of `mien watch`, in any of its forms, its rows in any order. Raises DataError."""
    times: dict[float, float] = {}
    found: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    filled: set[float] = set()
    first: dict[str, Any] | None = None
    names: list[str] = []
    for number, row in enumerate(read_rows(path, lambda header: _needed(path, header)), 1):
        if first is None:
            first, names = row, share_columns(list(row))
            if row.get("seconds") is None and row.get("index") is None:
                raise DataError(
                    f"{path}: a table of pictures, which have no times; a report is of a table of `mien watch`"
                )
        if row.get("image") != first["image"]:
            raise DataError(
                f"{path}: row {number}: is of {row.get('image')}, the first of {first['image']}; give each its own table"
            )
        seconds, index, _ = _numbers(path, number, row, ["seconds", "index", "smoothing"])
        times[seconds] = np.nan if index is None else index
        if row.get("face") is not None and (row.get(names[0]) is not None or row.get("valence") is not None):
            filled.add(seconds)
            values = _numbers(path, number, row, ["track", *_VALUES, *names, "certain"])
            found[int(values[0] or 0)].append((seconds, *(np.nan if v is None else v for v in values[1:])))
    if first is None:
        raise DataError(f"{path}: a table without rows")
    return _timeline(Path(path), first, names, np.array(sorted(times.items())), found, filled)


def _needed(path: Any, header: list[str]) -> list[str]:
    """The columns that a timeline is made of. Raises DataError: one is missing."""
    shares = share_columns(header)
    needed = ["image", "seconds", "face", "track", *_VALUES]
    missing = [name for name in needed if name not in header] + ([] if shares else ["p_..."])
    if missing:
        after = "" if missing[0] != "p_..." else " after 'arousal'"
        raise DataError(f"{path}: not a table of `mien watch`: it has no column {missing[0]!r}{after}")
    return [*needed, *shares, "certain", "index", "model", "smoothing"]


def _numbers(path: Any, number: int, row: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """Some values of a row, None where unknown (but not seconds). Raises DataError: not a finite number, or no probability."""
    values = [row.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if (value is None and name == "seconds") or (value is not None and not _finite(value)):
            raise DataError(
                f"{path}: row {number}: {name} is {'empty' if value is None else repr(value)}; expected a number"
            )
        if value is not None and name.startswith("p_") and not -1e-3 <= value <= 1.001:
            raise DataError(f"{path}: row {number}: {name} is {value!r}; a probability is 0 to 1")
    return values


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def _timeline(
    table: Path,
    first: dict[str, Any],
    names: list[str],
    frames: np.ndarray,
    found: dict[int, list[tuple[float, ...]]],
    filled: set[float],
) -> Timeline:
    times, gaps = frames[:, 0], np.diff(frames[:, 0])
    rate = float(np.median(np.diff(frames[:, 1]) / gaps)) if len(gaps) else np.nan
    step = float(np.median(gaps)) if len(gaps) else 0.04
    lasts = np.append(np.clip(gaps, 0, max(_LONGEST_FRAME, step)), step)
    people = []
    for track, rows in found.items():
        values = np.array(sorted(rows, key=lambda row: row[0]))
        at = np.searchsorted(times, values[:, 0])
        shares, lasted = values[:, 7:-1], lasts[at]
        doubts = (values[:, -1] == 0) & ~np.isnan(shares).any(axis=1)
        people.append(Person(track, values[:, 0], shares, values[:, 1:3], values[:, 3:7], lasted, doubts))
    people.sort(key=lambda person: (-person.seen, person.track))
    covered = float(lasts[np.searchsorted(times, sorted(filled))].sum()) if filled else 0.0
    return Timeline(
        source=str(first.get("image") or ""),
        model=str(first.get("model") or ""),
        smoothing=float(first.get("smoothing") or 0.0),
        labels=tuple(name[2:] for name in names),
        begin=float(times[0]),
        end=float(times[-1] + step),
        frames=len(times),
        step=step,
        filled=covered,
        people=tuple(people),
        rate=rate if isfinite(rate) and rate > 0 else None,
        table=table,
    )


def everybody(timeline: Timeline) -> Person:
    """All people as one, of track 0: at a time each weighs as any other."""
    people = timeline.people
    order = np.argsort(np.concatenate([person.seconds for person in people]), kind="stable")

    def joined(parts: Iterable[np.ndarray]) -> np.ndarray:
        return np.asarray(np.concatenate(list(parts))[order])

    return Person(
        0,
        joined(person.seconds for person in people),
        joined(person.probabilities for person in people),
        joined(person.affect for person in people),
        joined(person.boxes for person in people),
        joined(person.lasted for person in people),
        joined(np.zeros(len(one.seconds), bool) if one.doubts is None else one.doubts for one in people),
    )


class Summary(NamedTuple):
    """One person's figures with 95 % intervals (low, high), NaN where the time is too short.

    shares: (c,) of the time in which each label was the most probable; means: (c,) probabilities; affect: (2,).
    block: seconds of the bootstrap's blocks.
    """

    shares: np.ndarray
    share_edges: np.ndarray
    means: np.ndarray
    affect: np.ndarray
    affect_edges: np.ndarray
    block: float


def summary(person: Person, step: float, smoothing: float = 0.0, draws: int = 1000, seed: int = 0) -> Summary:
    """Shares and mean affect of a person, weighted by time, with intervals from the circular block bootstrap.

    The rows are spread over an even grid of `step` seconds (coarser beyond 20,000 cells); cells without the face are left out. Blocks
    last at least 2 seconds, five times the smoothing, and twice as long as the series remembers (`intervals.memory`); but at
    most a fifth of the time, so that there are some to draw. A share of none or all of the time, of which draws would be sure, has
    Wilson's interval of as many blocks.
    """
    from mien.evaluation.metrics import wilson  # brings scikit-learn

    best = np.eye(person.probabilities.shape[1])[person.probabilities.argmax(axis=1)]
    best[np.isnan(person.probabilities).any(axis=1)] = np.nan
    values = np.concatenate([best, person.probabilities, person.affect], axis=1)
    cells, held, width = _cells(person, values, step)
    lag = memory(np.nan_to_num(cells), max(1, len(cells) // 10)) * width
    block = min(max(2.0, 5 * smoothing, 2 * lag), max(len(cells) * width / 5, width))
    rows = max(1, round(block / width))
    edges = block_bootstrap(cells, rows, draws, seed, held)
    means, c = np.average(values, axis=0, weights=person.lasted + 1e-9), best.shape[1]
    for i in np.flatnonzero(np.isfinite(edges[0, :c]) & (np.abs(means[:c] - 0.5) > 0.5 - 1e-6)):
        count = len(cells) // rows
        edges[:, i] = wilson(count if means[i] > 0.5 else 0, count)
    return Summary(means[:c], edges[:, :c], means[c : 2 * c], means[2 * c :], edges[:, 2 * c :], block)


def _cells(person: Person, values: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Time-weighted means (m, k) of the cells of an even grid that hold something, in order; the seconds that each holds (m,); and
    the grid's width."""
    begin, end = person.seconds[0], (person.seconds + person.lasted).max()
    width = max(step, (end - begin) / _MOST_CELLS, 1e-3)
    count = max(1, int(np.ceil((end - begin) / width - 1e-6)))
    row, place, weights = spread(person, begin + width * np.arange(count + 1))
    held = np.bincount(place, weights, count)
    there = held > 0
    sums = np.stack([np.bincount(place, weights * column, count) for column in values[row].T], axis=1)
    return sums[there] / held[there][:, None], held[there], width


def spread(person: Person, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row over all bins that it lasts in: row, bin and seconds there, side by side; at least the bin of its middle."""
    count = len(edges) - 1
    ends = person.seconds + person.lasted
    middle = np.clip(np.searchsorted(edges, (person.seconds + ends) / 2, side="right") - 1, 0, count - 1)
    first = np.minimum(np.searchsorted(edges, person.seconds + 1e-6, side="right") - 1, middle).clip(0)
    last = np.maximum(np.searchsorted(edges, ends - 1e-6, side="left") - 1, middle).clip(0, count - 1)
    many = last - first + 1
    row = np.repeat(np.arange(len(many)), many)
    place = np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many) + first[row]
    shared = np.minimum(ends[row], edges[place + 1]) - np.maximum(person.seconds[row], edges[place])
    there = (shared > 1e-6) | (place == middle[row])
    return row[there], place[there], np.maximum(shared[there], 0) + 1e-9


class Episode(NamedTuple):
    """A time in which a person showed one expression: seconds of onset, apex (its highest probability) and offset."""

    track: int
    label: str
    onset: float
    apex: float
    offset: float
    peak: float
    mean: float
    valence: float
    arousal: float


def episodes(
    person: Person,
    labels: Sequence[str],
    high: float = 0.5,
    low: float = 0.35,
    shortest: float = 0.3,
    away: float = 0.3,
    left_out: Iterable[str] = ("neutral",),
) -> list[Episode]:
    """When a person showed what: an episode of a label lasts while its probability stays at `low` or more, and reaches `high`.

    A face that is away for at most `away` seconds does not end it; one shorter than `shortest` seconds does not count. Labels that
    are left out have none. Ordered by onset.
    """
    found = []
    for column, label in enumerate(labels):
        if label not in set(left_out):
            runs = _runs(person, person.probabilities[:, column] >= low, away)
            found += [_episode(person, column, label, rows) for rows in runs]
    long = [one for one in found if one.peak >= high and one.offset - one.onset >= shortest - 1e-9]
    return sorted(long, key=lambda one: (one.onset, one.label))


def _runs(person: Person, on: np.ndarray, away: float) -> list[np.ndarray]:
    """Runs of rows that are on; broken where the face was away for longer."""
    rows = np.flatnonzero(on)
    if not len(rows):
        return []
    ends = person.seconds + person.lasted
    broken = (np.diff(rows) > 1) | (person.seconds[rows[1:]] - ends[rows[:-1]] > away)
    return np.split(rows, np.flatnonzero(broken) + 1)


def _episode(person: Person, column: int, label: str, rows: np.ndarray) -> Episode:
    shown, weights = person.probabilities[rows, column], person.lasted[rows] + 1e-9
    affect = np.average(person.affect[rows], axis=0, weights=weights)
    return Episode(
        track=person.track,
        label=label,
        onset=float(person.seconds[rows[0]]),
        apex=float(person.seconds[rows[shown.argmax()]]),
        offset=float(person.seconds[rows[-1]] + person.lasted[rows[-1]]),
        peak=float(shown.max()),
        mean=float(np.average(shown, weights=weights)),
        valence=float(affect[0]),
        arousal=float(affect[1]),
    )
