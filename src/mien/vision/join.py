"""Joining parts of a video, and the sound of the original, into one file without encoding the pictures again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import av

from mien.errors import OutputError
from mien.vision.cameras import asked_as
from mien.vision.clock import Clock

__all__ = ["TICKS", "join"]

#: Ticks a second of a part's times: the name of a part is its start in these.
TICKS = 90_000
_PLAIN = ("aac", "mp3", "opus", "alac", "ac3", "eac3", "flac")


class _SoundError(Exception):
    """The sound cannot be read, or MP4 cannot hold it."""


def join(
    parts: Sequence[Path], out: Path, audio: str | PathLike[str] | None, start: float, end: float | None = None
) -> str | None:
    """One MP4 from parts of one size, each named by its start in ticks; why it has no sound, if that could not be kept.

    audio: a video whose sound is kept, from `start` seconds after its first picture until the last picture of the parts has
    been shown for as long as the one before it, or to `end`; copied as it is where MP4 can hold it, else as AAC. Raises OutputError.
    """
    try:
        try:
            _write_file(parts, out, audio, start, end)
        except _SoundError as error:
            _write_file(parts, out, None, start, end)
            return str(error)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"{out}: cannot be written ({error})") from error
    return None


def _write_file(
    parts: Sequence[Path], out: Path, audio: str | PathLike[str] | None, start: float, end: float | None
) -> None:
    with av.open(asked_as(out), "w", format="mp4", options={"movflags": "+faststart"}) as target:
        _write(parts, target, audio, start, end)


@contextmanager
def _about_sound() -> Iterator[None]:
    """What goes wrong within is the sound's: the pictures may still be kept without it."""
    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        raise _SoundError(str(error)) from error


def _write(
    parts: Sequence[Path], target: Any, audio: str | PathLike[str] | None, start: float, end: float | None
) -> None:
    with av.open(asked_as(parts[0])) as first:
        video = target.add_stream_from_template(first.streams.video[0])
    sound, waiting, now, step = None, None, 0.0, 0.0
    if audio is not None:
        with _about_sound():
            sound = _sound(audio, target, start)
            waiting = next(sound, None) if sound else None

    def sounds(until: float) -> None:
        nonlocal waiting
        while sound and waiting is not None and waiting.pts * waiting.time_base <= until:
            with _about_sound():
                target.mux(waiting)
                waiting = next(sound, None)

    for packet in _pictures(parts):
        before, now = now, float(packet.pts * packet.time_base)
        step = now - before
        sounds(now)
        packet.stream = video
        target.mux(packet)
    last = now + step
    sounds(last if end is None else min(last, max(now, end - start)))


def _pictures(parts: Sequence[Path]) -> Iterator[Any]:
    last = -1
    for part in parts:
        begin = int(part.stem)
        with av.open(asked_as(part)) as source:
            for packet in source.demux(video=0):
                if packet.pts is None:
                    continue
                last = max(last + 1, begin + round(packet.pts * packet.time_base * TICKS))
                packet.time_base = Fraction(1, TICKS)
                packet.pts = packet.dts = last
                yield packet


def _sound(source: str | PathLike[str], target: Any, start: float) -> Iterator[Any] | None:
    """Packets of the sound, timed from 0 at `start`; None if there is none."""
    container = av.open(asked_as(source))
    if not container.streams.audio:
        container.close()
        return None
    track = container.streams.audio[0]
    if track.codec_context is None:
        raise ValueError("its codec is unknown to this FFmpeg")
    with av.open(asked_as(source)) as other:
        shown = next((picture.time for picture in other.decode(video=0)), None) or 0.0
    rate = track.codec_context.sample_rate or 48_000
    clock = Clock(rate / (track.codec_context.frame_size or 1024), shown + start)
    if track.codec_context.name in _PLAIN:
        return _copied(container, track, target.add_stream_from_template(track), clock)
    stream = target.add_stream("aac", rate=_allowed(rate))
    return _encoded(container, track, stream, clock)


def _allowed(rate: int) -> int:
    """The least sampling rate that AAC knows and that loses nothing; the highest if there is none."""
    rates = sorted(av.Codec("aac", "w").audio_rates)
    return next((known for known in rates if known >= rate), rates[-1])


def _copied(container: Any, track: Any, stream: Any, clock: Clock) -> Iterator[Any]:
    last = -1
    with container:
        for packet in container.demux(track):
            seconds = -1.0 if packet.pts is None else clock(float(packet.pts * packet.time_base))
            if seconds < -0.05:
                continue
            last = max(last + 1, round(seconds / packet.time_base))
            packet.pts = packet.dts = last
            packet.stream = stream
            yield packet


def _encoded(container: Any, track: Any, stream: Any, clock: Clock) -> Iterator[Any]:
    rate = track.codec_context.sample_rate
    turn = av.AudioResampler(format="fltp", layout=track.codec_context.layout, rate=stream.codec_context.sample_rate)
    with container:
        for frame in container.decode(track):
            seconds = -1.0 if frame.time is None else clock(frame.time)
            if seconds < 0:
                continue
            frame.pts, frame.time_base = round(seconds * rate), Fraction(1, rate)
            for part in turn.resample(frame):
                yield from stream.encode(part)
        for part in turn.resample(None):
            yield from stream.encode(part)
        yield from stream.encode(None)
