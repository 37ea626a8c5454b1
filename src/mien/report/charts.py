"""Charts for pages as SVG: lines with axes, and intervals on a scale. Every series differs by dash and marker, not by colour alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mien.report.figures import svg, tag, text

__all__ = ["SERIES", "Line", "chart", "interval_bar", "key_line"]

#: Colour (of the page, light and dark), dash and marker of the first, second, ... series.
SERIES: tuple[tuple[str, str, str], ...] = (
    ("var(--s1)", "", "circle"),
    ("var(--s2)", "7 4", "square"),
    ("var(--s3)", "2 4", "triangle"),
    ("var(--s4)", "9 3 2 3", "diamond"),
    ("var(--s5)", "12 4", "circle"),
    ("var(--s6)", "4 2", "square"),
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart: its points in rising x, and for each, where known, the (low, high) of an interval."""

    name: str
    points: Sequence[Point]
    intervals: Sequence[Point] = ()


def chart(
    lines: Sequence[Line],
    across: str,
    up: str,
    title: str,
    ticks: Sequence[tuple[float, str]],
    heights: Sequence[tuple[float, str]],
    size: tuple[int, int] = (360, 260),
    diagonal: bool = False,
    level: float | None = None,
) -> Markup:
    """Lines through points.

    across, up: what the axes are.  title: what it shows, for all readers.  ticks, heights: (value, words) along the axes; the
    first and the last of them bound the chart.  diagonal: the dashed line x = y.  level: a dashed level line.
    """
    (wide, high), left, top, foot = size, 50, 30, 46
    x0, x1, y0, y1 = ticks[0][0], ticks[-1][0], heights[0][0], heights[-1][0]

    def at(x: float, y: float) -> Point:
        inside = min(max(y, y0), y1)
        return left + (x - x0) / (x1 - x0) * wide, top + (y1 - inside) / (y1 - y0) * high

    content = [*_grid(ticks, heights, at, (left, top, wide, high))]
    if diagonal:
        content.append(_dashed(at(max(x0, y0), max(x0, y0)), at(min(x1, y1), min(x1, y1))))
    if level is not None:
        content.append(_dashed(at(x0, level), at(x1, level)))
    for line, style in zip(lines, SERIES * (1 + len(lines) // len(SERIES)), strict=False):
        content += _series(line, style, at)
    content += [text(left + wide / 2, top + high + foot - 6, across, "middle"), text(4, 16, up, "start")]
    return svg(left + wide + 26, top + high + foot, title, content)


def _grid(ticks, heights, at, frame) -> list[Markup]:  # type: ignore[no-untyped-def]
    left, top, wide, high = frame
    content = [tag("rect", "", x=left, y=top, width=wide, height=high, fill="none", stroke="var(--line)")]
    for value, words in heights:
        y = at(ticks[0][0], value)[1]
        content.append(tag("line", "", x1=left, x2=left + wide, y1=f"{y:.1f}", y2=f"{y:.1f}", stroke="var(--line)"))
        content.append(text(left - 6, y + 4, words, "end"))
    content += [text(at(value, heights[0][0])[0], top + high + 18, words, "middle") for value, words in ticks]
    return content


def _dashed(start: Point, end: Point) -> Markup:
    (x1, y1), (x2, y2) = start, end
    return tag(
        "line",
        "",
        x1=f"{x1:.1f}",
        y1=f"{y1:.1f}",
        x2=f"{x2:.1f}",
        y2=f"{y2:.1f}",
        stroke="var(--dim)",
        stroke_dasharray="4 4",
    )


def _series(line: Line, style: tuple[str, str, str], at) -> list[Markup]:  # type: ignore[no-untyped-def]
    colour, dash, marker = style
    places = [at(x, y) for x, y in line.points]
    content = []
    for (x, _), (low, high) in zip(line.points, line.intervals, strict=False):
        (px, top), (_, bottom) = at(x, high), at(x, low)
        content.append(
            tag(
                "line",
                "",
                x1=f"{px:.1f}",
                x2=f"{px:.1f}",
                y1=f"{top:.1f}",
                y2=f"{bottom:.1f}",
                stroke=colour,
                stroke_width=1.5,
                opacity=0.65,
            )
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    content.append(
        tag("polyline", "", points=path, fill="none", stroke=colour, stroke_width=2.2, stroke_dasharray=dash or "none")
    )
    return content + [_marker(marker, x, y, colour) for x, y in places]


def _marker(kind: str, x: float, y: float, colour: str) -> Markup:
    if kind == "circle":
        return tag("circle", "", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3.4, fill=colour)
    corners = {
        "square": ((-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)),
        "triangle": ((0, -4.4), (4.2, 3.2), (-4.2, 3.2)),
        "diamond": ((0, -4.8), (4.4, 0), (0, 4.8), (-4.4, 0)),
    }[kind]
    return tag("polygon", "", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners), fill=colour)


def key_line(number: int) -> Markup:
    """A small sample of the series with this number, for a legend."""
    colour, dash, marker = SERIES[number % len(SERIES)]
    line = tag("line", "", x1=0, x2=34, y1=8, y2=8, stroke=colour, stroke_width=2.2, stroke_dasharray=dash or "none")
    return Markup(
        '<svg class="keyline" viewBox="0 0 34 16" width="34" height="16" aria-hidden="true">{}{}</svg>'
    ).format(line, _marker(marker, 17, 8, colour))


def interval_bar(
    value: float, edges: Point, low: float, high: float, reference: float | None = None, faint: bool = False
) -> Markup:
    """A value and its interval on a scale from low to high, with a dashed reference; the number stands beside it, so it is hidden
    from readers that speak."""
    wide = 200
    if math.isnan(value):
        return Markup("")

    def at(x: float) -> str:
        return f"{4 + (min(max(x, low), high) - low) / (high - low) * (wide - 8):.1f}"

    colour = "var(--dim)" if faint else "var(--mark)"
    content = [tag("line", "", x1=4, x2=wide - 4, y1=10, y2=10, stroke="var(--line)")]
    if reference is not None:
        x = at(reference)
        content.append(tag("line", "", x1=x, x2=x, y1=0, y2=20, stroke="var(--dim)", stroke_dasharray="3 3"))
    if not math.isnan(edges[0]):
        content.append(tag("line", "", x1=at(edges[0]), x2=at(edges[1]), y1=10, y2=10, stroke=colour, stroke_width=3))
    content.append(tag("circle", "", cx=at(value), cy=10, r=4.5, fill=colour))
    return Markup('<svg class="spread" viewBox="0 0 {} 20" width="{}" height="20" aria-hidden="true">{}</svg>').format(
        wide, wide, Markup("").join(content)
    )
