"""The annotated copy of a video: H.264 in MP4, with the sound of the original, in parts that survive a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from mien.errors import ConfigError, OutputError, VideoError
from mien.faces import Box, Face, Frame
from mien.files import beside, check_free, whole_file
from mien.runtime.times import Times
from mien.vision.draw import blur, draw

if TYPE_CHECKING:  # PyAV takes its time: pictures and tables do not need it
    from mien.vision.writer import VideoWriter

__all__ = ["VideoSink", "folder_of", "parts_of"]

#: Ticks a second of the times of a part: its name is its start in these.
_TICKS = 90_000


def parts_of(path: Path, start: float | None = None, seconds: float = 0.0) -> list[Path]:
    """The parts of a video that is being saved, in order.  start, seconds: those alone that begin by `seconds` of a source
    whose first frame was at `start`."""
    parts = sorted(folder_of(path).glob("[0-9]*.mp4"))
    return [part for part in parts if start is None or int(part.stem) <= round((seconds - start) * _TICKS)]


def folder_of(path: Path) -> Path:
    return beside(path, ".parts")


class VideoSink:
    """An annotated H.264 video that begins with the first frame it is given, and has its size. A Sink.

    It is written in parts, in a folder beside it; at the end, at Ctrl-C and when the source breaks they become the video; any
    other error leaves nothing. Sound that cannot be kept is left out; `silent` then says why.
    audio: the video whose sound to keep.  times: where the time of drawing is added as a stage.
    blurred: make every face that is given unrecognisable, and the boxes of `hidden(seconds)`, where others are: those left out
    and those not found now, which a mien.runtime.watch.Memory knows.
    kept: begin where an earlier writing was stopped, at this time of the first frame.
    resumable: keep the parts, to be gone on with, until `forget`.  lasting: keep them where the video cannot be written.  end: the source's time at which the sound ends at the latest.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        rate: float,
        overwrite: bool = False,
        times: Times | None = None,
        audio: str | PathLike[str] | None = None,
        blurred: bool = False,
        hidden: Callable[[float], list[Box]] | None = None,
        kept: float | None = None,
        resumable: bool = False,
        end: float | None = None,
        lasting: bool = False,
    ) -> None:
        self.path, self._rate, self._overwrite = check_free(path, overwrite), rate, overwrite
        self._times, self._audio = times or Times(), audio
        self._blurred, self._others = blurred, hidden
        self.start, self._resumable, self._end, self._lasting = kept, resumable, end, lasting
        if self.path.suffix.lower() != ".mp4":
            raise ConfigError(f"{path}: the video is H.264 in MP4; use a name that ends in .mp4")
        self.folder = folder_of(self.path)
        self._writer: VideoWriter | None = None
        self._begin = 0.0
        self._size: tuple[int, int] | None = None
        self.silent: str | None = None
        self._problem: OutputError | None = None

    def __enter__(self) -> VideoSink:
        try:
            if self.start is None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        return self

    def write(self, frame: Frame, faces: Sequence[Face]) -> None:
        """See Sink."""
        self.start = frame.seconds if self.start is None else self.start
        with self._times.stage("draw"):
            drawn = draw(self._hidden(frame, faces), faces)
        if self._writer is None:
            from mien.vision.writer import VideoWriter

            self._begin = frame.seconds
            name = f"{round((frame.seconds - self.start) * _TICKS):014d}.mp4"
            self._size = self._size or self._first_size() or (frame.image.shape[1], frame.image.shape[0])
            width, height = self._size
            with self._named():
                self._writer = VideoWriter(self.folder / name, width, height, self._rate, overwrite=True)
        with self._times.stage("encode"), self._named():
            self._writer.write(drawn, frame.seconds - self._begin)

    def _first_size(self) -> tuple[int, int] | None:
        """Width and height of the parts that an earlier writing left."""
        from mien.vision.video import video_info

        part = next(iter(parts_of(self.path)), None)
        return None if part is None else video_info(part)[:2]

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An error of a part names the video, not the part."""
        try:
            yield
        except OutputError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.__cause__ or error})") from error

    def _hidden(self, frame: Frame, faces: Sequence[Face]) -> np.ndarray:
        if not self._blurred:
            return frame.image
        others = self._others(frame.seconds) if self._others else []
        return blur(frame.image, [*(face.box for face in faces), *others])

    def checkpoint(self) -> float | None:
        """Everything so far is safely on the disk; the time of the first frame. Raises OutputError, then ever after."""
        if self._problem is not None:
            raise self._problem
        if self._writer is not None:
            try:
                with self._named():
                    self._writer.close()
            except OutputError as problem:
                self._problem = problem
                raise
            self._writer = None
        return self.start

    def after(self, seconds: float) -> None:
        """Forget the parts that begin after this time: they were not finished."""
        kept = [] if self.start is None else parts_of(self.path, self.start, seconds)
        for part in parts_of(self.path):
            if part not in kept:
                part.unlink()

    def forget(self) -> None:
        """Nothing is gone on with: the parts are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        broken = isinstance(error, OutputError)
        try:
            if kind is None or issubclass(kind, (KeyboardInterrupt, VideoError)):
                self._finish()
            elif self._writer is not None:
                self._writer.discard()
        except OutputError:
            broken = True
            raise
        finally:
            if not self._resumable and not (broken and self._lasting):
                self.forget()

    def _finish(self) -> None:
        from mien.vision.join import join

        self.checkpoint()
        parts = parts_of(self.path)
        if parts:
            with self._named(), whole_file(self.path, self._overwrite) as aside:
                self.silent = join(parts, aside, self._audio, self.start or 0.0, self._end)
