"""Every error that mien raises on purpose.

    MienError
      x ConfigError (ValueError)       a recipe, spec or header is malformed
      x ImageError (ValueError)        cannot be read as an image, or is unreasonably large
      x VideoError (ValueError)        cannot be read as a video, or no camera answers
      x ModelError (ValueError)        not a mien model, altered, or newer than this library
        + ModelNotFound (FileNotFoundError)
      x DataError (ValueError)         a manifest or dataset contradicts itself
        + DatasetNotFound (FileNotFoundError)
      x ExportError (RuntimeError)     the written file does not agree with the network
      x TrainingError (RuntimeError)   the loss is not finite, memory ran out
      x OutputError (OSError)          the output exists, the disk is full, the place cannot be written
      x MissingExtra (ImportError)     names the pip line

Each also derives from the built-in in brackets, so that code which knows nothing of mien catches it.
A message says what is wrong, where, and what to do next, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "DatasetNotFound",
    "ExportError",
    "ImageError",
    "MienError",
    "MissingExtra",
    "ModelError",
    "ModelNotFound",
    "OutputError",
    "TrainingError",
    "VideoError",
    "near_miss",
]


class MienError(Exception):
    """The root of the tree: catch this to catch everything that mien raises on purpose."""


class ConfigError(MienError, ValueError):
    """A recipe, spec or header is malformed; the message starts with the dotted address."""


class ImageError(MienError, ValueError):
    """The input cannot be read as an image, or its header claims an unreasonable size."""


class VideoError(MienError, ValueError):
    """The input cannot be read as a video, or no camera answers."""


class ModelError(MienError, ValueError):
    """The file is no mien model, was altered, or was written by a newer mien."""


class ModelNotFound(ModelError, FileNotFoundError):
    """No model of that name is known, or the file is not there."""


class DataError(MienError, ValueError):
    """A manifest or dataset contradicts itself; the message names the file, the row and what was expected."""


class DatasetNotFound(DataError, FileNotFoundError):
    """The dataset is not there; the message says where mien looked and which layout it expects."""


class ExportError(MienError, RuntimeError):
    """The written file does not answer as the network does; nothing was kept."""


class TrainingError(MienError, RuntimeError):
    """Training cannot go on: the loss is not finite, or memory ran out."""


class OutputError(MienError, OSError):
    """The output exists already, the disk is full, or the place cannot be written."""


class MissingExtra(MienError, ImportError):
    """A part of mien needs packages that are not installed; the message names the pip line."""

    @classmethod
    def of(cls, what: str, extra: str) -> MissingExtra:
        """The error for a missing extra.

        >>> print(MissingExtra.of("Training needs PyTorch", "train"))
        Training needs PyTorch. Install it with: pip install 'mien[train]'
        """
        return cls(f"{what}. Install it with: pip install 'mien[{extra}]'")


def near_miss(word: str, known: Iterable[str]) -> str:
    """The tail of an error message about an unknown name: a suggestion, or the whole choice.

    >>> near_miss("lrr", ["name", "lr", "decay"])
    "did you mean 'lr'?"
    >>> near_miss("zebra", ["lr", "decay"])
    'choose from: lr, decay'
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose from: {', '.join(known)}"
