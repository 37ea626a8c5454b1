"""Joining parts of a video, and the sound of the original, into one file without encoding the pictures again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import av

from mien.errors import OutputError

__all__ = ["TICKS", "join"]

#: Ticks a second of a part's times: the name of a part is its start in these.
TICKS = 90_000
_PLAIN = ("aac", "mp3", "opus", "alac", "ac3", "eac3", "flac")


def join(parts: Sequence[Path], out: Path, audio: str | PathLike[str] | None, start: float) -> None:
    """One MP4 from parts of one size, each named by its start in ticks.

    audio: a video whose sound is kept, from `start` seconds after its first picture to the end of the parts; copied as it is
    where MP4 can hold it, else as AAC. Raises OutputError.
    """
    try:
        with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as target:
            _write(parts, target, audio, start)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"{out}: cannot be written ({error})") from error


def _write(parts: Sequence[Path], target: Any, audio: str | PathLike[str] | None, start: float) -> None:
    with av.open(str(parts[0])) as first:
        video = target.add_stream_from_template(first.streams.video[0])
    sound = None if audio is None else _sound(audio, target, start)
    waiting = next(sound, None) if sound else None
    for packet in _pictures(parts):
        now = float(packet.pts * packet.time_base)
        while sound and waiting is not None and waiting.pts * waiting.time_base <= now:
            target.mux(waiting)
            waiting = next(sound, None)
        packet.stream = video
        target.mux(packet)


def _pictures(parts: Sequence[Path]) -> Iterator[Any]:
    last = -1
    for part in parts:
        begin = int(part.stem)
        with av.open(str(part)) as source:
            for packet in source.demux(video=0):
                if packet.pts is None:
                    continue
                last = max(last + 1, begin + round(packet.pts * packet.time_base * TICKS))
                packet.time_base = Fraction(1, TICKS)
                packet.pts = packet.dts = last
                yield packet


def _sound(source: str | PathLike[str], target: Any, start: float) -> Iterator[Any] | None:
    """Packets of the sound, timed from 0 at `start`; None if there is none."""
    container = av.open(str(source))
    if not container.streams.audio:
        container.close()
        return None
    track = container.streams.audio[0]
    with av.open(str(source)) as other:
        shown = next((picture.time for picture in other.decode(video=0)), None) or 0.0
    if track.codec_context.name in _PLAIN:
        return _copied(container, track, target.add_stream_from_template(track), shown + start)
    stream = target.add_stream("aac", rate=track.codec_context.sample_rate)
    return _encoded(container, track, stream, shown + start)


def _copied(container: Any, track: Any, stream: Any, shift: float) -> Iterator[Any]:
    with container:
        for packet in container.demux(track):
            if packet.pts is None or packet.pts * packet.time_base < shift - 0.05:
                continue
            packet.pts = max(0, packet.pts - round(shift / packet.time_base))
            packet.dts = packet.pts
            packet.stream = stream
            yield packet


def _encoded(container: Any, track: Any, stream: Any, shift: float) -> Iterator[Any]:
    rate = track.codec_context.sample_rate
    turn = av.AudioResampler(format="fltp", layout=track.codec_context.layout, rate=rate)
    with container:
        for frame in container.decode(track):
            if frame.time is None or frame.time < shift:
                continue
            frame.pts, frame.time_base = round((frame.time - shift) * rate), Fraction(1, rate)
            for part in turn.resample(frame):
                yield from stream.encode(part)
        yield from stream.encode(None)
