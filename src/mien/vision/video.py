"""Video in and out: frames with true seconds, and an H.264 writer that keeps them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import av
import numpy as np

from mien.errors import OutputError, VideoError
from mien.faces import Frame
from mien.files import check_free

__all__ = ["VideoInfo", "VideoWriter", "frames", "video_info"]

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


class VideoInfo(NamedTuple):
    """What a video's header says: pixels, frames and seconds (None where it does not say), frames a second."""

    width: int
    height: int
    frames: int | None
    seconds: float | None
    rate: float


def _open(source: str | PathLike[str] | int) -> Any:
    """The container. Raises VideoError."""
    if isinstance(source, int):
        form, device = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
        place, options = device.format(source), {"format": form}
    else:
        place, options = str(source), {}
        if "://" not in place and not Path(place).is_file():
            raise VideoError(f"{place}: no such video file")
    try:
        container = av.open(place, **options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(source, int):
            raise VideoError(
                f"camera {source}: does not answer ({error}); is one connected, and not in use?"
            ) from error
        raise VideoError(f"{place}: cannot be read as a video ({error})") from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{place}: has no video stream")
    return container


def video_info(source: str | PathLike[str] | int) -> VideoInfo:
    """What a video's header says. Raises VideoError."""
    with _open(source) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        seconds = float(stream.duration * stream.time_base) if stream.duration else None
        if seconds is None and container.duration:
            seconds = container.duration / 1e6
        count = stream.frames or (round(seconds * rate) if seconds else None)
        return VideoInfo(stream.width, stream.height, count, seconds, rate)


def frames(source: str | PathLike[str] | int) -> Iterator[Frame]:
    """The frames of a file, an address or a camera (its number), one in memory at a time, upright.

    Seconds come from the presentation times, from 0 at the first frame: variable frame rates stay true.
    Raises VideoError: not a video; and, after the frames that could be decoded, a video that is damaged or cut off.
    """
    count, seconds = 0, 0.0
    info = None if isinstance(source, int) else video_info(source)
    with _open(source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first = None
        try:
            for picture in container.decode(stream):
                time = picture.time if picture.time is not None else count / (info.rate if info else 25.0)
                first = time if first is None else first
                seconds = time - first
                yield Frame(_upright(picture), count, seconds)
                count += 1
        except av.error.FFmpegError as error:
            raise VideoError(f"{source}: damaged after {count} frames ({seconds:.2f} s): {error}") from error
    if not count:
        raise VideoError(f"{source}: no frame could be decoded")
    if info and stream.frames and count < stream.frames - 2:
        raise VideoError(f"{source}: cut off: {count} of {stream.frames} frames ({seconds:.2f} s) could be decoded")


def _upright(picture: Any) -> np.ndarray:
    image = picture.to_ndarray(format="rgb24")
    turns = round((getattr(picture, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class VideoWriter:
    """An H.264 file that browsers play, with the true time of every frame. A context manager.

    width, height: of the images given; odd sides lose their last pixel (H.264 wants even ones).
    The file is written aside and renamed at the end. Ctrl-C and a VideoError of the source keep what was written; any
    other error leaves nothing. Raises OutputError.
    """

    def __init__(
        self, path: str | PathLike[str], width: int, height: int, rate: float = 25.0, overwrite: bool = False
    ) -> None:
        self.path = check_free(path, overwrite)
        self._part = self.path.with_name(f".{self.path.stem}.part.mp4")
        self._size = (max(2, width - width % 2), max(2, height - height % 2))
        self._last = -1
        try:
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = self._container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{self.path}: cannot be written as H.264 ({error})") from error
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._stream.codec_context.time_base = Fraction(1, 90_000)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Add RGB uint8 (h, w, 3), shown from `seconds` on."""
        width, height = self._size
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
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
                self._part.replace(self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"{self.path}: cannot be written ({error})") from error
        finally:
            self._part.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave no file."""
        self._part.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, (KeyboardInterrupt, VideoError)):
            self.close()
        else:
            self.discard()
