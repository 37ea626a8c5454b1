"""On which platforms and Pythons `pip install mien` finds every wheel: nothing is installed, pip only resolves.

    python benchmarks/platforms.py [--extra train] [--extra serve]

For each pair: yes, or the first package of which there is no wheel. Asks the package index, some seconds a pair. pip
takes the markers of this machine's system for those of the other, so a package that only one system needs may be missed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "Linux, x86-64": [f"manylinux_2_{n}_x86_64" for n in (28, 27, 17)],
    "Linux, Arm 64": [f"manylinux_2_{n}_aarch64" for n in (28, 27, 17)],
    "Linux, Arm 32 (Raspberry Pi OS, 32 bit)": ["manylinux_2_31_armv7l", "manylinux_2_17_armv7l"],
    "Windows, x86-64": ["win_amd64"],
    "Windows, Arm 64": ["win_arm64"],
    "macOS, Apple silicon": [f"macosx_{n}_0_{kind}" for n in (14, 13, 12, 11) for kind in ("arm64", "universal2")],
    "macOS, Intel": [
        f"macosx_{n}_{kind}" for n in ("14_0", "13_0", "11_0", "10_12", "10_9") for kind in ("x86_64", "universal2")
    ],
}


def needs(extras: list[str]) -> list[str]:
    """What the package and these extras ask for; extras of extras as well."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found, left = list(project["dependencies"]), list(extras)
    while left:
        for need in project["optional-dependencies"][left.pop()]:
            if inner := re.fullmatch(r"mien\[(.+)\]", need):
                left += inner[1].split(",")
            else:
                found.append(need)
    return found


def answer(python: str, tags: list[str], wanted: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        words = [word for tag in tags for word in ("--platform", tag)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--dry-run", "--ignore-installed",
             "--only-binary=:all:", "--target", folder, "--python-version", python, *words, *wanted],
            capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode == 0:
        return "yes"
    missing = re.search(r"No matching distribution found for ([\w.-]+)", done.stderr)
    return f"no {missing[1]}" if missing else done.stderr.strip().splitlines()[-1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--extra", action="append", default=[])
    wanted = needs(options.parse_args().extra)
    print(f"| | {' | '.join(PYTHONS)} |\n|---|{'---|' * len(PYTHONS)}")
    for name, tags in PLATFORMS.items():
        print(f"| {name} | {' | '.join(answer(python, tags, wanted) for python in PYTHONS)} |", flush=True)


if __name__ == "__main__":
    main()
