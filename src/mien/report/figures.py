"""Figures for pages: sheets of faces, histograms, the plane of valence and arousal; SVG and pictures as text.

Lines and letters of the SVG take the page's colours (`currentColor`, `--line`), so they are good in light and dark.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from markupsafe import Markup

from mien.faces import Box

__all__ = ["PALETTE", "data_uri", "histogram", "label_colour", "montage", "plane", "svg", "tag", "text", "tile"]

#: Colours by label: the set that the colour-blind can tell apart (M. Okabe, K. Ito, "Color Universal Design", 2008), with grey
#: for neutral. A label that is not here gets one of the same colours by its letters; the name always stands beside it.
PALETTE: dict[str, str] = {
    "neutral": "#8c8c8c",
    "happiness": "#e69f00",
    "sadness": "#0072b2",
    "surprise": "#56b4e9",
    "fear": "#cc79a7",
    "disgust": "#009e73",
    "anger": "#d55e00",
    "contempt": "#f0e442",
}


def label_colour(label: str | None) -> str:
    """The colour of a label as '#rrggbb'; grey for no label."""
    if label is None:
        return PALETTE["neutral"]
    if label in PALETTE:
        return PALETTE[label]
    return list(PALETTE.values())[1:][sum(map(ord, label)) % (len(PALETTE) - 1)]


def tile(image: np.ndarray, side: int, box: Box | None = None) -> np.ndarray:
    """A square RGB tile (side, side, 3): the box and a quarter around it, or the whole picture, fitted inside grey."""
    if box is not None:
        image = _around(image, box)
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    out = np.full((side, side, 3), 128, np.uint8)
    y, x = (side - size[1]) // 2, (side - size[0]) // 2
    out[y : y + size[1], x : x + size[0]] = small
    return out


def _around(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of the picture around a box; the whole picture where the box is no use."""
    if not np.isfinite(box).all():
        return image
    x0, y0, x1, y1 = box
    more = (x1 - x0) / 4, (y1 - y0) / 4
    left, top = max(0, int(x0 - more[0])), max(0, int(y0 - more[1]))
    part = image[top : max(0, int(y1 + more[1])), left : max(0, int(x1 + more[0]))]
    return part if part.size else image


def montage(tiles: Sequence[np.ndarray], columns: int, gap: int = 2) -> np.ndarray:
    """Equal square tiles in rows of `columns`, with grey gaps; at least one tile."""
    side = tiles[0].shape[0]
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 128, np.uint8)
    for i, part in enumerate(tiles):
        y, x = (i // columns) * (side + gap), (i % columns) * (side + gap)
        sheet[y : y + side, x : x + side] = part
    return sheet


def data_uri(image: np.ndarray, quality: int | None = 82) -> str:
    """RGB or RGBA uint8 as a data URI: JPEG of this quality, or PNG where quality is None or there is an alpha."""
    if quality is None or image.shape[2] == 4:
        colours = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
        kind, data = "png", cv2.imencode(".png", cv2.cvtColor(image, colours))[1]
    else:
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
        kind, data = "jpeg", cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)[1]
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def histogram(counts: Sequence[int], low: float, high: float, axis: str, title: str) -> Markup:
    """Equal bins from low to high as SVG bars; `axis` names the numbers below, `title` says what it shows to all readers."""
    width, height, left, foot = 640, 220, 56, 44
    most, step = max([*counts, 1]), (width - left - 8) / max(len(counts), 1)
    bars = [
        tag("rect", "", x=f"{left + i * step + 1:.1f}", y=f"{height - foot - tall:.1f}", width=f"{step - 2:.1f}",
             height=f"{tall:.1f}", fill="var(--mark)")
        for i, count in enumerate(counts) if (tall := (height - foot - 16) * count / most)
    ]  # fmt: skip
    ticks = [text(left + share * (width - left - 8), height - foot + 16, f"{low + share * (high - low):.1f}", "middle")
             for share in (0, 0.25, 0.5, 0.75, 1)]  # fmt: skip
    frame = [
        _line(left, height - foot, width - 8, height - foot),
        text(left - 6, 20, f"{most:,}", "end"),
        text(left - 6, height - foot, "0", "end"),
        text((left + width) / 2, height - 6, axis, "middle"),
    ]
    return svg(width, height, title, [*bars, *ticks, *frame])


def plane(affect: np.ndarray, labels: Sequence[str | None], title: str, seed: int = 0) -> Markup:
    """(n, 2) valence and arousal as points coloured by label, in the square from -1 to 1; NaN and what lies outside left out.

    Points are drawn in an order chosen by seed, so that no class lies on top of the others.
    """
    side, edge = 480, 40
    full, middle = side + 2 * edge, edge + side / 2
    dots = data_uri(_dots(affect, labels, 2 * side, seed))
    content = [
        tag("rect", "", x=edge, y=edge, width=side, height=side, fill="none", stroke="var(--line)"),
        tag("circle", "", cx=middle, cy=middle, r=side / 2, fill="none", stroke="var(--line)"),
        _line(edge, middle, edge + side, middle),
        _line(middle, edge, middle, edge + side),
        Markup('<image href="{}" x="{}" y="{}" width="{}" height="{}"/>').format(dots, edge, edge, side, side),
        text(edge, full - 14, "valence -1", "start"),
        text(edge + side, full - 14, "valence +1", "end"),
        text(middle, edge - 12, "arousal +1", "middle"),
        text(middle, full - 14, "arousal -1", "middle"),
    ]
    return svg(full, full, title, content)


def _dots(affect: np.ndarray, labels: Sequence[str | None], side: int, seed: int) -> np.ndarray:
    """(side, side, 4) RGBA: a disc for each point."""
    known = np.flatnonzero((np.abs(affect) <= 1).all(axis=1))
    rows = np.random.default_rng(seed).permutation(known)
    radius = 5 if len(rows) < 3000 else 3 if len(rows) < 30000 else 2
    at = np.rint((affect[rows] * (1, -1) + 1) / 2 * (side - 1)).astype(int)
    out = np.zeros((side, side, 4), np.uint8)
    colours = {name: (*_rgb(label_colour(name)), 225) for name in set(labels)}
    for row, (x, y) in zip(rows, at.tolist(), strict=True):
        cv2.circle(out, (x, y), radius, colours[labels[row]], -1)
    return out


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def svg(width: float, height: float, title: str, content: Iterable[Markup]) -> Markup:
    """A drawing of this size; `title` says to all readers what it shows."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" style="max-width:{}px">{}</svg>').format(
        width, height, title, width, Markup("").join(content)
    )


def tag(name: str, content: str, /, **attributes: object) -> Markup:
    """An element; underscores in the names of attributes become hyphens."""
    words = Markup(" ").join(
        Markup('{}="{}"').format(key.replace("_", "-"), value) for key, value in attributes.items()
    )
    return Markup("<{0} {1}>{2}</{0}>").format(name, words, content)


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", "", x1=x1, y1=y1, x2=x2, y2=y2, stroke="var(--line)")


def text(x: float, y: float, words: str, anchor: str) -> Markup:
    """Words at a place; anchor: start, middle or end."""
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, fill="currentColor", font_size=13)
