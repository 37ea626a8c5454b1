"""mien reads faces: expression, valence and arousal, from images, video and cameras.

    import mien
    reader = mien.load()
    for face in reader("party.jpg"):
        print(face.expression.label, face.expression.confidence, face.box)

Importing mien costs nothing: the names below are looked up when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.errors import MienError
    from mien.faces import Expression, Face, Frame
    from mien.labels import LabelSet
    from mien.runtime.read import Reader, load

__version__ = "0.1.0"
__all__ = ["Expression", "Face", "Frame", "LabelSet", "MienError", "Reader", "__version__", "load"]

_HOMES = {
    "Expression": "mien.faces",
    "Face": "mien.faces",
    "Frame": "mien.faces",
    "LabelSet": "mien.labels",
    "MienError": "mien.errors",
    "Reader": "mien.runtime.read",
    "load": "mien.runtime.read",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
