"""Reading and writing images: anything in, RGB uint8 (h, w, 3) inside."""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mien.errors import ImageError
from mien.files import is_hidden, whole_file

__all__ = ["MAX_PIXELS", "SUFFIXES", "ImageSource", "is_picture", "left_out", "other_kind", "read_image", "write_image"]

#: A larger picture is refused from its header, before it is decoded.
MAX_PIXELS = 128_000_000

#: File name endings that are taken for pictures when a folder is read.
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
#: Endings that are taken for videos.
VIDEOS = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .wmv .flv .3gp .ogv".split()  # noqa: SIM905
)
#: Endings of pictures that are not read.
_OTHERS = frozenset(
    ".heic .heif .avif .jp2 .j2k .jxl .jxr .psd .svg .tga .ico .exr .hdr .pbm .pgm .ppm .pnm "  # noqa: SIM905
    ".dng .raw .cr2 .cr3 .nef .arw .orf .raf .rw2".split()
)

ImageSource = str | PathLike[str] | bytes | bytearray | memoryview | np.ndarray | Image.Image

#: What is read, and no other: Pillow would hand EPS to Ghostscript, a program of its own.
_FORMS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
#: TIFF's tag BitsPerSample.
_BITS = 258
#: Pixels that a side may have when it is written.
_LONGEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
#: Pixels that are blended at once.
_STRIP = 1 << 16
#: What Pillow raises for damaged files, in their headers and EXIF too.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, OverflowError, struct.error)


def is_picture(path: Path) -> bool:
    """Whether a file of a folder is taken for a picture: by its ending, and not if it is hidden."""
    return path.suffix.lower() in SUFFIXES and not is_hidden(path.name) and path.is_file()


def other_kind(name: str) -> str:
    """The ending of a picture that is not read; '' for any other file, and for a hidden one.

    >>> other_kind("party.HEIC"), other_kind("notes.txt"), other_kind("._a.heic")
    ('.heic', '', '')
    """
    suffix = PurePath(name).suffix.lower()
    return suffix if suffix in _OTHERS and not is_hidden(PurePath(name).name) else ""


def left_out(kinds: Mapping[str, int]) -> str:
    """What is said of pictures that are not read, by their endings.

    >>> left_out({".avif": 2, ".heic": 4})
    '6 pictures of other kinds were left out (.heic 4, .avif 2); save them as JPEG or PNG'
    """
    counts = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    each, total = ", ".join(f"{kind} {count}" for kind, count in counts), sum(kinds.values())
    words = "1 picture of another kind was" if total == 1 else f"{total} pictures of other kinds were"
    return f"{words} left out ({each}); save {'it' if total == 1 else 'them'} as JPEG or PNG"


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """RGB uint8 (h, w, 3), contiguous, upright (EXIF applied).

    source: a path, encoded bytes, an array or a PIL image. Arrays are whole numbers, uint8 or uint16 (scaled to 8 bits) of shape
    (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA. Transparency is laid over white; of an animation the first
    picture counts. Of 16 bits 65535 is white, as PNG and TIFF say, however dark the picture: what a camera of 10 or 12 bits
    left unscaled is to be scaled first (a TIFF that states 12 bits is, by its own white). Floats of files and PIL images run from 0
    to 1, or, where one is above 2, from 0 to 255; what overshoots that range is clipped.
    Raises ImageError: none of these, not an image, cut off, more than max_pixels (encoded ones judged by the header), or numbers of
    unknown range: floats above 510, NaN or infinite, whole ones of 32 bits or with a sign.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image", max_pixels)
    where = str(source) if isinstance(source, (str, PathLike)) else "the bytes given"
    try:
        data = _encoded(source)
    except OSError as error:
        move = "; addresses are not fetched: give a file or its bytes" if "://" in where else ""
        raise ImageError(f"{where or 'an empty path'}: cannot be read ({error.strerror or error}){move}") from error
    if not data:
        raise ImageError(f"{where}: is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMS) as picture:
                return _from_pil(picture, where, max_pixels)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{where}: its header claims too many pixels (limit {max_pixels:,})") from error
    except UnidentifiedImageError as error:
        film = "; a video is read with `mien watch`" if PurePath(where).suffix.lower() in VIDEOS else ""
        raise ImageError(
            f"{where}: is not an image of a known form; give JPEG, PNG, WebP, BMP, GIF or TIFF{film}"
        ) from error
    except _DAMAGE as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{where}: is cut off or damaged ({error})") from error


def _encoded(source: object) -> bytes:
    """The bytes of a file's name, or these themselves. Raises ImageError: neither; OSError."""
    if isinstance(source, (str, PathLike)):
        return Path(source).read_bytes()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    raise ImageError(
        f"an image of type {type(source).__name__}: expected a path, encoded bytes, an array or a PIL image (of an open file "
        "give its .read(), of a tensor its .numpy() with the channels last)"
    )


def _from_pil(picture: Image.Image, where: str, max_pixels: int) -> np.ndarray:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(f"{where}: {width}x{height} pixels; the limit is {max_pixels:,}; make it smaller first")
    try:
        white = 4095 if getattr(picture, "tag_v2", {}).get(_BITS) == (12,) else 65535
        return _rgb(ImageOps.exif_transpose(picture), where, white)
    except _DAMAGE as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{where}: is cut off or damaged ({error})") from error


def _rgb(picture: Image.Image, where: str, white: int) -> np.ndarray:
    """white: of 16 bits."""
    if picture.mode == "F":
        return _from_array(_eight_bits(np.asarray(picture), where))
    if picture.mode.startswith("I;16"):
        return _from_array((np.asarray(picture).astype(np.uint32) * 255 // white).astype(np.uint8))
    if picture.mode == "I":
        raise ImageError(
            f"{where}: whole numbers of 32 bits or with a sign, whose white is not known; save them as 8 or 16 bits"
        )
    if "A" in picture.mode or "transparency" in picture.info:
        return _from_array(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"), np.uint8)


def _eight_bits(values: np.ndarray, where: str) -> np.ndarray:
    """Floats as uint8; see read_image. Raises ImageError."""
    if not np.isfinite(values).all():
        raise ImageError(f"{where}: holds numbers that are not finite (NaN or infinity); replace them first")
    most = float(values.max())
    if most > 2 * 255:
        raise ImageError(f"{where}: floats up to {most:g}; scale them to 0..1 or 0..255 first")
    scale = 255.0 if most <= 2 else 1.0
    return np.rint(np.minimum(values.clip(0) * scale, 255)).astype(np.uint8)


def _from_array(array: np.ndarray, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    array = np.asarray(array)  # a matrix would stay two-dimensional
    shape = "x".join(map(str, array.shape))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        move = "; put the channels last: np.moveaxis(image, 0, -1)" if first else ""
        move = "; give one picture at a time" if array.ndim == 4 else move
        raise ImageError(f"an array of shape {shape}: expected (h, w), (h, w, 1), (h, w, 3) or (h, w, 4){move}")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise ImageError(f"an array of shape {shape}: the limit is {max_pixels:,} pixels")
    if array.dtype.newbyteorder("=") == np.uint16:
        array = (array // 257).astype(np.uint8)
    if array.dtype != np.uint8:
        move = "of floats from 0 to 1 give (image * 255).round().astype('uint8')"
        raise ImageError(f"an array of type {array.dtype}: expected uint8 from 0 to 255 (or uint16); {move}")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 4:
        return _over_white(array)
    return np.ascontiguousarray(array)


def _over_white(array: np.ndarray) -> np.ndarray:
    """RGBA as RGB, rounded; a strip of rows at a time, so that little more than the answer is in memory."""
    over = np.empty((*array.shape[:2], 3), np.uint8)
    rows = max(1, _STRIP // array.shape[1])
    for top in range(0, len(array), rows):
        part = array[top : top + rows].astype(np.uint16)
        alpha = part[..., 3:]
        over[top : top + rows] = (part[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return over


def write_image(path: str | PathLike[str], image: np.ndarray, overwrite: bool = False) -> None:
    """Write RGB uint8 (h, w, 3) by the suffix, whole or not at all. Raises OutputError, ImageError (suffix, or a picture larger
    than its form holds)."""
    suffix = Path(path).suffix.lower()
    if suffix not in {".jpg", ".jpeg", ".png", ".webp", ".bmp"}:
        raise ImageError(f"{path}: no picture form for {suffix or 'a name without ending'!r}; use .jpg, .png or .webp")
    height, width = image.shape[:2]
    fits = max(height, width) <= _LONGEST.get(suffix, math.inf)
    fits, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) if fits else (False, image)
    if not fits:
        raise ImageError(
            f"{path}: cannot be written: {width}x{height} pixels are more than {suffix} holds; make it smaller first"
        )
    with whole_file(path, overwrite) as part:
        part.write_bytes(encoded.tobytes())
