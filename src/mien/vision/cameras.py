"""The cameras of this machine, by number, and how FFmpeg is asked for one."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["cameras", "opened_by"]

_FORMS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_LINUX = Path("/sys/class/video4linux")


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
