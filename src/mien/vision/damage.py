"""Decoding past damage: the pictures that can be decoded, and where others are missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

__all__ = ["Damage", "decoded"]

#: A hole beside a damaged packet, in frames; places this near to each other, in seconds, are told as one; places told.
_HOLE, _NEAR, _MOST = 5, 1.0, 3


class Damage:
    """Where a video is damaged, as its decoder tells: packets that it refuses, pictures that it had to guess.

    A form that says of a packet that it is damaged (MPEG-TS) is believed where pictures are missing beside it: where parts were
    joined it says so, too. Holes alone tell nothing: a frame may be shown for long.

    places: found so far, each from when to when, in seconds; more are added to this very list.
    """

    def __init__(self, rate: float, places: list[tuple[float, float]] | None = None) -> None:
        self._hole = _HOLE / rate
        self._places = [] if places is None else places
        self._packets: list[float] = []
        self._last: tuple[float, float | None] | None = None
        self._begin: float | None = None
        self._refused = False

    def packet(self, packet: Any) -> None:
        """A packet that is about to be decoded."""
        if packet.is_corrupt and packet.pts is not None:
            self._packets.append(float(packet.pts * packet.time_base))

    def refused(self) -> None:
        """The decoder, or the reader of packets, reported an error."""
        self._refused = True

    def frame(self, seconds: float, picture: Any) -> None:
        """A frame that was decoded, at these seconds."""
        before, time = self._last, picture.time
        self._last = (seconds, time)
        if self._refused or (picture.is_corrupt and before is not None):
            self._refused = False
            if self._begin is None:
                self._begin = seconds if before is None else before[0]
            return
        if self._begin is not None:
            self._add(self._begin, seconds)
            self._begin = None
        elif before is not None and self._holed(before[1], time):
            self._add(before[0], seconds)

    def _holed(self, before: float | None, time: float | None) -> bool:
        """Whether pictures are missing beside a packet that is said to be damaged."""
        if before is None or time is None or time - before <= self._hole:
            return False
        return any(before - 1 <= packet <= time + 1 for packet in self._packets)

    def _add(self, begin: float, end: float) -> None:
        near = bool(self._places) and begin - self._places[-1][1] <= _NEAR
        place = (self._places[-1][0] if near else begin, end)
        self._places[len(self._places) - near :] = [place]  # at once: another thread may read them

    def told(self, at_end: bool) -> str:
        """Where, in words; empty if nowhere. at_end: damage behind the last frame counts."""
        last = 0.0 if self._last is None else self._last[0]
        open_at = self._begin if self._begin is not None else last if self._refused else None
        places = [f"between {begin:.2f} and {end:.2f} s" for begin, end in self._places]
        places += [f"from {open_at:.2f} s on"] if at_end and open_at is not None else []
        if not places:
            return ""
        more = f" and in {len(places) - _MOST} more places" if len(places) > _MOST else ""
        return f"damaged {', '.join(places[:_MOST])}{more}; the rest was read"


def decoded(container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    """The pictures of a stream in the order in which they are shown; what cannot be decoded is left out, and told to `damage`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            damage.refused()
            packet = None
        if packet is None or (not packet.size and packet.pts is None):
            break
        if packet.size:
            damage.packet(packet)
            yield from _pictures(packet, damage)
    last = av.Packet()
    last.stream, last.time_base = stream, stream.time_base
    yield from _pictures(last, damage)


def _pictures(packet: Any, damage: Damage) -> list[Any]:
    """What comes out of the decoder when it is given this packet; an empty one asks for all that is left."""
    try:
        return list(packet.decode())
    except av.error.FFmpegError:
        damage.refused()
        return []
