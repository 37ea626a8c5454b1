"""What `mien watch` was asked for: the source, the outputs, and whether they can be meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import ConfigError, MissingExtra, OutputError
from mien.files import beside

if TYPE_CHECKING:
    from mien.runtime.resume import Progress

__all__ = ["Asked", "check_kind", "file_facts", "seconds_of", "timeline"]


@dataclass
class Asked:
    """The source and the outputs that were asked for."""

    source: str
    table: Path | None
    save: Path | None
    subtitles: Path | None
    report: Path | None
    overwrite: bool
    blurred: bool

    @property
    def place(self) -> str | int:
        """What is opened: a camera's number, or the text as it is."""
        camera = self.source.isascii() and self.source.isdecimal() and not Path(self.source).exists()
        return int(self.source) if camera else self.source

    @property
    def rows(self) -> Path | None:
        """Where the rows go: the table, or, if only other outputs need them, a hidden one that is removed at the end."""
        other = self.subtitles or self.report
        return self.table or (None if other is None else beside(other, ".rows.csv"))

    def files(self) -> dict[str, Path]:
        """Every file that is written, by what it is: 'rows', 'save', 'subtitles', 'report'."""
        files = {"rows": self.rows, "save": self.save, "subtitles": self.subtitles, "report": self.report}
        return {role: path for role, path in files.items() if path is not None}

    def outputs(self) -> list[Path]:
        """Every file that was asked for."""
        return [path for path in (self.table, self.save, self.subtitles, self.report) if path is not None]

    def made(self, found: Progress | None) -> set[Path]:
        """The files that are there already, as the reading found wrote them."""
        return set() if found is None else {path for role, path in self.files().items() if found.made(role, path)}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Every output for this run alone. Raises OutputError: another run writes one of them."""
        from mien.alone import alone

        with ExitStack() as stack:
            for path in self.files().values():
                stack.enter_context(alone(path, f"{path}: another run writes it", "choose another name"))
            yield

    def check_free(self, found: Progress | None) -> None:
        """Raises OutputError: an output is there that the reading found did not write, or it is the video to read."""
        from mien.files import check_free

        made = self.made(found)
        for output in self.outputs():
            there = check_free(output, self.overwrite or output in made).exists()
            if there and output.resolve() == Path(self.source).resolve():
                raise OutputError(f"{output}: is the video to read; choose another name")

    def check(self, span: tuple[float, float | None], fresh: bool) -> None:
        """Raises ConfigError, OutputError or MissingExtra before any work."""
        from mien.files import check_distinct
        from mien.runtime.resume import Bookmark

        if span[1] is not None and span[1] <= span[0]:
            raise ConfigError(f"--to: {span[1]:g} s is not after --from ({span[0]:g} s)")
        check_distinct(self.outputs())
        self.check_free(None if fresh or self.rows is None else Bookmark(self.rows).read())
        if self.subtitles is not None and self.subtitles.suffix.lower() not in (".srt", ".vtt"):
            raise ConfigError(f"{self.subtitles}: no form of subtitles; use .srt or .vtt")
        if self.report is not None:
            timeline().check_page(self.report)


def check_kind(place: str | int, rate: float | None, patience: float | None, thumbnails: bool) -> None:
    """Raises ConfigError: an option of another kind of source."""
    from mien.vision.video import is_address

    camera, name = isinstance(place, int), f"camera {place}" if isinstance(place, int) else place
    if rate is not None and (camera or is_address(place) or Path(str(place)).is_file()):
        raise ConfigError(f"--rate: is for a folder of pictures; {name} has its own times (--every 5 reads each fifth)")
    if patience is not None and (camera or Path(str(place)).exists()):
        raise ConfigError(f"--patience: is for the address of a stream; {name} is not tried again")
    if thumbnails and (camera or is_address(place)):
        raise ConfigError(
            "--thumbnails: are of what can be read again; record it (--save) and use `mien report` on its table"
        )


def file_facts(model: str, detector: str, file: Path | None) -> list[str]:
    """The sha256 of the files of model (of OpenVINO's both) and detector: another one of the same name gives other rows."""
    import hashlib

    from mien.runtime.detect import detector_path
    from mien.runtime.store import model_file

    place = Path(model_file(model))
    more = [place.with_suffix(".bin")] if place.suffix.lower() == ".xml" else []
    files = [place, *more, detector_path(detector, file)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path is not None and path.is_file()]


def timeline() -> Any:
    """The part that makes reports. Raises MissingExtra."""
    try:
        import mien.report.timeline as timeline
    except ImportError as error:
        raise MissingExtra.of(f"A report needs {error.name}", "data") from error
    return timeline


def seconds_of(text: str | None, option: str) -> float | None:
    """'90', '1:30' or '0:01:30.5' as seconds. Raises ConfigError."""
    if text is None:
        return None
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(not 0 <= part < 1e7 for part in parts):
        raise ConfigError(f"{option}: {text!r} is no time; write seconds, m:ss or h:mm:ss")
    return sum(part * 60**place for place, part in enumerate(reversed(parts)))
