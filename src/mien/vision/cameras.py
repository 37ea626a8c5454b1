"""The cameras of this machine, by number, and how FFmpeg is asked for one, for a file and for an address."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Source", "allowed", "asked_as", "cameras", "is_address", "open_camera", "opened_by", "shown"]

Source = str | PathLike[str] | int

_FORMS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_LINUX = Path("/sys/class/video4linux")
#: Frames a second, in the order in which they are asked for: macOS opens a camera only at a rate of its own, and FFmpeg asks
#: for 29.97, which Apple's do not have.
_RATES = {"avfoundation": ("30", "25", "24", "15", "60")}
#: Where each system's user says which programs may use a camera.
_ALLOWED = {
    "avfoundation": "; may this program use it (System Settings, Privacy & Security, Camera)?",
    "dshow": "; may programs use it (Settings, Privacy & security, Camera)?",
}
#: Seconds between two looks for a picture that is not there yet.
_PAUSE = 0.005


def is_address(source: Source) -> bool:
    """Whether a source is an address (http, rtsp, ...) and not a file."""
    return not isinstance(source, int) and "://" in str(source) and not Path(source).exists()


def asked_as(source: str | PathLike[str]) -> str:
    """What FFmpeg is asked for: an address as it is, a file by its whole path, for 10:30.mp4 would be an address of the kind "10"."""
    return str(source) if is_address(source) else os.path.abspath(source)


def cameras() -> dict[int, str]:
    """Number -> name of each camera that the system lists; none is opened. A number may be a second stream of one camera."""
    if _form() != "v4l2":
        return {number: spoken for number, (_, spoken) in enumerate(_listed())}
    found = {int(place.name[5:]): place for place in _LINUX.glob("video*") if place.name[5:].isdecimal()}
    return {number: (found[number] / "name").read_text("utf-8", "replace").strip() for number in sorted(found)}


def opened_by(number: int) -> tuple[str, str]:
    """FFmpeg's format and name for a camera: DirectShow knows cameras by name alone, the others by number."""
    form = _form()
    if form == "v4l2":
        return form, f"/dev/video{number}"
    if form == "dshow":
        names = _listed()
        return form, f"video={names[number][0] if number < len(names) else number}"
    return form, str(number)


def open_camera(number: int) -> Any:
    """The container of a camera. Raises what PyAV raises."""
    import av

    form, place = opened_by(number)
    ways = [{"framerate": rate} for rate in _RATES.get(form, ())] or [{}]
    for way in ways[:-1]:
        try:
            return av.open(place, format=form, container_options=way)
        except (av.error.FFmpegError, OSError):
            continue
    return av.open(place, format=form, container_options=ways[-1])


def shown(container: Any, stream: Any, silence: float) -> Iterator[Any]:
    """The pictures of a camera. macOS says "try again" until the next one is there: it is raised after `silence` seconds of that."""
    import av

    since = time.monotonic()
    while True:
        try:
            for picture in container.decode(stream):
                yield picture
                since = time.monotonic()
            return
        except av.error.BlockingIOError:
            if time.monotonic() - since > silence:
                raise
            time.sleep(_PAUSE)


def allowed() -> str:
    """What is asked besides where a camera does not answer; '' where no system keeps programs away."""
    return _ALLOWED.get(_form(), "")


def _form() -> str:
    return _FORMS.get(sys.platform, "v4l2")


def _listed() -> list[tuple[str, str]]:
    """The cameras as FFmpeg lists them, by the name that opens each and the name for people; none where it cannot."""
    import av

    try:
        devices = av.enumerate_input_devices(_form())
    except (AttributeError, ValueError, OSError, av.error.FFmpegError):  # an older PyAV; a form that cannot list
        return []
    return [(device.name, device.description or device.name) for device in devices if "video" in device.media_types]
