"""Decoding past damage: the pictures that can be decoded, and where others are missing."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from os import PathLike
from typing import Any

import av

__all__ = ["Damage", "decoded", "torn"]

#: A hole beside a damaged packet, in frames; places this near to each other, in seconds, are told as one; places told.
_HOLE, _NEAR, _MOST = 5, 1.0, 3

#: Elements of Matroska (RFC 9559) by their numbers: two whose parts are looked at one by one, and all that may stand there.
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_ELEMENTS = frozenset({
    0x1A45DFA3, _SEGMENT, 0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1043A770, 0x1254C367, 0x1941A469,
    0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF,  # parts of a cluster, and of any
})  # fmt: skip


class Damage:
    """Where a video is damaged, as its decoder tells: packets that it refuses, pictures that it had to guess.

    A form that says of a packet that it is damaged (MPEG-TS) is believed where pictures are missing beside it: where parts were
    joined it says so, too. So are the bytes of a Matroska file that are no elements, of which no packet tells. Holes alone tell
    nothing: a frame may be shown for long. One that begins where damage was just seen belongs to it.

    places: found so far, each from when to when, in seconds; more are added to this very list.  matroska: the file, if it is one.
    """

    def __init__(
        self,
        rate: float,
        places: list[tuple[float, float]] | None = None,
        matroska: str | PathLike[str] | None = None,
    ) -> None:
        self._hole = _HOLE / rate
        self._matroska = matroska
        self._torn: list[tuple[int, int]] | None = [] if matroska is None else None
        self._packet: tuple[int, float] | None = None
        self._places = [] if places is None else places
        self._packets: list[float] = []
        self._last: tuple[float, float | None] | None = None
        self._begin: float | None = None
        self._refused = False

    def packet(self, packet: Any) -> None:
        """A packet that is about to be decoded."""
        if packet.pts is None:
            return
        seconds = float(packet.pts * packet.time_base)
        if packet.is_corrupt or self._is_torn(packet.pos, seconds):
            self._packets.append(seconds)

    def _is_torn(self, place: int | None, seconds: float) -> bool:
        """Whether pictures may be missing before this packet, and bytes before it are no elements."""
        before, self._packet = self._packet, None if place is None else (place, seconds)
        if before is None or self._packet is None or self._torn == [] or seconds - before[1] <= self._hole:
            return False
        if self._torn is None and self._matroska is not None:  # only now: the whole file is looked through
            self._torn = torn(self._matroska)
        return any(begin < self._packet[0] and before[0] < end for begin, end in self._torn or ())

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
        elif before is not None and self._holed(before, time):
            self._add(before[0], seconds)

    def _holed(self, last: tuple[float, float | None], time: float | None) -> bool:
        """Whether pictures are missing beside a packet that is said to be damaged, or right after damage."""
        seconds, before = last
        if before is None or time is None or time - before <= self._hole:
            return False
        after = bool(self._places) and 0 <= seconds - self._places[-1][1] <= self._hole
        return after or any(before - 1 <= packet <= time + 1 for packet in self._packets)

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


def torn(path: str | PathLike[str]) -> list[tuple[int, int]]:
    """Where a Matroska file goes on with what is no element, in bytes: parts of it are missing or overwritten between the begin
    of the last element and there. It is looked at again from the next cluster on, as readers do. Empty if it cannot be read.
    """
    found = []
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            last = at = 0
            while 0 <= at < len(data):
                name, inside, size = _element(data[at : at + 12])
                if name not in _ELEMENTS:
                    found.append((last, at))
                    last = at = data.find(_CLUSTER.to_bytes(4), last + 1)
                else:
                    last, at = at, at + inside + (0 if name in (_SEGMENT, _CLUSTER) else size)
    except (OSError, ValueError):
        return []
    return found


def _element(head: bytes) -> tuple[int, int, int]:
    """The number of the element that begins with these bytes, how many of them are its head, and how many bytes it holds."""
    wide = 9 - head[0].bit_length()
    rest = head[wide:]
    if wide > 4 or not rest or not rest[0]:
        return 0, 0, 0
    long = 9 - rest[0].bit_length()
    return int.from_bytes(head[:wide]), wide + long, int.from_bytes(rest[:long]) & ~(1 << 7 * long)
