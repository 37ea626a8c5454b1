"""Splitting a manifest so that no picture stands on both sides."""

from __future__ import annotations

import hashlib

import numpy as np

from mien.data.manifest import Manifest
from mien.errors import DataError

__all__ = ["hold_out"]


def hold_out(manifest: Manifest, share: float, seed: int) -> tuple[Manifest, Manifest]:
    """(rest, held out): about `share` of the rows, chosen by `seed` and the pictures alone.

    Rows with identical pictures, or of one subject, stay on one side. The choice depends on each picture's
    bytes and not on the order of rows. Raises DataError if a side would be empty.
    """
    keys = [_key(sample.subject, sample.image, seed) for sample in manifest]
    held = np.array([key < share for key in keys], bool)
    if not held.any() or held.all():
        raise DataError(f"{manifest.header.source}: {len(manifest)} rows are too few to hold out {share:.1%} of them")
    return manifest.take(np.flatnonzero(~held)), manifest.take(np.flatnonzero(held))


def _key(subject: str | None, image: object, seed: int) -> float:
    """A number in [0, 1) that is the same for the same subject, or else the same picture."""
    what = subject.encode() if subject else image if isinstance(image, bytes) else str(image).encode()
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "big") + what).digest()[:7], "big") / 2**56
