"""Video in: the frames of a file, a folder of pictures, an address or a camera, with true seconds."""

from __future__ import annotations

import errno
import math
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.format import Flags
from av.stream import Disposition

from mien.errors import ConfigError, ImageError, VideoError
from mien.faces import Frame
from mien.files import is_there
from mien.vision.cameras import Source, allowed, asked_as, is_address, open_camera, shown
from mien.vision.clock import Clock
from mien.vision.damage import Damage, decoded
from mien.vision.image import SUFFIXES, is_picture, read_image
from mien.vision.writer import VideoWriter

__all__ = ["VideoInfo", "VideoWriter", "frames", "is_address", "is_live", "video_info"]

#: Seconds an address may take to answer, or stay silent.
_SILENCE = 10.0


class VideoInfo(NamedTuple):
    """What a video's header says: pixels, frames and seconds (None where it does not say), frames a second, sound, and how many
    tracks of pictures there are: the first one is read."""

    width: int
    height: int
    frames: int | None
    seconds: float | None
    rate: float
    audio: bool = False
    tracks: int = 1


def _plain(source: Source) -> Source:
    """A camera's number may be one of NumPy's. Raises ConfigError: several, or nothing that names a video."""
    if not isinstance(source, (str, PathLike, Integral)):
        raise ConfigError(
            f"video: expected one file, folder of pictures, address or camera's number, not {type(source).__name__}; of "
            "several, read one after another"
        )
    return int(source) if isinstance(source, Integral) else source


def _open(source: Source) -> Any:
    """The container. Raises VideoError."""
    settings: dict[str, Any] = {}
    place = f"camera {source}" if isinstance(source, int) else str(source)
    if not isinstance(source, int):
        if is_address(source):
            settings = {"timeout": _SILENCE}
            if place.startswith("rtsp"):
                settings["options"] = {"rtsp_transport": "tcp"}
        elif not (is_there(place) and Path(place).is_file()):
            raise VideoError(f"{place}: no such video file, folder of pictures or address")
    try:
        container = open_camera(source) if isinstance(source, int) else av.open(asked_as(place), **settings)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(_unopened(source, error)) from error
    if not _tracks(container):
        words = "has no video stream" + (", only the picture of its cover" if container.streams.video else "")
        container.close()
        raise VideoError(f"{place}: {words}")
    return container


def _tracks(container: Any) -> list[Any]:
    """The tracks of moving pictures, without covers."""
    return [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]


def _unopened(source: Source, error: Exception) -> str:
    words = getattr(error, "strerror", None) or error
    if not isinstance(source, int):
        if not is_address(source) and Path(source).stat().st_size == 0:
            return f"{source}: is empty (0 bytes)"
        return f"{source}: cannot be read as a video ({words})"
    if getattr(error, "errno", None) == errno.EBUSY:
        return f"camera {source}: in use by another program; close it there, or choose another camera"
    return f"camera {source}: does not answer ({words}); is one connected, and not in use{allowed() or '?'}"


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, frame2 before frame10, without hidden ones. Raises VideoError if there are none."""
    found = [path for path in folder.iterdir() if is_picture(path)]
    if not found:
        raise VideoError(f"{folder}: a folder without pictures ({', '.join(sorted(SUFFIXES))}); of videos name one")
    return sorted(found, key=lambda path: [(part.isdecimal(), int(part) if part.isdecimal() else 0, part)
                                           for part in re.split(r"(\d+)", path.name)])  # fmt: skip


def _first_readable(folder: Path, paths: Sequence[Path]) -> np.ndarray:
    """The first picture that can be read. Raises VideoError if none can."""
    problem = ""
    for path in paths:
        try:
            return read_image(path)
        except ImageError as error:
            problem = problem or str(error)
    raise VideoError(f"{folder}: none of {len(paths)} pictures could be read; the first: {problem}")


def video_info(source: Source, rate: float = 25.0) -> VideoInfo:
    """What a video's header says; rate: frames a second of a folder of pictures, whose first one that can be read gives the size.
    Raises VideoError."""
    source = _plain(source)
    if not isinstance(source, int) and Path(source).is_dir():
        paths = _pictures(Path(source))
        height, width = _first_readable(Path(source), paths).shape[:2]
        return VideoInfo(width, height, len(paths), len(paths) / rate, rate)
    with _open(source) as container:
        tracks = _tracks(container)
        stream = tracks[0]
        rate = _rate(stream)
        known = (_own_length(stream), (container.duration or 0) / 1e6)
        seconds = min((length for length in known if length), default=None)
        count = round(seconds * rate) if seconds else stream.frames or None
        return VideoInfo(stream.width, stream.height, count, seconds, rate, bool(container.streams.audio), len(tracks))


def is_live(source: Source, info: VideoInfo | None = None) -> bool:
    """Whether frames come whether or not they are read: from a camera, and from an address without an end.

    info: of the source, if it is known; else an address is opened to see. Raises VideoError.
    """
    source = _plain(source)
    if isinstance(source, int):
        return True
    return is_address(source) and (info or video_info(source)).seconds is None


def _own_length(stream: Any) -> float | None:
    """How long the header says the pictures last, in seconds (Matroska says it in a tag); None: it tells of all streams only."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]) if tag else None


def frames(
    source: Source,
    every: int = 1,
    begin: float = 0.0,
    end: float | None = None,
    rate: float = 25.0,
    patience: float = 30.0,
    tell: Callable[[str], None] | None = None,
    gap: float = 0.0,
    number: int | None = None,
    damaged: list[tuple[float, float]] | None = None,
) -> Iterator[Frame]:
    """The frames of a file, a folder of pictures, an address or a camera (its number), one in memory at a time, upright.

    Seconds come from the presentation times, from 0 at the first frame: variable frame rates stay true. Pictures lie as they
    are meant to be seen: rotation flags are obeyed, and pixels that are not square are made so.
    every: only frames whose number it divides.  gap: of a file, only the first frame of each stretch of so many seconds (a
    quarter of a frame early counts: many forms round times); the others are decoded, but not turned into pictures.  begin, end: seconds, end left out; a file is not decoded before `begin`, and
    frames keep their numbers.  number: of a file's first frame from `begin` on, if it is known; a damaged file's is not that of
    its packets.  damaged: places of a file where an earlier reading found it damaged, from when to when, in seconds: told with
    those of this one, which are added as they are found.  rate: frames a second of a folder of pictures.
    patience: for addresses: seconds to try again after the stream died; `tell` hears of it. A frame's time then goes on by
    the clock.
    Raises ConfigError: an `every` below 1 or no whole number, a `begin`, `end`, `rate`, `patience` or `gap` that is none, several sources. With the first frame VideoError: not
    a video; and, after the frames that could be decoded, a video that is damaged somewhere or cut off, a stream that did not come back.
    """
    if not isinstance(every, Integral) or every < 1:
        raise ConfigError(f"every: {every!r}: each Nth frame is read; give a whole number from 1 on")
    for name, seconds in (("begin", begin), ("end", math.inf if end is None else end), ("patience", patience)):
        if not isinstance(seconds, Real) or math.isnan(seconds):
            raise ConfigError(f"{name}: {seconds!r}: give seconds, such as 90.0 for 1:30")
    if not 0 < rate < math.inf:
        raise ConfigError(f"rate: {rate!r}: give frames a second, above 0")
    if not 0 <= gap < math.inf:
        raise ConfigError(f"gap: {gap!r}: give seconds, or 0 for every frame")
    return _frames(_plain(source), every, begin, end, rate, patience, tell, gap, number, damaged)


def _frames(
    source: Source,
    every: int,
    begin: float,
    end: float | None,
    rate: float,
    patience: float,
    tell: Callable[[str], None] | None,
    gap: float,
    number: int | None,
    damaged: list[tuple[float, float]] | None,
) -> Iterator[Frame]:
    if isinstance(source, int):
        yield from _within(_camera(source, every), begin, end)
    elif is_address(source):
        yield from _within(_address(str(source), every, patience, tell), begin, end)
    elif Path(source).is_dir():
        yield from _within(_folder(Path(source), every, rate, begin), begin, end)
    else:
        yield from _file(source, every, begin, end, gap, number, damaged)


def _within(moving: Iterator[Frame], begin: float, end: float | None) -> Iterator[Frame]:
    for frame in moving:
        if end is not None and frame.seconds >= end:
            return
        if frame.seconds >= begin:
            yield frame


def _file(
    source: str | PathLike[str],
    every: int,
    begin: float,
    end: float | None,
    gap: float,
    number: int | None,
    damaged: list[tuple[float, float]] | None,
) -> Iterator[Frame]:
    index, given, stretch, came, reached = -1, 0, -1, _Came(), False
    info = video_info(source)
    early = min(gap, 1 / info.rate) / 4
    with _open(source) as container:
        damage = Damage(info.rate, damaged, source if "matroska" in container.format.name else None)
        stream = _tracks(container)[0]
        stream.thread_type = "AUTO"
        for index, seconds, picture in _decoded(container, stream, source, begin, number, damage):
            came.see(seconds, picture)
            damage.frame(seconds, picture)
            reached = end is not None and seconds >= end
            if reached:
                break
            given += 1
            now = int((seconds + early) / gap) if gap else stretch + 1
            if index % every == 0 and now > stretch:
                stretch = now
                yield Frame(_upright(picture, stream), index, seconds)
        if index < 0:
            where = f"from {begin:g} s on" if begin else "at all"
            where += f"; it lasts {info.seconds:.1f} s" if info.seconds and info.seconds <= begin else ""
            raise VideoError(f"{source}: no frame could be decoded {where}")
        if not given:
            raise VideoError(f"{source}: no frame between {begin:g} and {end:g} s")
        promised, told = _promised(container, stream, info), ""
        if promised and _missing(source, stream, min(promised, end or promised), came, info.rate):
            told = f"cut off: {index + 1} frames ({came.end:.2f} of {promised:.2f} s) could be decoded"
        if problems := "; ".join(filter(None, (damage.told(not (told or reached)), told))):
            raise VideoError(f"{source}: {problems}")


class _Came:
    """How far the frames of a file came: seconds of the last one, when it ends, and the longest time between two."""

    def __init__(self) -> None:
        self.seconds = self.end = self.longest = 0.0
        self._first = True

    def see(self, seconds: float, picture: Any) -> None:
        """One more frame."""
        self.longest = 0.0 if self._first else max(self.longest, seconds - self.seconds)
        self._first = False
        self.seconds, self.end = seconds, seconds + float((picture.duration or 0) * picture.time_base)


def _promised(container: Any, stream: Any, info: VideoInfo) -> float | None:
    """Seconds that the header says the pictures last; None where it does not, so that nobody knows what is missing.

    Not the number of frames: an edit list may hide some, as trimming without encoding does. AVI has none, and its seconds
    are those of what is there. Matroska and FLV say when the pictures end, from the file's 0, though they may begin later.
    """
    form = container.format.name.split(",")[0]
    if form == "avi":
        return stream.frames / info.rate
    late = float((stream.start_time or 0) * stream.time_base) if form in ("matroska", "flv") else 0.0
    return info.seconds - late if info.seconds and form in ("mov", "matroska", "flv") else None


def _missing(source: Any, stream: Any, promised: float, came: _Came, rate: float) -> bool:
    """Whether more than two frames are missing at the end, and no sound goes on longer than the pictures."""
    enough = promised - 2 * max(came.longest, 1 / rate) - 1e-3
    if came.end >= enough:
        return False
    if _own_length(stream):
        return True
    with _open(source) as other:
        ends = [float((packet.pts + (packet.duration or 0)) * packet.time_base)
                for packet in other.demux() if packet.pts is not None]  # fmt: skip
    return max(ends, default=0.0) < enough


def _decoded(
    container: Any, stream: Any, source: Any, begin: float, number: int | None, damage: Damage
) -> Iterator[tuple[int, float, Any]]:
    """(number, seconds, picture) of every frame from `begin` on; number: of the first one, if it is known."""
    first, known = None, None
    if begin > 0 and not _unordered(container, stream):
        first, known = _sought(container, stream, source, begin)
    told, clock, index = _times(container, stream), Clock(_rate(stream), first), -1
    for count, picture in enumerate(decoded(container, stream, damage)):
        now = told(picture)
        seconds = clock(now)
        if seconds < begin - 1e-6:
            continue
        if index >= 0:
            index += 1
        elif number is not None:
            index = number
        else:
            index = count if known is None or now is None else bisect_left(known, now - 1e-6)
        yield index, seconds, picture


def _rate(stream: Any) -> float:
    """Frames a second."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def _unordered(container: Any, stream: Any) -> bool:
    """Whether only the order of decoding has times: AVI knows no other, and a codec may show its pictures in another order."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _times(container: Any, stream: Any) -> Callable[[Any], float | None]:
    """What gives a decoded picture's time, in seconds of the file; None where it says none."""
    if not _unordered(container, stream):
        return lambda picture: picture.time
    return lambda picture: None if picture.dts is None else float(picture.dts * picture.time_base)


def _sought(container: Any, stream: Any, source: Any, begin: float) -> tuple[float | None, list[float] | None]:
    """Go to the last key frame before `begin`: the container's time of its first frame, and the times of all frames, read from
    the packets without decoding, so that a frame's number is known. (None, None) where a form cannot be searched, or its times
    go back: then it is decoded from its start."""
    with _open(source) as other:
        track = _tracks(other)[0]
        first = next((picture.time for picture in decoded(other, track, Damage(1.0))), None)
    known = _known(source)
    if first is None or not known:
        return None, None
    known = known[bisect_left(known, first - 1e-6) :]
    try:
        container.seek(int((first + begin) / stream.time_base), stream=stream, backward=True)
        start = next((picture.time for picture in decoded(container, stream, Damage(1.0))), None)
        if start is not None and start <= first + begin:
            container.seek(int((first + begin) / stream.time_base), stream=stream, backward=True)
            return first, known
        container.seek(0, stream=stream, backward=True)
    except av.error.FFmpegError:
        container.seek(0, stream=stream, backward=True)
    return first, known


def _known(source: Any) -> list[float]:
    """The times of all frames that are shown, in order, from the packets; none if they go back or are given twice."""
    with _open(source) as other:
        track = _tracks(other)[0]
        packets = [(packet.pts, packet.dts) for packet in other.demux(track) if not packet.is_discard]
        base = track.time_base
    orders = [dts for _, dts in packets if dts is not None]
    shown = sorted(pts for pts, _ in packets if pts is not None)
    if any(b < a for a, b in pairwise(orders)) or any(a == b for a, b in pairwise(shown)):
        return []
    return [float(pts * base) for pts in shown]


def _folder(folder: Path, every: int, rate: float, begin: float) -> Iterator[Frame]:
    paths, bad = _pictures(folder), []
    for index, path in enumerate(paths):
        if index % every or index / rate < begin:
            continue
        try:
            image = read_image(path)
        except ImageError as error:
            bad.append(str(error))
            continue
        yield Frame(image, index, index / rate)
    if bad:
        raise VideoError(f"{folder}: {len(bad)} of {len(paths)} pictures could not be read; the first: {bad[0]}")


def _camera(number: int, every: int) -> Iterator[Frame]:
    count, seconds = 0, 0.0
    with _open(number) as container:
        try:
            stream = _tracks(container)[0]
            clock = Clock(_rate(stream))
            for picture in shown(container, stream, _SILENCE):
                seconds = clock(picture.time if picture.time is not None else time.monotonic())
                if count % every == 0:
                    yield Frame(_upright(picture, stream), count, seconds)
                count += 1
        except av.error.FFmpegError as error:
            raise VideoError(f"camera {number}: gone after {count} frames ({seconds:.2f} s): {error}") from error
    if not count:
        raise VideoError(f"camera {number}: gave no frame")


def _address(place: str, every: int, patience: float, tell: Callable[[str], None] | None) -> Iterator[Frame]:
    """The frames of an address. A stream without an end is opened again when it dies; a film of known length is read on from
    where it broke."""
    line = _Line()
    lost: float | None = None
    while True:
        try:
            with _open(place) as container:
                for frame in line.frames(container, every):
                    lost = None
                    yield frame
            if line.finished:
                return
            problem = "ended"
        except (VideoError, av.error.FFmpegError, OSError) as error:
            if line.count == 0 and isinstance(error, VideoError):
                raise
            problem = str(error)
        lost = time.monotonic() if lost is None else lost
        waited = time.monotonic() - lost
        if waited >= patience or line.count == 0:
            raise VideoError(
                f"{place}: the stream died after {line.count} frames ({line.seconds:.1f} s) and did not come back within "
                f"{patience:g} s ({problem})"
            )
        if tell is not None and waited < 0.01:
            tell(f"{place}: the stream died at {line.seconds:.1f} s ({problem}); trying again for {patience:g} s")
        time.sleep(min(0.25 + waited / 2, 2.0, max(patience - waited, 0.01)))


class _Line:
    """What is known of an address across its connections: frames and seconds so far."""

    def __init__(self) -> None:
        self.count, self.seconds, self.finished = 0, 0.0, False
        self._start: float | None = None

    def frames(self, container: Any, every: int) -> Iterator[Frame]:
        """The frames of one connection; those seen before are left out."""
        stream = _tracks(container)[0]
        length = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6
        again, clock, told = self.count > 0, None, _times(container, stream)
        seen, timed = self.seconds if again else -1.0, False
        invented = not length and bool(
            container.format.flags & Flags.no_timestamps.value
        )  # Motion-JPEG over HTTP: 25 a second
        for picture in container.decode(stream):
            now = time.monotonic()
            self._start = now if self._start is None else self._start
            shown = None if invented else told(picture)
            timed = timed or shown is not None
            shown = shown if timed else now - self._start
            if clock is None:
                begun = 0.0 if length or not again else max(now - self._start, self.seconds + 1e-3)
                clock = Clock(_rate(stream), (shown or 0.0) - begun)
            seconds = clock(shown)
            if seconds <= seen:
                continue
            self.seconds = seconds
            if self.count % every == 0:
                yield Frame(_upright(picture, stream), self.count, self.seconds)
            self.count += 1
        self.finished = bool(length) and self.count > 0 and self.seconds >= float(length) - 1.0


def _upright(picture: Any, stream: Any) -> np.ndarray:
    """RGB uint8 (h, w, 3), turned as its flag says, with square pixels."""
    image = picture.to_ndarray(format="rgb24", **_square(picture, stream.sample_aspect_ratio))
    turns = round((getattr(picture, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _square(picture: Any, shape: Any) -> dict[str, int]:
    """The width at which pixels of this shape (width by height) are square, where they are not."""
    if not shape or shape == 1 or not 0.2 < shape < 5:
        return {}
    return {"width": max(1, round(picture.width * float(shape)))}
