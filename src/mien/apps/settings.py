"""What a server allows: sizes, times, how much at once, and who."""

from __future__ import annotations

import os

import msgspec

from mien.errors import ConfigError
from mien.runtime.machine import cores

__all__ = ["Settings", "keys_from_environment"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a server.

    max_bytes: of one request with pictures, or one frame.  max_pixels: of one picture, or a video's frame.
    max_images: in one request.  seconds: that a request may take to arrive, and its work to begin and end; a frame to come; a
    client to take the next part of an answer.
    at_once: requests in work; one more is told to come back.  sockets: open for frames.
    max_video_bytes, max_video_seconds: of a clip.  upload_seconds: that a whole clip may take to arrive.
    jobs: clips that wait or are read (one at a time).  job_seconds: that reading one may take.  keep: seconds that a
    finished job's table can be fetched.
    keys: one of them is asked for if there are any.  hosts: names under which the server may be called; empty for any.
    workers: threads that decode and find faces.
    """

    max_bytes: int = 16_000_000
    max_pixels: int = 40_000_000
    max_images: int = 16
    seconds: float = 20.0
    at_once: int = 32
    sockets: int = 8
    max_video_bytes: int = 512_000_000
    max_video_seconds: float = 7200.0
    upload_seconds: float = 900.0
    jobs: int = 4
    job_seconds: float = 14_400.0
    keep: float = 3600.0
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    workers: int = msgspec.field(default_factory=cores)


def keys_from_environment() -> tuple[str, ...]:
    """The keys in MIEN_API_KEYS, separated by commas. Raises ConfigError for one that is easily guessed."""
    keys = tuple(filter(None, (part.strip() for part in os.environ.get("MIEN_API_KEYS", "").split(","))))
    for number, key in enumerate(keys, 1):
        if len(key) < 16 or not key.isascii():
            raise ConfigError(f"MIEN_API_KEYS: key {number} needs at least 16 characters, all ASCII; make a longer one")
    return keys
