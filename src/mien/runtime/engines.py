"""Engines: what runs a model file on this machine, and why.

onnx       ONNX Runtime: always there; on the CPU, and with `mien[gpu]` on NVIDIA cards (cuda, cuda:1)
openvino   OpenVINO (`mien[openvino]`): CPU, and Intel's gpu and npu; reads .onnx and its own .xml
tensorrt   TensorRT: NVIDIA cards; reads its own .engine, and .onnx through ONNX Runtime's provider
"""

from __future__ import annotations

import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import msgspec

from mien.errors import ConfigError, MissingExtra, near_miss
from mien.runtime.choice import Choice

__all__ = ["ENGINES", "FORMS", "Engine", "available", "check_words", "choose", "detector_device", "fallback"]

ENGINES = ("auto", "onnx", "openvino", "tensorrt")
#: The forms of model files, and the engines that read each.
FORMS = {
    ".onnx": ("onnx", "openvino", "tensorrt"),
    ".xml": ("openvino",),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
}
_DEVICES = {
    "onnx": r"cpu|cuda(:\d+)?",
    "openvino": r"cpu|gpu(\.\d+)?|npu",
    "tensorrt": r"cuda(:\d+)?",
}
_CARDS = ("/dev/nvidia0", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/dxg")


class Engine(msgspec.Struct, frozen=True):
    """An engine as it is found here.

    version: of its package; empty if it is not installed.  devices: those that can be asked for.  why: what is missing
    if it cannot be used here, with the next move; empty if it can.
    """

    name: str
    version: str
    devices: tuple[str, ...]
    why: str = ""


def available() -> list[Engine]:
    """Every engine, usable or not. It looks at each (half a second where OpenVINO is installed)."""
    return [_onnx(), _openvino(), _tensorrt()]


def choose(engine: str = "auto", device: str = "auto", file: str | PathLike[str] | None = None) -> Choice:
    """The engine and the device for a model file.

    engine, device: 'auto', or a word; what is asked for is taken or refused, never replaced.  file: its suffix says which
    engines read it; .onnx if there is none.
    Raises ConfigError (an unknown word; an engine that does not read the file or has no such device), MissingExtra.

    >>> print(choose("onnx", "cpu"))
    onnx on cpu: asked for
    """
    suffix = ".onnx" if file is None else Path(file).suffix.lower()
    readers = FORMS.get(suffix, FORMS[".onnx"])
    check_words(engine, device)
    chosen, why = _engine(engine, device, readers, suffix)
    if engine != "auto" and chosen not in readers:
        raise ConfigError(f"engine {engine}: does not read {suffix} files; {readers[0]} does")
    if device != "auto" and not re.fullmatch(_DEVICES[chosen], device):
        raise ConfigError(f"device {device}: is no device of the engine {chosen} ({_spoken(chosen)})")
    place = _default(chosen) if device == "auto" else device
    _require(chosen, place, suffix)
    if device == "auto" and (chosen, place) == ("onnx", "cuda"):
        why = "an NVIDIA card and ONNX Runtime's CUDA provider are here"
    return Choice(chosen, place, why)


def fallback(choice: Choice, problem: str) -> Choice:
    """ONNX Runtime on the CPU, for a card that was chosen but does not start."""
    return Choice("onnx", "cpu", f"{choice.device} does not start ({problem})", fallen=True)


def detector_device(choice: Choice) -> str:
    """Where a detector runs beside a model: on the same NVIDIA card if ONNX Runtime can, else on the CPU."""
    return choice.device if choice.device.startswith("cuda") and _cuda() else "cpu"


def check_words(engine: str, device: str) -> None:
    """Raises ConfigError: no engine or no device is called so."""
    if engine not in ENGINES:
        raise ConfigError(f"engine: unknown engine {engine!r}; {near_miss(engine, ENGINES)}")
    if device != "auto" and not any(re.fullmatch(pattern, device) for pattern in _DEVICES.values()):
        known = ("auto", "cpu", "cuda", "gpu", "npu")
        raise ConfigError(f"device: unknown device {device!r}; {near_miss(device, known)}")


def _engine(engine: str, device: str, readers: tuple[str, ...], suffix: str) -> tuple[str, str]:
    if engine != "auto":
        return engine, "asked for"
    if len(readers) == 1:
        return readers[0], f"it alone reads {suffix} files"
    if device == "auto":
        return "onnx", "it reads every .onnx model and is always there; no NVIDIA card with the CUDA provider is"
    return next(name for name in readers if re.fullmatch(_DEVICES[name], device)), f"device {device} asked for"


def _default(engine: str) -> str:
    """The device of an engine where none is asked for."""
    return "cuda" if engine == "tensorrt" or (engine == "onnx" and _cuda() and _card()) else "cpu"


def _spoken(engine: str) -> str:
    return {"onnx": "cpu, cuda, cuda:N", "openvino": "cpu, gpu, npu", "tensorrt": "cuda, cuda:N"}[engine]


def _require(engine: str, device: str, suffix: str) -> None:
    """Raises MissingExtra where what the choice needs is not installed."""
    if engine == "openvino" and not find_spec("openvino"):
        raise MissingExtra.of("The engine openvino needs OpenVINO", "openvino")
    if engine == "onnx" and device.startswith("cuda") and not _cuda():
        raise MissingExtra.of(f"Device {device} needs ONNX Runtime with its CUDA provider", "gpu")
    if engine == "tensorrt" and suffix == ".onnx" and "TensorrtExecutionProvider" not in _providers():
        raise MissingExtra.of("TensorRT reads .onnx through ONNX Runtime's TensorRT provider", "gpu")
    if engine == "tensorrt" and suffix != ".onnx" and not find_spec("tensorrt"):
        raise MissingExtra(
            f"A TensorRT {suffix} file needs TensorRT. Install it with: pip install tensorrt cuda-python (JetPack brings TensorRT)"
        )


def _providers() -> list[str]:
    import onnxruntime as ort

    return list(ort.get_available_providers())


def _cuda() -> bool:
    return "CUDAExecutionProvider" in _providers()


def _card() -> bool:
    return any(Path(path).exists() for path in _CARDS) or shutil.which("nvidia-smi") is not None


def _onnx() -> Engine:
    import onnxruntime as ort

    return Engine("onnx", ort.__version__, ("cpu", "cuda") if _cuda() and _card() else ("cpu",))


def _openvino() -> Engine:
    if not find_spec("openvino"):
        return Engine("openvino", "", (), "not installed: pip install 'mien[openvino]'")
    from mien.runtime.openvino import devices

    found = devices()
    why = "" if found else "it finds no device on this machine"
    return Engine("openvino", version("openvino"), tuple(name.lower() for name in found), why)


def _tensorrt() -> Engine:
    own, provider = find_spec("tensorrt") is not None, "TensorrtExecutionProvider" in _providers()
    try:
        number = version("tensorrt") if own else "provider of ONNX Runtime" if provider else ""
    except PackageNotFoundError:  # JetPack's, which is no wheel
        number = "of the system"
    if not number:
        return Engine(
            "tensorrt", "", (), "not installed: pip install 'mien[gpu]', or TensorRT itself (part of JetPack)"
        )
    if not _card():
        return Engine("tensorrt", number, (), "no NVIDIA card on this machine")
    return Engine("tensorrt", number, ("cuda",))
