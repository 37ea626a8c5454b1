"""Video out: an H.264 writer that keeps every frame's time."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from os import PathLike
from types import TracebackType

import av
import cv2
import numpy as np

from mien.errors import OutputError, VideoError
from mien.files import beside, check_free, give_name
from mien.vision.cameras import asked_as

__all__ = ["VideoWriter"]


class VideoWriter:
    """An H.264 file that browsers play, with the true time of every frame. A context manager.

    width, height: of the images given; odd sides lose their last pixel (H.264 wants even ones). An image of another size is
    fitted in: it keeps its shape, and the rest is black.
    The file is written aside and renamed at the end. Ctrl-C and a VideoError of the source keep what was written; any
    other error leaves nothing. Raises OutputError.
    """

    def __init__(
        self, path: str | PathLike[str], width: int, height: int, rate: float = 25.0, overwrite: bool = False
    ) -> None:
        self.path = check_free(path, overwrite)
        self._part = beside(self.path, ".part.mp4")
        self._size = (max(2, width - width % 2), max(2, height - height % 2))
        self._last = -1
        try:
            self._container = av.open(asked_as(self._part), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = self._container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{self.path}: cannot be written as H.264 ({error})") from error
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        self._stream.codec_context.time_base = Fraction(1, 90_000)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Add RGB uint8 (h, w, 3), shown from `seconds` on."""
        picture = av.VideoFrame.from_ndarray(_fitted(image, *self._size), format="rgb24")
        self._last = max(self._last + 1, round(seconds * 90_000))
        picture.pts, picture.time_base = self._last, Fraction(1, 90_000)
        try:
            self._container.mux(self._stream.encode(picture))
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"{self.path}: cannot be written ({error})") from error

    def close(self) -> None:
        """Finish the file and give it its name; with no frame written there is no file."""
        try:
            if self._last >= 0:
                self._container.mux(self._stream.encode())
            self._container.close()
            if self._last >= 0:
                give_name(self._part, self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"{self.path}: cannot be written ({error})") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave no file but the finished one, and none open."""
        with suppress(av.error.FFmpegError, OSError):  # what went wrong before is what matters
            self._container.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, (KeyboardInterrupt, VideoError)):
            self.close()
        else:
            self.discard()


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image in a picture of even sides: as it is, at most a pixel less; or scaled into the middle of black."""
    rows, columns = image.shape[:2]
    if (columns - width, rows - height) in ((0, 0), (0, 1), (1, 0), (1, 1)):
        return np.ascontiguousarray(image[:height, :width])
    scale = min(width / columns, height / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    out = np.zeros((height, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=way)
    return out
