"""Drawing what was read: boxes, the top expressions as bars, the affect dot on a small circumplex."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mien.faces import NOT_CERTAIN, Box, Expression, Face
from mien.spec import CropSpec
from mien.vision.align import crop_matrix

__all__ = ["PALETTE", "blur", "draw", "draw_heat"]

#: Colours by label; Okabe and Ito's colour-blind safe set, lightened for dark panels.
PALETTE: dict[str, tuple[int, int, int]] = {
    "neutral": (187, 187, 187),
    "happiness": (240, 200, 60),
    "sadness": (86, 150, 233),
    "surprise": (86, 210, 200),
    "fear": (190, 130, 220),
    "disgust": (90, 180, 90),
    "anger": (230, 95, 60),
    "contempt": (225, 140, 175),
}
_PANEL, _INK, _DIM = (22, 24, 28, 215), (255, 255, 255, 255), (255, 255, 255, 70)
_FAINT = (255, 255, 255, 190)
_BARS = 3


def draw(image: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
    """A new picture, RGB uint8 (h, w, 3), with every face marked; without faces a plain copy.

    The panel of a face stands beside its box, where the picture has room; smaller, if so it covers no face.
    """
    if not faces:
        return image.copy()
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for face in faces:
        _box(pen, face, canvas.size)
    taken = [face.box for face in faces]
    for face in sorted(faces, key=lambda face: face.size):
        if face.expression is not None:
            taken.append(_panel(canvas, face, face.expression, taken))
    return np.array(canvas)


def blur(image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """A new picture in which each box, and a quarter around it, is six by six even patches, softened: nobody can be told."""
    out = image.copy()
    for x0, y0, x1, y1 in boxes:
        dx, dy = (x1 - x0) / 4, (y1 - y0) / 4
        left, top = max(0, round(x0 - dx)), max(0, round(y0 - dy))
        part = out[top : max(top, round(y1 + dy)), left : max(left, round(x1 + dx))]
        if part.size:
            patches = cv2.resize(part, (6, 6), interpolation=cv2.INTER_AREA)
            part[:] = cv2.resize(patches, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return out


#: How opaque the hottest place is.
_OPAQUE = 0.75
_FINE = 256
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def draw_heat(image: np.ndarray, faces: Sequence[Face], crop: CropSpec) -> np.ndarray:
    """A new picture with each face's heat over it: what speaks for the label, from nothing (clear) to the most of this face
    (yellow). What the model saw of the face turns grey, so that heat is the only colour there. Faces without heat, or with
    none above 0, stay as they are.

    crop: how the model cut its chips. The colours are inferno's (S. van der Walt and N. Smith 2015): even in lightness, and
    told apart with any colour vision.
    """
    drawn = image.astype(np.float32)
    for face in faces:
        heat = face.expression.heat if face.expression is not None else None
        if heat is None or not heat.max() > 0:
            continue
        seen = _over_image(np.ones_like(heat), face, crop, image.shape)[..., None]
        drawn = drawn * (1 - seen) + (drawn @ _LUMA)[..., None] * seen
        strength = _over_image(np.clip(heat, 0, None) / heat.max(), face, crop, image.shape)
        level = np.rint(255 * (0.25 + 0.7 * strength)).astype(np.uint8)  # without inferno's black end
        shade = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        cover = _OPAQUE * strength[..., None]
        drawn = drawn * (1 - cover) + shade * cover
    return np.rint(drawn).astype(np.uint8)


def _over_image(heat: np.ndarray, face: Face, crop: CropSpec, shape: tuple[int, ...]) -> np.ndarray:
    """(h', w') heat in [0, 1] over a face's chip, laid onto the image: (h, w) float32, 0 outside the chip."""
    fine = np.clip(cv2.resize(heat, (_FINE, _FINE), interpolation=cv2.INTER_CUBIC), 0, 1)
    matrix = np.vstack([crop_matrix(face, crop), (0, 0, 1)])
    matrix = np.diag([_FINE / crop.width, _FINE / crop.height, 1]) @ matrix  # image to heat, edges
    matrix = matrix[:2]
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # to OpenCV's convention: pixel i is the point i
    size = (shape[1], shape[0])
    return cv2.warpAffine(fine, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def colour(label: str) -> tuple[int, int, int]:
    """The colour of a label; one that is not in the palette gets a stable colour of its own."""
    if label in PALETTE:
        return PALETTE[label]
    hue = sum(ord(letter) * (i + 1) for i, letter in enumerate(label)) % 360
    return tuple(int(155 + 90 * math.cos(math.radians(hue + turn))) for turn in (0, 240, 120))  # type: ignore[return-value]


def _box(pen: ImageDraw.ImageDraw, face: Face, size: tuple[int, int]) -> None:
    line = max(2, round(min(size) / 320))
    shade = colour(face.expression.label) if face.expression else (255, 255, 255)
    pen.rounded_rectangle(_whole(face.box), radius=3 * line, outline=(*shade, 255), width=line)


def _whole(box: tuple[float, ...]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(v) for v in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _fitted(
    face: Face, letters: float, lines: int, size: tuple[int, int], taken: list[tuple[float, float, float, float]]
) -> tuple[int, int, int, int, int]:
    """A panel of lines of so many letters: pixels of a letter, width, height and upper left corner. Large for a large face, but smaller,
    down to what can still be read, if only so it covers nothing."""
    side, tried = min(size), []
    wanted = int(min(max(face.size / 9, side / 55, 7), side / 22 + 4))
    least = min(wanted, max(side // 55, 7))
    for share in (1.0, 0.8, 0.6, 0.4):
        unit = max(least, round(wanted * share))
        width, height = round(unit * letters), round(unit * (1.55 * lines + 0.9))
        covered, x, y = _place(face.box, width, height, size, taken)
        tried.append((unit, width, height, x, y))
        if not covered:
            return tried[-1]
    return tried[0]


def _panel(
    canvas: Image.Image, face: Face, expression: Expression, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float]:
    known = not math.isnan(expression.valence + expression.arousal)
    sure = expression.certain or expression.label == "unknown"
    letters, lines = 14.5 if known else 9.6, _BARS if sure else _BARS + 1
    unit, width, height, x, y = _fitted(face, letters, lines, canvas.size, taken)
    font = ImageFont.load_default(size=unit)
    layer = Image.new("RGBA", (width + 1, height + 1), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    pen.rounded_rectangle((0, 0, width, height), radius=unit // 2, fill=_PANEL)
    for row, (label, probability) in enumerate(expression.top(_BARS)):
        _bar(pen, (0.5 * unit, 0.5 * unit + row * 1.55 * unit), label, probability, unit, font)
    if not sure:
        pen.text((0.5 * unit, 0.5 * unit + _BARS * 1.55 * unit), NOT_CERTAIN, font=font, fill=_FAINT)
    if known:
        _circumplex(pen, (width - 2.6 * unit, height / 2), 2.1 * unit, expression)
    canvas.paste(layer, (x, y), layer)
    return (x, y, x + width, y + height)


def _bar(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    label: str,
    probability: float,
    unit: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    x, y = at
    length = 8.6 * unit
    pen.text((x, y), label, font=font, fill=_INK)
    pen.text((x + length, y), f"{probability:.0%}", font=font, fill=_INK, anchor="ra")
    line = (x, y + 1.18 * unit, x + length, y + 1.36 * unit)
    pen.rectangle(line, fill=_DIM)
    pen.rectangle((x, line[1], x + max(1.0, length * probability), line[3]), fill=(*colour(label), 255))


def _circumplex(pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, expression: Expression) -> None:
    """Valence to the right, arousal up."""
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_DIM, width=max(1, int(radius / 14)))
    pen.line((x - radius, y, x + radius, y), fill=_DIM)
    pen.line((x, y - radius, x, y + radius), fill=_DIM)
    far = max(1.0, math.hypot(expression.valence, expression.arousal))
    dx, dy = x + radius * expression.valence / far, y - radius * expression.arousal / far
    dot = max(2.0, radius / 6)
    pen.ellipse((dx - dot, dy - dot, dx + dot, dy + dot), fill=(*colour(expression.label), 255))


def _place(
    box: tuple[float, float, float, float],
    width: int,
    height: int,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, int, int]:
    """Where the panel covers least, and how many pixels of others there: below, above, right or left of the box, kept inside
    the picture."""
    x0, y0, x1, y1 = box
    gap, middle = 4, (x0 + x1 - width) / 2
    spots = [(middle, y1 + gap), (middle, y0 - height - gap), (x1 + gap, y0), (x0 - width - gap, y0)]
    spots += [(x1 + gap, y1 - height), (x0 - width - gap, y1 - height)]
    inside = [(min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))) for x, y in spots]
    costs = [sum(_shared((x, y, x + width, y + height), other) for other in taken) for x, y in inside]
    best = int(np.argmin(costs))
    x, y = inside[best]
    return costs[best], round(x), round(y)


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
