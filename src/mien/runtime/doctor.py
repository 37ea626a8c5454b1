"""What this machine has for mien, what is wrong, and how to mend it. It opens no camera and fetches nothing."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import msgspec

import mien
from mien.errors import MienError
from mien.runtime import store
from mien.runtime.choice import Choice
from mien.runtime.engines import Engine, available, choose
from mien.runtime.machine import Machine, cores, quota, this_machine
from mien.runtime.wheels import Requirement, bringer, lost_files, pairs, requirements
from mien.vision.cameras import cameras

__all__ = ["Cache", "Examination", "Finding", "Known", "examine"]

#: A module that mien cannot do without, a name that it must have, and the distribution that brings it.
_CORE = {
    "numpy": ("ndarray", "numpy"),
    "cv2": ("warpAffine", "opencv-python-headless"),
    "PIL.Image": ("open", "Pillow"),
    "onnxruntime": ("InferenceSession", "onnxruntime"),
    "av": ("open", "av"),
    "yaml": ("safe_load", "PyYAML"),
}
_AGAIN = "pip install --force-reinstall --no-deps mien"
_VARIABLES = ("MIEN_OFFLINE", "MIEN_CACHE", "MIEN_YUNET")


class Finding(msgspec.Struct, frozen=True):
    """Something that a person should know. broken: mien or a part of it does not work, or will not after the next
    installation.  mend: what to do."""

    broken: bool
    says: str
    mend: str = ""


class Cache(msgspec.Struct, frozen=True):
    """The folder of fetched files. size: bytes in it."""

    folder: str
    there: bool
    size: int


class Known(msgspec.Struct, frozen=True):
    """A model known by name. place: its file, empty if it is not here.  size: bytes."""

    name: str
    kind: str
    place: str
    size: int


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. executable: of Python.  cameras: number -> name.  engines: None and choice: None where ONNX Runtime itself does not load."""

    mien: str
    place: str
    executable: str
    machine: Machine
    variables: dict[str, str]
    packages: list[Requirement]
    engines: list[Engine] | None
    choice: Choice | None
    cameras: dict[int, str]
    cache: Cache
    models: list[Known]
    page: bool
    findings: list[Finding]

    @property
    def broken(self) -> bool:
        """Whether any finding says so."""
        return any(finding.broken for finding in self.findings)


def examine() -> Examination:
    """Look at everything; about a second, more where OpenVINO is installed."""
    modules = _modules()
    packages, short = _packages()
    models, wrong = _models()
    engines, choice = (None, None) if modules else (available(), choose())
    findings = _wheels() + modules + short + wrong + ([] if modules or wrong else _trial())
    findings += _idle(choice) + _limits()
    return Examination(
        mien=mien.__version__,
        place=str(Path(mien.__file__).parent),
        executable=sys.executable,
        machine=this_machine(),
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        packages=packages,
        engines=engines,
        choice=choice,
        cameras=cameras(),
        cache=_cache(),
        models=models,
        page=(Path(mien.__file__).parent / "apps" / "web" / "vendor" / "ort.wasm.bundle.min.mjs").is_file(),
        findings=findings,
    )


def _wheels() -> list[Finding]:
    """Wheels that overwrite each other."""
    return [
        Finding(
            True,
            f"{' and '.join(pair.wheels)} overwrite each other; the files there are those of {pair.there}",
            pair.mend,
        )
        for pair in pairs()
    ]


def _modules() -> list[Finding]:
    """Modules that do not load, and wheels that lost files."""
    found = []
    for module, (name, usual) in _CORE.items():
        problem, brought = _loads(module, name), bringer(module, usual)
        lost = 0 if problem else lost_files(brought)
        if problem or lost:
            says = problem or f"{lost} of the files of {brought} are gone"
            found.append(Finding(True, f"{module}: {says}", f"pip install --force-reinstall --no-deps {brought}"))
    return found


def _loads(module: str, name: str) -> str:
    """What is wrong with a module; empty if nothing is."""
    try:
        there = hasattr(importlib.import_module(module), name)
    except (ImportError, OSError, AttributeError, SystemError, RuntimeError) as error:
        return f"does not load ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
    return "" if there else f"loads but has no {name}: a part of it was removed"


def _packages() -> tuple[list[Requirement], list[Finding]]:
    try:
        packages = requirements()
    except PackageNotFoundError:
        return [], [Finding(False, "mien runs from its source and is not installed: versions cannot be compared")]
    short = [one for one in packages if one.found and not one.met]
    return packages, [
        Finding(not one.extra, f"{one.name} {one.found}: mien{f'[{one.extra}]' if one.extra else ''} needs {one.least} or later",
                f"pip install -U {one.name}")
        for one in short
    ]  # fmt: skip


def _models() -> tuple[list[Known], list[Finding]]:
    models, findings = [], []
    for entry in store.ENTRIES.values():
        place = None
        try:
            place = store.locate(entry)
        except MienError as error:
            findings.append(Finding(True, str(error)))
        if place is None and not entry.urls:
            findings.append(Finding(True, f"{entry.name}: {entry.file} is missing", _AGAIN))
        models.append(Known(entry.name, entry.kind, str(place or ""), place.stat().st_size if place else 0))
    return models, findings


def _trial() -> list[Finding]:
    """Reads an empty picture with every model inside."""
    found = []
    for entry in store.ENTRIES.values():
        if not entry.urls:
            try:
                problem = _TRIALS[entry.kind](entry.name)
            except MienError as error:
                problem = str(error)
            if problem:
                found.append(Finding(True, f"{entry.name}: {problem}", _AGAIN))
    return found


def _classify(name: str) -> str:
    """What is wrong with an expression model; empty if nothing is."""
    import numpy as np

    from mien.runtime.sessions import OnnxSession

    session = OnnxSession(store.model_file(name), 1)
    crop = session.spec.crop
    probabilities, _ = session.run(np.zeros((1, 3, crop.height, crop.width), np.float32))
    return "" if abs(float(probabilities.sum()) - 1) < 1e-3 else "its probabilities do not add up to 1"


def _detect(name: str) -> str:
    """What is wrong with a detector; empty if nothing is."""
    import numpy as np

    from mien.runtime.detect import GridDetector, detector_path

    path = detector_path(name)
    faces = [] if path is None else GridDetector(path, 1)(np.zeros((64, 64, 3), np.uint8))
    return "it sees a face in an empty picture" if faces else ""


_TRIALS: dict[str, Callable[[str], str]] = {"expression": _classify, "detector": _detect}


def _idle(choice: Choice | None) -> list[Finding]:
    """A card that does nothing."""
    if choice is None or choice.device != "cpu" or not Path("/dev/nvidia0").exists():
        return []
    mend = "pip install 'mien[gpu]', then mien doctor again"
    return [Finding(False, "an NVIDIA card is here, and models run on the CPU", mend)]


def _limits() -> list[Finding]:
    """A container that may use less processor time than it sees cores."""
    allowed, seen = quota(), cores()
    if allowed is None or allowed >= seen:
        return []
    threads = max(1, int(allowed))
    return [
        Finding(
            False,
            f"this container may use {allowed:g} cores and sees {seen}: engines that start a thread for each are slow",
            f"--threads {threads}, or mien.load(threads={threads})",
        )
    ]


def _cache() -> Cache:
    folder = store.cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    return Cache(str(folder), folder.is_dir(), size)
