"""What machine this is, as far as speed depends on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

__all__ = ["Machine", "cores", "peak", "quota", "this_machine"]


class Machine(msgspec.Struct, frozen=True):
    """cores: that this process may use.  memory: bytes of the machine, None where the system does not say."""

    processor: str
    cores: int
    memory: int | None
    system: str
    python: str


def this_machine() -> Machine:
    """This one."""
    return Machine(_processor(), cores(), _memory(), platform.platform(), platform.python_version())


def quota(place: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores' worth of time that the control group allows; None without a limit."""
    try:
        allowed, _, period = place.read_text().partition(" ")
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        return None


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _processor(place: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as its maker gives it, where the system tells."""
    try:
        lines = [line.partition(":") for line in place.read_text().splitlines()]
    except OSError:
        lines = []
    names = [value.strip() for key, _, value in lines if key.strip() in ("model name", "Model")]
    return names[0] if names else platform.processor() or platform.machine()


def peak(status: Path = Path("/proc/self/status")) -> int | None:
    """The largest that this process has been, in bytes; None where the system does not say."""
    if status.is_file():  # resource's figure may be the parent's, from before this program began
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) * 1024 if lines else None
    if platform.system() == "Darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
