"""Pictures of a person over time, as SVG: bands of expressions, curves of affect, the path on the circumplex.

However long the recording, a picture has at most BINS steps across: each is the time-weighted mean of all rows that fall into
it, and curves also show the least and greatest row, so that no peak is hidden. Where the face was not read there is a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mien.evaluation.timeline import Person, spread
from mien.report.figures import label_colour

__all__ = ["BINS", "Bins", "bands", "binned", "clock", "curves", "path", "ribbon"]

BINS = 480
_WIDTH, _LEFT, _RIGHT = 960, 44, 8


class Bins(NamedTuple):
    """A person's rows in even bins: edges (b + 1,) seconds, which hold rows (b,), means, least and greatest of the values
    (b, c + 2): probabilities, then valence and arousal; and for which share of each bin the answer was not certain (b,)."""

    edges: np.ndarray
    there: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unsure: np.ndarray


def binned(person: Person, begin: float, end: float, step: float, most: int = BINS) -> Bins:
    """A person's rows in at most `most` bins from `begin` to `end`, none shorter than `step`."""
    count = max(1, min(most, round((end - begin) / max(step, 1e-3))))
    edges = np.linspace(begin, end, count + 1)
    values = np.concatenate([person.probabilities, person.affect], axis=1)
    row, place, weights = spread(person, edges)
    values = values[row]
    total = np.bincount(place, weights, count)
    low, high = np.full((count, values.shape[1]), np.inf), np.full((count, values.shape[1]), -np.inf)
    np.minimum.at(low, place, values)
    np.maximum.at(high, place, values)
    there = total > 0
    sums = np.stack([np.bincount(place, weights * column, count) for column in values.T], axis=1)
    mean = np.divide(sums, total[:, None], out=np.full_like(sums, np.nan), where=there[:, None])
    doubts = np.zeros(len(row)) if person.doubts is None else weights * person.doubts[row]
    return Bins(edges, there, mean, low, high, np.bincount(place, doubts, count) / np.where(there, total, 1.0))


def clock(seconds: float, short: bool = True) -> str:
    """Seconds as m:ss or h:mm:ss.

    >>> clock(75), clock(3725), clock(7.25, short=False)
    ('1:15', '1:02:05', '0:07.2')
    >>> clock(59.96, short=False)
    '1:00.0'
    """
    minutes, rest = divmod(seconds if short else round(seconds, 1), 60)
    words = f"{int(rest):02d}" if short else f"{rest:04.1f}"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{words}" if hours else f"{minutes}:{words}"


def bands(bins: Bins, labels: Sequence[str], name: str) -> Markup:
    """Stacked probabilities over time; all labels together fill the height. Below them, where one was not certain: the darker, the
    more of the time."""
    height, foot = 150, 30 if bins.unsure.any() else 22
    shares = np.cumsum(np.nan_to_num(bins.mean[:, : len(labels)]), axis=1)
    shares /= np.maximum(shares[:, -1:], 1e-9)
    parts = []
    for run in _runs(bins.there):
        xs = _across(bins, np.append(run, run[-1] + 1))
        for i, label in enumerate(labels):
            top = 8 + (height - 8) * (1 - shares[run, i])
            base = 8 + (height - 8) * (1 - (shares[run, i - 1] if i else np.zeros(len(run))))
            parts.append(_area(xs, top, base, label_colour(label)))
    for run in _same(np.ceil(4 * bins.unsure) / 4):
        if strength := np.ceil(4 * bins.unsure[run[0]]) / 4:
            x0, x1 = _across(bins, np.array([run[0], run[-1] + 1]))
            mark = Markup(
                '<rect class="unsure" x="{:.1f}" y="{}" width="{:.1f}" height="6" fill="currentColor" fill-opacity="{}"/>'
            )
            parts.append(mark.format(x0, height + 2, x1 - x0, strength))
    frame = [_rect(_LEFT, 8, _WIDTH - _LEFT - _RIGHT, height - 8), *_ticks(bins, height + foot - 22)]
    sides = [_word(_LEFT - 6, 16, "100 %", "end"), _word(_LEFT - 6, height, "0 %", "end")]
    return _svg(height + foot, f"{name}: probabilities of the expressions over time", [*parts, *frame, *sides])


def curves(bins: Bins, name: str) -> Markup:
    """Valence (a whole line) and arousal (dashed) over time: the mean of each step, and the range from the least to the greatest row."""
    height, foot, c = 130, 22, bins.mean.shape[1] - 2
    middle = (8 + height) / 2

    def at(values: np.ndarray) -> np.ndarray:
        return middle - values * (height - 8) / 2

    parts = [_line(_LEFT, middle, _WIDTH - _RIGHT, middle, "var(--line)")]
    for column, colour, dash in ((c, "var(--mark)", "none"), (c + 1, "var(--bad)", "6 3")):
        for run in _runs(bins.there & ~np.isnan(bins.mean[:, column])):
            xs = _across(bins, run + 0.5)
            area = Markup('<path d="{}" fill="{}" fill-opacity=".18"/>')
            parts.append(area.format(_closed(xs, at(bins.high[run, column]), at(bins.low[run, column])), colour))
            ys = at(bins.mean[run, column])
            dots = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
            if len(run) == 1:
                dots = f"{xs[0] - 1:.1f},{ys[0]:.1f} {xs[0] + 1:.1f},{ys[0]:.1f}"
            line = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-dasharray="{}"/>')
            parts.append(line.format(dots, colour, dash))
    frame = [_rect(_LEFT, 8, _WIDTH - _LEFT - _RIGHT, height - 8), *_ticks(bins, height)]
    sides = [
        _word(_LEFT - 6, 16, "+1", "end"),
        _word(_LEFT - 6, middle + 4, "0", "end"),
        _word(_LEFT - 6, height, "-1", "end"),
    ]
    return _svg(height + foot, f"{name}: valence and arousal over time", [*parts, *frame, *sides])


def path(bins: Bins, name: str) -> Markup:
    """The way through the plane of valence and arousal, faint at first and strong at the end; at most 160 points."""
    side, edge = 300, 26
    size, middle = side + 2 * edge, edge + side / 2
    points = bins.mean[bins.there][:, -2:]
    points = points[~np.isnan(points).any(axis=1)]
    if len(points) > 160:
        points = np.stack([part.mean(axis=0) for part in np.array_split(points, 160)])
    places = np.stack([middle + points[:, 0] * side / 2, middle - points[:, 1] * side / 2], axis=1)
    parts = [
        Markup('<circle cx="{0}" cy="{0}" r="{1}" fill="none" stroke="var(--line)"/>').format(middle, side / 2),
        _line(edge, middle, edge + side, middle, "var(--line)"),
        _line(middle, edge, middle, edge + side, "var(--line)"),
        _word(middle, edge - 8, "excited", "middle"),
        _word(middle, size - edge + 18, "calm", "middle"),
        *(
            _turned(x, middle, words, turn)
            for x, words, turn in ((edge - 8, "unpleasant", -90), (size - edge + 8, "pleasant", 90))
        ),
    ]
    for i, (a, b) in enumerate(pairwise(places)):
        strength = 0.15 + 0.85 * (i + 1) / len(places)
        parts.append(
            Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="var(--mark)" stroke-width="1.8" '
                   'stroke-linecap="round" stroke-opacity="{:.2f}"/>').format(*a, *b, strength)
        )  # fmt: skip
    for place, fill, words in ((places[:1], "var(--card)", "start"), (places[-1:], "var(--mark)", "end")):
        parts += [Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" fill="{}" stroke="var(--mark)" stroke-width="2">'
                         '<title>{}</title></circle>').format(x, y, fill, words) for x, y in place]  # fmt: skip
    return Markup('<svg viewBox="0 0 {0} {0}" role="img" aria-label="{1}" style="max-width:{0}px">{2}</svg>').format(
        size, f"{name}: the path on the circumplex", Markup("").join(parts)
    )


def ribbon(everyone: Sequence[tuple[str, Bins]], labels: Sequence[str]) -> Markup:
    """When each person was there, in the colour of what was most probable; in one colour without probabilities."""
    row, parts = 20, []
    for i, (name, bins) in enumerate(everyone):
        y = 6 + i * row
        best = np.where(bins.there, np.nan_to_num(bins.mean[:, : len(labels)]).argmax(axis=1), -1)
        for run in _same(best):
            if best[run[0]] >= 0:
                x0, x1 = _across(bins, np.array([run[0], run[-1] + 1]))
                known = not np.isnan(bins.mean[run[0], : len(labels)]).any()
                colour = label_colour(labels[best[run[0]]]) if known else "var(--mark)"
                parts.append(Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="14" fill="{}"/>').format(
                    x0, y, max(x1 - x0, 0.6), colour))  # fmt: skip
        parts.append(_word(_LEFT - 6, y + 11, name, "end"))
    height = 6 + row * len(everyone)
    return _svg(height + 22, "who was there when", [*parts, *_ticks(everyone[0][1], height)])


def _across(bins: Bins, places: np.ndarray) -> np.ndarray:
    """Pixels of places in units of bins."""
    return _LEFT + places * (_WIDTH - _LEFT - _RIGHT) / len(bins.there)


def _runs(on: np.ndarray) -> list[np.ndarray]:
    rows = np.flatnonzero(on)
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []


def _same(values: np.ndarray) -> list[np.ndarray]:
    return np.split(np.arange(len(values)), np.flatnonzero(np.diff(values)) + 1)


def _area(xs: np.ndarray, top: np.ndarray, base: np.ndarray, colour: str) -> Markup:
    """Steps: each bin is as wide as its time."""
    wide = np.repeat(xs, 2)[1:-1]
    outline = _closed(wide, np.repeat(top, 2), np.repeat(base, 2))
    return Markup('<path d="{}" fill="{}"/>').format(outline, colour)


def _closed(xs: np.ndarray, top: np.ndarray, base: np.ndarray) -> str:
    there = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, top, strict=True)]
    back = [f"{x:.1f} {y:.1f}" for x, y in zip(xs[::-1], base[::-1], strict=True)]
    return "M" + "L".join([*there, *back]) + "Z"


def _ticks(bins: Bins, top: float) -> list[Markup]:
    """Round times below a picture."""
    begin, end = float(bins.edges[0]), float(bins.edges[-1])
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)
    days = 86400.0 * np.ceil((end - begin) / (9 * 86400))
    step = next((s for s in steps if (end - begin) / s <= 9), days)
    times = np.arange(np.ceil(begin / step) * step, end + 1e-9, step)
    xs = _LEFT + (times - begin) / max(end - begin, 1e-9) * (_WIDTH - _LEFT - _RIGHT)
    lines = [_line(x, top, x, top + 4, "var(--dim)") for x in xs]
    names = [clock(t, short=step >= 1) for t in times]
    # a letter is at most seven pixels wide: the last name ends within the picture
    named = [
        _word(min(x, _WIDTH - 3.5 * len(words)), top + 17, words, "middle") for x, words in zip(xs, names, strict=True)
    ]
    return [*lines, *named]


def _rect(x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="none" stroke="var(--line)"/>').format(
        x, y, width, height
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}"/>').format(x1, y1, x2, y2, colour)


def _word(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="currentColor" font-size="12">{}</text>').format(
        x, y, anchor, words
    )


def _turned(x: float, y: float, text: str, turn: int) -> Markup:
    """A word across its place: outside the circle no path covers it."""
    return Markup('<g transform="translate({:.1f} {:.1f}) rotate({})">{}</g>').format(
        x, y, turn, _word(0, 0, text, "middle")
    )


def _svg(height: float, title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" style="width:100%">{}</svg>').format(
        _WIDTH, height, title, Markup("").join(parts)
    )
