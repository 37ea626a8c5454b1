"""Near copies: the same picture in other pixels, found among thumbnails without comparing all with all.

Two thumbnails are near copies if their hashes (signs of the 63 lowest DCT coefficients) differ in at most 5 bits and they
correlate at 0.98 or more, plain or mirrored. Of chips with a mask, whose black surroundings are all alike, 32x32 thumbnails
are correlated, at 0.97 or more, over the pixels that lie inside both masks, if these are 32 or more.

Hash after C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010; search after M. Norouzi, A. Punjani, D. Fleet, "Fast exact search in Hamming space", arXiv:1307.2982.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

__all__ = ["join_near", "near_pairs", "thumb_side"]

_THUMB = 16
_BITS = 5
_ALIKE = 0.98
#: In chips with a mask: the correlation from which they are copies, the brightest level of the surroundings (compression lifts
#: them a little), and the fewest pixels to compare. Of 4.5 million pairs of different heads (cut by the box, and by landmarks)
#: none passes, of copies as JPEG of quality 30 19 in 20, of copies of half the size two in three.
_ALIKE_MASKED, _BLACK, _LEAST = 0.97, 8, 32


def thumb_side(masked: bool) -> int:
    """The side of a thumbnail: larger where a mask leaves few of its pixels."""
    return 2 * _THUMB if masked else _THUMB


def join_near(thumbs: np.ndarray, plain: np.ndarray, heads: np.ndarray, masked: bool = False) -> np.ndarray:
    """(n,) group heads that hold near copies together too.

    thumbs: (n, s, s) grey, s as thumb_side says.  masked: the pictures are chips with black surroundings.  plain: (n,) rows to compare (pictures that are no blanks).  heads: (n,) the first row with
    identical pixels; only these are compared.
    """
    rows = np.flatnonzero(plain & (heads == np.arange(len(heads))))
    joined = heads.copy()

    def head(row: int) -> int:
        while joined[row] != row:
            joined[row] = joined[joined[row]]
            row = int(joined[row])
        return row

    for a, b in near_pairs(thumbs[rows], masked):
        x, y = sorted((head(int(rows[a])), head(int(rows[b]))))
        joined[y] = x
    return np.array([head(row) for row in range(len(joined))], np.int64)


def near_pairs(thumbs: np.ndarray, masked: bool = False) -> np.ndarray:
    """(m, 2) pairs of thumbnails (see join_near) that are near copies, plain or mirrored."""
    hashes = np.concatenate([_hashes(part) for part in np.array_split(thumbs, len(thumbs) // 4096 + 1)], axis=1)
    count = hashes.shape[1]
    found = [np.empty((0, 2), np.int64)]
    for a, b in _close(hashes.ravel()):
        a, b = np.minimum(a, b), np.maximum(a, b)
        keep = (a < count) & (a != b - count)  # at least one plain; not a picture with its own mirror image
        a, b = a[keep], b[keep]
        other = np.where((b >= count)[:, None, None], thumbs[b % count][..., ::-1], thumbs[b % count])
        alike = _correlation(thumbs[a], other, masked)
        found.append(np.stack([a, b % count], axis=1)[alike >= (_ALIKE_MASKED if masked else _ALIKE)])
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _hashes(thumbs: np.ndarray) -> np.ndarray:
    """(2, n) uint64 hashes of thumbnails, at 16x16: plain, and of the mirror image (odd columns change sign)."""
    k, x = np.arange(8)[:, None], np.arange(_THUMB)[None]
    basis = np.cos(np.pi * k * (2 * x + 1) / (2 * _THUMB)).astype(np.float32)
    times = thumbs.shape[-1] // _THUMB
    small = thumbs.reshape(-1, _THUMB, times, _THUMB, times).mean(axis=(2, 4), dtype=np.float32)
    low = basis @ small @ basis.T
    mirror = np.where(np.arange(8) % 2, -1, 1).astype(np.float32)
    weights = (np.uint64(1) << np.arange(64, dtype=np.uint64)).reshape(8, 8)
    weights[0, 0] = 0  # the mean is brightness, not shape
    return np.stack(
        [np.where(c > 0, weights, np.uint64(0)).sum(axis=(1, 2), dtype=np.uint64) for c in (low, low * mirror)]
    )


def _close(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of positions whose hashes differ in at most _BITS bits, in parts; a pair may come more than once.

    Of _BITS + 1 pieces of two such hashes, one is equal: so rows are sorted by each piece, and only neighbours with an
    equal piece are compared.
    """
    edges = np.linspace(0, 64, _BITS + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        pieces = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(pieces, kind="stable")
        pieces = pieces[order]
        at, step = np.arange(len(order)), 0
        while len(at):
            step += 1
            at = at[at + step < len(order)]
            at = at[pieces[at] == pieces[at + step]]
            a, b = order[at], order[at + step]
            few = _bits(hashes[a] ^ hashes[b]) <= _BITS
            if few.any():
                yield a[few], b[few]


def _bits(words: np.ndarray) -> np.ndarray:
    """(n,) how many bits of each uint64 are set (NumPy 2 has bitwise_count; mien runs on 1.26 too)."""
    one, two, four = (np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F))
    words = words - ((words >> np.uint64(1)) & one)
    words = (words & two) + ((words >> np.uint64(2)) & two)
    words = (words + (words >> np.uint64(4))) & four
    return (words * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _correlation(a: np.ndarray, b: np.ndarray, masked: bool) -> np.ndarray:
    """(n,) Pearson correlation of (n, s, s) thumbnails; masked: over the pixels inside both masks, 0 if they are too few."""
    seen = _inside(a) & _inside(b) if masked else np.ones(a.shape, bool)
    a, b, seen = (part.reshape(len(part), a.shape[1] * a.shape[2]).astype(np.float32) for part in (a, b, seen))
    count = seen.sum(axis=1, keepdims=True)
    a, b = (seen * (part - (part * seen).sum(axis=1, keepdims=True) / np.maximum(count, 1)) for part in (a, b))
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(scale, 1e-9) * (count[:, 0] >= _LEAST))


def _inside(thumbs: np.ndarray) -> np.ndarray:
    """(n, s, s) where neither a pixel nor one of its four neighbours is black: those at the edge are partly surroundings."""
    bright = np.pad(thumbs > _BLACK, ((0, 0), (1, 1), (1, 1)))
    across = bright[:, 1:-1, 2:] & bright[:, 1:-1, :-2]
    return bright[:, 1:-1, 1:-1] & across & bright[:, 2:, 1:-1] & bright[:, :-2, 1:-1]
