"""mien bench: how fast this machine is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.options import Device, Engine
from mien.errors import ConfigError

if TYPE_CHECKING:
    from mien.runtime.bench import Bench, Speed

Lines = list[tuple[str, ...]]


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models by name or file (the shipped ones), or two or more .json to compare."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Keep the measurements in this file.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace that file.")] = False,
    engine: Engine = "auto",
    device: Device = "auto",
    batch: Annotated[str, typer.Option(help="Chips a call.")] = "1,8,32",
    threads: Annotated[str, typer.Option(help="Threads; 'all' for as many as the engine takes.")] = "1,all",
    seconds: Annotated[float, typer.Option(min=0, max=3600, help="Time for each line.")] = 0.5,
    photo: Annotated[Path | None, typer.Option(help="A picture for the stages (the example photograph).")] = None,
    markdown: Annotated[bool, typer.Option(help="Markdown tables.")] = False,
) -> None:
    """Measure this machine: every engine and model by batch and threads, what starting costs, a photograph by stage.

    --engine and --device narrow it down. With .json files of --json instead of models: compare them.
    """
    from mien.files import check_free
    from mien.runtime.bench import bench as measure
    from mien.runtime.bench import photograph, pictured, places, read_bench, shipped
    from mien.runtime.read import load

    given = models or shipped()
    files = [Path(model) for model in given if model.lower().endswith(".json")]
    if files:
        if len(files) < len(given) or len(files) < 2:
            raise ConfigError("bench: give models, or two or more .json files of measurements to compare")
        for name, value in {"--json": json, "--photo": photo}.items():
            if value is not None:
                raise ConfigError(f"{name}: does nothing where measurements are compared; leave it out")
        if (engine, device) != ("auto", "auto"):
            raise ConfigError("--engine, --device: do nothing where measurements are compared; leave them out")
        _print(_compared([read_bench(file) for file in files], files), markdown)
        return
    if json is not None:
        check_free(json, overwrite)
    picture = photograph() if photo is None else pictured(photo)
    lines = places(given, engine, device)
    found = measure(
        lines,
        _whole("--batch", batch),
        [0 if word == "all" else _whole("--threads", word)[0] for word in threads.split(",")],
        seconds,
        picture,
        lambda count: load(given[0], threads=count or None, engine=lines[0].engine, device=lines[0].device),
        lambda what: print(f"mien: measuring {what}", file=sys.stderr),
    )
    if json is not None:
        _keep(found, json, overwrite)
    for what in found.missed:
        print(f"mien: not measured: {what}", file=sys.stderr)
    _print(_tables(found), markdown)


def _whole(option: str, words: str) -> list[int]:
    numbers = [int(word) if word.isdecimal() else 0 for word in words.split(",")]
    if min(numbers) < 1:
        raise ConfigError(f"{option}: expected whole numbers from 1, with commas, got {words!r}")
    return numbers


def _keep(found: Bench, path: Path, overwrite: bool) -> None:
    import msgspec

    from mien.files import whole_file

    with whole_file(path, overwrite) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))


def _tables(found: Bench) -> list[tuple[str, Lines]]:
    """Titles and tables; the first line of each is its head."""
    starts: Lines = [("model", "engine", "precision", "size, MB", "opened, ms", "first call, ms", "memory, MB")]
    for one in found.starts:
        where = _where(one.engine, one.device)
        starts.append(
            (
                one.model,
                where,
                one.precision,
                f"{one.size / 1e6:.2f}",
                f"{one.opened:.0f}",
                f"{one.first:.1f}",
                _megabytes(one.memory),
            )
        )
    title = f"Starting (a process with mien loaded and no model: {_megabytes(found.bare)} MB)"
    return [(_header(found), []), (title, starts), ("Chips to probabilities", _speeds(found)), *_stages(found)]


def _header(found: Bench) -> str:
    here = found.machine
    load = "" if found.load is None else f", load {found.load:.1f} before"
    engines = ", ".join(f"{name} {number}" for name, number in found.engines.items())
    busy = (
        " It was busy: times by the clock are too long, processor time holds."
        if found.load and found.load > 0.3
        else ""
    )
    return f"{here.processor}, {here.cores} cores{load}; {engines}; mien {found.mien}.{busy}"


def _speeds(found: Bench) -> Lines:
    batches = sorted({one.batch for one in found.speeds})
    cost = [f"processor ms a face, {batches[-1]}"] if batches else []
    lines: Lines = [("model", "engine", "precision", "threads", *(f"{batch}: ms, faces/s" for batch in batches), *cost)]
    groups: dict[tuple[str, str, str, int], dict[int, Speed]] = {}
    for one in found.speeds:
        groups.setdefault((one.model, one.engine, one.device, one.threads), {})[one.batch] = one
    for group, of in groups.items():
        cells = [f"{of[batch].ms:.2f}, {of[batch].rate:,.0f}" if batch in of else "" for batch in batches]
        last = max(of)
        where, count = _where(*group[1:3]), str(group[3] or "all")
        lines.append((group[0], where, of[last].precision, count, *cells, f"{of[last].busy / last:.2f}"))
    return lines


def _stages(found: Bench) -> list[tuple[str, Lines]]:
    if found.photo is None:
        return []
    threads = list(dict.fromkeys(one.threads for one in found.stages))
    said = ["1 thread" if count == 1 else f"{count or 'all'} threads" for count in threads]
    head = [f"{words}: ms, processor ms" for words in said]
    lines: Lines = [("stage", *head)]
    parts = {count: [one for one in found.stages if one.threads == count] for count in threads}
    for row in zip(*parts.values(), strict=True):
        lines.append((row[0].name, *(f"{one.ms:.2f}, {one.busy:.2f}" for one in row)))
    totals = [(sum(one.ms for one in part), sum(one.busy for one in part)) for part in parts.values()]
    lines.append(("all", *(f"{ms:.2f}, {busy:.2f}" for ms, busy in totals)))
    lines.append(("photographs a second", *(f"{1000 / ms:.0f}" for ms, _ in totals)))
    width, height, faces = found.photo
    return [(f"A photograph of {width}x{height}, {faces} face{'s' if faces > 1 else ''}", lines)]


def _compared(found: Sequence[Bench], files: Sequence[Path]) -> list[tuple[str, Lines]]:
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in files]
    about = "\n".join(f"{name}: {_header(one)}" for name, one in zip(names, found, strict=True))
    lines: Lines = [
        ("model", "engine", "threads", "batch", *(f"{name}, ms" for name in names), f"times as fast as {names[0]}")
    ]
    keys = dict.fromkeys((s.model, s.engine, s.device, s.threads, s.batch) for one in found for s in one.speeds)
    for key in keys:
        ms = [
            next((s.ms for s in one.speeds if (s.model, s.engine, s.device, s.threads, s.batch) == key), None)
            for one in found
        ]
        ratios = [f"{ms[0] / value:.2f}" if ms[0] and value else "-" for value in ms[1:]]
        cells = ["-" if value is None else f"{value:.2f}" for value in ms]
        lines.append((key[0], _where(*key[1:3]), str(key[3] or "all"), str(key[4]), *cells, ", ".join(ratios)))
    return [(about, []), ("Chips to probabilities", lines)]


def _where(engine: str, device: str) -> str:
    return engine if device == "cpu" else f"{engine} on {device}"


def _megabytes(size: int | None) -> str:
    return "not known" if size is None else f"{size / 1e6:.0f}"


def _print(tables: Sequence[tuple[str, Lines]], markdown: bool) -> None:
    if markdown:
        for title, lines in tables:
            rows = [f"| {' | '.join(line)} |" for line in lines]
            rule = ["|" + "---|" * len(lines[0])] if lines else []
            print("\n".join([f"**{title}**" if lines else title, "", *rows[:1], *rule, *rows[1:]]).rstrip() + "\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mien.cli.tables import print_table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for title, lines in tables:
        console.print(f"\n{escape(title)}")
        if lines:
            table = Table(*map(escape, lines[0]))
            for line in lines[1:]:
                table.add_row(*map(escape, line))
            print_table(table)
