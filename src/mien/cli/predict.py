"""mien predict: the faces of images."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from mien.alone import alone
from mien.cli.options import Device, Engine, tell_choice
from mien.errors import ConfigError, ImageError, OutputError
from mien.faces import ImageRecord, face_record
from mien.files import check_distinct, is_hidden, is_there, path_text, quoted

if TYPE_CHECKING:
    import numpy as np

    from mien.faces import Face
    from mien.runtime.features import FeatureTable
    from mien.runtime.read import Reader
    from mien.runtime.table import TableSink


def predict(
    images: Annotated[list[str], typer.Argument(help="Images, folders (without those below) or quoted globs.")],
    json: Annotated[bool, typer.Option("--json", help="JSON lines instead of what is shown.")] = False,
    table: Annotated[Path | None, typer.Option(help="Table (.csv, .jsonl or .parquet): a row a face.")] = None,
    save: Annotated[Path | None, typer.Option(help="Folder for annotated pictures.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
    model: Annotated[str, typer.Option(help="A model's name or file.")] = "ferplus-small",
    detector: Annotated[
        str, typer.Option(help="auto (mien-face), mien-face, yunet, or whole (the image is a face).")
    ] = "auto",
    detector_file: Annotated[Path | None, typer.Option(help="A local detector file in YuNet's form.")] = None,
    min_size: Annotated[
        float | None,
        typer.Option(min=1, help="Look for faces from this size on, pixels; slower, and finds more that are none."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores by default.")] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    explain: Annotated[bool, typer.Option(help="Show in the annotated pictures what speaks for each label.")] = False,
    features: Annotated[
        Path | None, typer.Option(help="A table (.csv, .parquet) of faces with the vector before the model's heads.")
    ] = None,
) -> None:
    """Read the faces of images: expression, valence and arousal.

    Exit code 1 if something could not be read or saved (the rest is), 2 if nothing could be read (no table is written then),
    130 after Ctrl-C (what was read is shown and kept).
    """
    if overwrite and save is None and table is None and features is None:
        raise ConfigError("--overwrite: nothing to replace; name what to write with --table, --save or --features")
    if explain and save is None:
        raise ConfigError("--explain: draws into the annotated pictures; name their folder with --save")
    paths, problems, others = _paths(images)
    if not paths:
        raise ConfigError("; ".join([*problems, *others]))
    for problem in [*problems, *others]:
        print(f"mien: {problem}", file=sys.stderr)
    check_distinct([path for path in (table, features) if path is not None])
    places = _places(paths, save, overwrite)
    from mien.runtime.read import load

    vectors = _features(features, overwrite)
    reader = load(model, detector, threads, detector_file, min_size, explain, vectors is not None, engine, device)
    tell_choice(reader)
    rows = _rows(table, overwrite, reader)
    run = _Run(reader, places, overwrite, explain, json, vectors, rows)
    stopped = False
    try:
        with ExitStack() as files:
            for path in (table, features):
                if path is not None:
                    files.enter_context(alone(path, f"{path}: another run writes it", "choose another name"))
            for file in (vectors, rows):
                if file is not None:
                    files.enter_context(file)
            for number, path in enumerate(_progress(paths)):
                run.read(number, path)
            if run.failed == len(paths):  # so no file is written, and none replaced
                raise ImageError(f"{run.failed} of {len(paths)} images could not be read")
    except KeyboardInterrupt:
        stopped = True
    except OutputError:
        run.show()
        raise
    run.show()
    told = sys.stderr if json else sys.stdout
    if places and run.done > run.failed + run.unsaved:
        print(f"annotated pictures: {save}", file=told)
        for path, place in zip(paths, places, strict=True):
            if place.stem != path.stem and place.exists():
                print(f"  {place.name}: {path}", file=told)
    if table is not None:
        print(f"table: {table}", file=told)
    if features is not None:
        print(f"features: {features}", file=told)
    if run.failed:
        print(f"mien: {run.failed} of {len(paths)} images could not be read", file=sys.stderr)
    if run.unsaved:
        print(f"mien: {run.unsaved} annotated pictures could not be written", file=sys.stderr)
    if stopped:
        print(f"mien: interrupted after {run.done} of {len(paths)} images; what was read is kept", file=sys.stderr)
        raise typer.Exit(130)
    if run.failed or run.unsaved or problems:
        raise typer.Exit(1 if run.done > run.failed else 2)


@dataclass
class _Run:
    """One reading of pictures. places: of the annotated ones, if any.  done: how many were read, those that failed too."""

    reader: Reader
    places: Sequence[Path]
    overwrite: bool
    explain: bool
    json: bool
    vectors: FeatureTable | None
    table: TableSink | None
    rows: list[tuple[Path, Sequence[Face]]] = field(default_factory=list)
    done: int = 0
    failed: int = 0
    unsaved: int = 0

    def read(self, number: int, path: Path) -> None:
        """The next picture; one that cannot be read, or is too large to be saved, is told and counted. Raises OutputError."""
        from mien.vision.image import read_image

        try:
            image = read_image(path)
            faces = self.reader(image)
        except ImageError as error:
            self.failed, self.done = self.failed + 1, self.done + 1
            if self.json:
                _print_line(ImageRecord(path_text(path), (), error=path_text(str(error))))
            print(f"mien: {error}", file=sys.stderr)
            return
        if self.json:
            _print_line(ImageRecord(path_text(path), tuple(map(face_record, faces))))
        else:
            self.rows.append((path, faces))
        if self.vectors is not None:
            self.vectors.write(path_text(path), faces)
        if self.table is not None:
            self.table.write_picture(path_text(path), faces)
        self.done += 1
        if self.places:
            self._save(image, faces, self.places[number])

    def _save(self, image: np.ndarray, faces: Sequence[Face], place: Path) -> None:
        from mien.vision.draw import draw, draw_heat
        from mien.vision.image import write_image

        under = draw_heat(image, faces, self.reader.classifier.spec.crop) if self.explain else image
        try:
            write_image(place, draw(under, faces), self.overwrite)
        except ImageError as error:
            self.unsaved += 1
            print(f"mien: {error}", file=sys.stderr)

    def show(self) -> None:
        """The table, unless there were lines or nothing was read."""
        if self.done and not self.json:
            _table(self.rows)


def _features(path: Path | None, overwrite: bool) -> FeatureTable | None:
    if path is None:
        return None
    from mien.runtime.features import FeatureTable

    return FeatureTable(path, overwrite)


def _rows(path: Path | None, overwrite: bool, reader: Reader) -> TableSink | None:
    if path is None:
        return None
    from mien.runtime.table import TableSink

    spec = reader.classifier.spec
    return TableSink(path, spec.labels, overwrite, model=spec.name)


def _print_line(record: ImageRecord) -> None:
    print(msgspec.json.encode(record).decode(), flush=True)


def _paths(images: Sequence[str]) -> tuple[list[Path], list[str], list[str]]:
    """The image files that the arguments name, each once; what is wrong with arguments that name none; what was left out.

    Of a folder or a glob without hidden ones, unless the glob asks for them (`.*.jpg`).
    """
    from mien.vision.image import is_picture, left_out, other_kind

    found: list[Path] = []
    others: Counter[str] = Counter()
    problems = []
    notes: list[str] = []
    for text in images:
        path = Path(text)
        there = is_there(path)
        if path.is_dir():
            items = sorted(path.iterdir())
            below = _below(path)
            others.update(kind for item in items if (kind := other_kind(item.name)) and item.is_file())
            part = [item for item in items if is_picture(item)]
            problem = "" if part else _without(path, below)
            if part and below is not None:
                notes.append(f"{path}: pictures in folders below it were left out; read them with {_deep(path, below)}")
        elif any(letter in text for letter in "*?[") and not there:
            part, problem = _matching(path)
        else:
            part, problem = [path], ""
        found += part
        problems += [] if part else [problem]
    return list(dict.fromkeys(found)), problems, [*notes, *([left_out(others)] if others else [])]


def _below(folder: Path) -> Path | None:
    """A picture in a folder below it, if there is one; hidden folders are not looked into, as by the glob that is named."""
    from mien.vision.image import is_picture

    items = (item for item in folder.rglob("*") if item.parent != folder and not is_hidden(item, folder))
    return next(filter(is_picture, items), None)


def _deep(folder: Path, picture: Path) -> str:
    """The glob of the pictures like this one in the folder and below it."""
    return quoted(str(folder / "**" / f"*{picture.suffix}"))


def _without(folder: Path, below: Path | None) -> str:
    """What is said of a folder without images; below: one in a folder below it, if there is one."""
    from mien.vision.image import SUFFIXES

    more = "" if below is None else f"; those below it are read with {_deep(folder, below)}"
    return f"{folder}: a folder without images ({', '.join(sorted(SUFFIXES))}){more}; a video is read with `mien watch`"


def _matching(pattern: Path) -> tuple[list[Path], str]:
    """The files of a glob in order, and what to say if there are none."""
    if any("**" in part and part != "**" for part in pattern.parts):
        return [], f"{pattern}: ** stands for folders, alone between slashes (pics/**/*.jpg); within a name write *"
    base = Path(pattern.anchor) if pattern.anchor else Path()
    items = base.glob(str(pattern.relative_to(base)))
    found = sorted(item for item in items if not is_hidden(item, pattern) and item.is_file())
    return found, f"{pattern}: no file matches"


def _places(paths: Sequence[Path], save: Path | None, overwrite: bool) -> list[Path]:
    """Where each annotated picture goes; same-named images of different folders get numbers (IMG and img are one name to many disks)."""
    if save is None:
        return []
    used: set[str] = set()
    places = []
    for path in paths:
        stem, number = path.stem, 2
        while stem.casefold() in used:
            stem, number = _numbered(path.stem, number), number + 1
        used.add(stem.casefold())
        places.append(save / f"{stem}.jpg")
    taken = [place for place in places if place.exists()]
    if taken and not overwrite:
        raise OutputError(f"{taken[0]}: exists already; choose another folder or pass --overwrite")
    inputs = {path.resolve() for path in paths}
    own = [place for place in taken if place.resolve() in inputs]
    if own:
        raise OutputError(f"{own[0]}: is one of the images to read; choose another folder for --save")
    try:
        save.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{save}: cannot be made ({error.strerror})") from error
    return places


def _numbered(stem: str, number: int) -> str:
    """A name's stem with a number, cut so that a disk can hold it with its ending (255 bytes)."""
    while len(os.fsencode(f"{stem}-{number}.jpg")) > 255:
        stem = stem[:-1]
    return f"{stem}-{number}"


def _progress(paths: Sequence[Path]) -> Any:
    if len(paths) < 8 or not sys.stderr.isatty():
        return paths
    from rich.console import Console
    from rich.progress import track

    return track(paths, "reading", console=Console(stderr=True))


def _table(rows: Sequence[tuple[Path, Sequence[Face]]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mien.cli.tables import print_table

    table = Table("image", "face", "box", "expression", "second", "valence", "arousal")
    named = Counter(path.name for path, _ in rows)
    for path, faces in rows:
        name = escape(path_text(path.name if named[path.name] == 1 else path))
        if not faces:
            table.add_row(name, "none", "", "", "", "", "")
        for number, face in enumerate(faces):
            assert face.expression is not None
            best = [*face.expression.top(2), ("unknown", 0.0), ("", 0.0)]
            (_, share), (second, other) = best[:2]
            box = " ".join(str(round(edge)) for edge in face.box)
            affect = (f"{face.expression.valence:+.2f}", f"{face.expression.arousal:+.2f}")
            table.add_row(
                name,
                str(number),
                box,
                escape(f"{face.expression.words} {share:.0%}"),
                escape(f"{second} {other:.0%}" if second else ""),
                *affect,
            )
    print_table(table)
