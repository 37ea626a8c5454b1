"""What the server says beside mien.faces' own forms: health, jobs, problems."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Health", "JobRecord", "Problem"]


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not answered: the HTTP status, and what is wrong, where, and the next move."""

    status_code: int
    detail: str


class Health(msgspec.Struct, frozen=True):
    """That the server is up: its version, its model, and how many requests and clips are in work."""

    status: Literal["ok"]
    version: str
    model: str
    requests: int
    jobs: int


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A clip that is, or was, read.

    total: frames of the clip, as its header says; null if it does not.  frames: read so far.  faces: found so far.
    seconds: of the clip, read so far.  problem: why it failed, or what cut it short.
    """

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"] = "queued"
    frames: int = 0
    total: int | None = None
    faces: int = 0
    seconds: float = 0.0
    problem: str = ""
