"""mien doctor: what this machine has, what is wrong, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mien.runtime.doctor import Examination


def doctor(json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False) -> None:
    """Look at this installation: versions, engines and which is chosen, cores, cameras, cache, models.

    Exit code 1 if something is broken, with the line that mends it.
    """
    from mien.runtime.doctor import examine

    found = examine()
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _show(found)
    raise typer.Exit(1 if found.broken else 0)


def _show(found: Examination) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    table = Table.grid(padding=(0, 2))
    for name, lines in _sections(found).items():
        for number, line in enumerate(lines):
            table.add_row("" if number else name, line)
    console.print(table)
    for finding in found.findings:
        console.print(f"\n{'BROKEN' if finding.broken else 'note'}: {finding.says}")
        if finding.mend:
            console.print(f"  {finding.mend}", soft_wrap=True)
    console.print("\n" + ("Something is broken: see above." if found.broken else "All is well."))


def _sections(found: Examination) -> dict[str, list[str]]:
    here = found.machine
    memory = "" if here.memory is None else f", {here.memory / 2**30:.1f} GiB"
    return {
        "mien": [f"{found.mien}, {found.place}"],
        "Python": [f"{here.python}, {found.executable}"],
        "machine": [here.system, f"{here.processor}, {here.cores} cores{memory}"],
        "engines": _engines(found),
        "models": [
            f"{one.name}: {f'{one.size / 1e6:.2f} MB, {one.place}' if one.place else f'not here; mien models pull {one.name}'}"
            for one in found.models
        ],
        "cache": [
            f"{found.cache.folder}: {f'{found.cache.size / 1e6:.1f} MB' if found.cache.there else 'not made yet'}"
        ],
        "cameras": [f"{number}: {name}" for number, name in found.cameras.items()] or ["none"],
        "page": ["its engine is here" if found.page else "its engine is not here: it reads by the server"],
        "packages": _packages(found),
        **({"set": [f"{name}={value}" for name, value in found.variables.items()]} if found.variables else {}),
    }


def _engines(found: Examination) -> list[str]:
    if found.engines is None or found.choice is None:
        return ["ONNX Runtime does not load"]
    lines = [
        f"{one.name} {one.version}: {', '.join(one.devices)}"
        if not one.why
        else f"{one.name} {one.version}".strip() + f": {one.why}"
        for one in found.engines
    ]
    return [*lines, f"chosen: {found.choice}"]


def _packages(found: Examination) -> list[str]:
    """One line for what is always needed, one for each extra of which something is here, one for the others."""
    lines, absent = [], []
    for extra in dict.fromkeys(one.extra for one in found.packages):
        group = [one for one in found.packages if one.extra == extra]
        here = ", ".join(f"{one.name} {one.found}" for one in group if one.found)
        gone = ", ".join(one.name for one in group if not one.found)
        if extra and not here:
            absent.append(extra)
        else:
            lines.append(f"{f'[{extra}] ' if extra else ''}{here}{f'; not here: {gone}' if gone else ''}")
    lines += [f"extras not here: {', '.join(absent)}"] if absent else []
    return lines or ["not installed as a package"]
