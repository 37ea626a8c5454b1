"""What pip has installed of what mien needs, and wheels that overwrite each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

import msgspec

__all__ = ["Pair", "Requirement", "bringer", "lost_files", "pairs", "requirements"]

#: A module that several wheels bring, and which of them to keep: the first that is there. Those of OpenCV that open windows
#: need libraries that servers lack, and mien opens none.
_KEEP = {
    "onnxruntime": (
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-directml",
        "onnxruntime-rocm",
        "onnxruntime",
    ),
    "cv2": (
        "opencv-contrib-python-headless",
        "opencv-python-headless",
        "opencv-contrib-python",
        "opencv-python",
    ),
}
_PREFIXES = {"onnxruntime": "onnxruntime", "cv2": "opencv"}


class Pair(msgspec.Struct, frozen=True):
    """Wheels that put their files into one folder.

    wheels: name and version of each.  there: the one whose files lie there, as far as their sizes tell.  mend: the pip line.
    """

    module: str
    wheels: tuple[str, ...]
    there: str
    mend: str


class Requirement(msgspec.Struct, frozen=True):
    """A distribution that mien asks for. extra: '' for those that it always needs.  least, found: versions; found is ''
    where it is not installed."""

    name: str
    extra: str
    least: str
    found: str

    @property
    def met(self) -> bool:
        """Whether it is installed in a version that will do."""
        return bool(self.found) and _numbers(self.found) >= _numbers(self.least)


def pairs(installed: Iterable[Distribution] | None = None) -> list[Pair]:
    """The modules that more than one installed wheel brings."""
    found = _families(installed)
    return [_pair(module, wheels) for module, wheels in found.items() if len(wheels) > 1]


def bringer(module: str, otherwise: str, installed: Iterable[Distribution] | None = None) -> str:
    """The installed wheel that brings a module which several could bring; the other name for all else."""
    wheels = _families(installed).get(module, {})
    return next((name for name in _KEEP.get(module, ()) if name in wheels), next(iter(wheels), otherwise))


def _families(installed: Iterable[Distribution] | None) -> dict[str, dict[str, Distribution]]:
    """Module -> name -> wheel that brings it, for modules that several could bring."""
    found: dict[str, dict[str, Distribution]] = {module: {} for module in _PREFIXES}
    for one in distributions() if installed is None else installed:
        name = _name(one)
        for module, prefix in _PREFIXES.items():
            if name.startswith(prefix) and _brings(one, module):
                found[module].setdefault(name, one)
    return found


def lost_files(name: str) -> int:
    """How many files of an installed distribution are gone; 0 if it is not installed."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return 0
    return sum(not Path(file.locate()).exists() for file in files if file.suffix != ".pyc")


def requirements(lines: Iterable[str] | None = None) -> list[Requirement]:
    """What mien's metadata asks for; its own extras within extras are followed by pip and left out here.

    Raises PackageNotFoundError where mien itself is not installed.
    """
    found = []
    for line in (distribution("mien").requires or []) if lines is None else lines:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([0-9.]+))?", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if match and match[1] != "mien":
            found.append(Requirement(match[1], extra[1] if extra else "", match[2] or "0", _version(match[1])))
    return found


def _version(name: str) -> str:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""


def _name(one: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", one.metadata["Name"] or "").lower()


def _brings(one: Distribution, module: str) -> bool:
    return any(file.parts[:1] == (module,) for file in one.files or [])


def _pair(module: str, wheels: dict[str, Distribution]) -> Pair:
    there = max(wheels, key=lambda name: _share(wheels[name], module))
    keep = next((name for name in _KEEP[module] if name in wheels), there)
    mend = f"pip uninstall -y {' '.join(sorted(wheels))} && pip install --no-deps {keep}=={wheels[keep].version}"
    return Pair(module, tuple(f"{name} {wheels[name].version}" for name in sorted(wheels)), there, mend)


def _share(one: Distribution, module: str) -> float:
    """The share of a wheel's files that lie there with the size that it says."""
    files = [file for file in one.files or [] if file.parts[:1] == (module,) and file.size is not None]
    places = [(Path(file.locate()), file.size) for file in files]
    right = sum(place.exists() and place.stat().st_size == size for place, size in places)
    return right / max(len(places), 1)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
