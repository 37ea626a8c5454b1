"""Subtitles that say what is read: SubRip (.srt) and WebVTT (.vtt), from the rows of a table."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mien.errors import ConfigError
from mien.faces import in_words
from mien.files import whole_file
from mien.runtime.table import read_rows

__all__ = ["SUBTITLE_FORMS", "Cue", "Line", "cues", "subtitles_of", "usual_step", "write_subtitles"]

SUBTITLE_FORMS = (".srt", ".vtt")
_STEP = 0.5
#: Seconds that a frame is believed at most, as in mien.evaluation.timeline.
_LONGEST = 1.0


class Line(NamedTuple):
    """What a row of a table says that subtitles need."""

    seconds: float
    track: int | None
    label: str | None
    certain: bool = True


class Cue(NamedTuple):
    """Words that are shown from `begin` to `end`, in seconds."""

    begin: float
    end: float
    words: str


def usual_step(times: Iterable[float]) -> float:
    """The median seconds between two frames, given in order (each as often as it has rows); that of 25 a second for one frame.

    >>> usual_step([0.0, 0.5, 0.5, 1.0, 9.0])
    0.5
    """
    steps = [after - before for before, after in pairwise(times) if after > before]
    return median(steps) if steps else 0.04


def cues(lines: Iterable[Line], *, usual: float = 0.04) -> Iterator[Cue]:
    """What each person shows longest in every half second; equal neighbours are one cue; nobody, no cue.

    A frame lasts to the next one, at most a second; where frames are usually further apart, as long as that, and what is said
    of a half second is said of that long. usual: seconds between two frames, see `usual_step`.
    """
    shown: Cue | None = None
    for begin, end, words in _steps(lines, max(_STEP, usual), usual):
        if shown is not None and words == shown.words and begin - shown.end < 1e-6:
            shown = shown._replace(end=end)
            continue
        if shown is not None and shown.words:
            yield shown
        shown = Cue(begin, end, words)
    if shown is not None and shown.words:
        yield shown


def _steps(lines: Iterable[Line], step: float, usual: float) -> Iterator[Cue]:
    """What is shown in each step that frames cover, from the first to the last of them."""
    place, begin, end = 0, 0.0, 0.0
    shares, origin = (
        _Shares(),
        None if step > _STEP else 0.0,
    )  # half seconds are whole ones; longer steps begin with a frame
    for now, until, faces in _lasting(lines, usual):
        origin = now if origin is None else origin
        while until - now > 1e-6:
            here = int((now - origin + 1e-6) / step)
            if here != place or now - end > 1e-6:
                if end > begin:
                    yield Cue(begin, end, shares.words())
                place, begin, shares = here, now, _Shares()
            end = min(until, origin + (here + 1) * step)
            for face in faces:
                shares.add(face, end - now)
            now = end
    if end > begin:
        yield Cue(begin, end, shares.words())


def _lasting(lines: Iterable[Line], usual: float) -> Iterator[tuple[float, float, list[Line]]]:
    """Each frame: from when to when it lasts, and its faces."""
    longest, begun = max(_LONGEST, usual), None
    faces: list[Line] = []
    for line in lines:
        if begun is not None and line.seconds != begun:
            yield begun, min(line.seconds, begun + longest), faces
            faces = []
        begun = line.seconds
        if line.label is not None:
            faces.append(line)
    if begun is not None:
        yield begun, begun + usual, faces


class _Shares:
    """How long each person showed what."""

    def __init__(self) -> None:
        self._seconds: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._certain: dict[tuple[int, str], float] = defaultdict(float)

    def add(self, face: Line, seconds: float) -> None:
        """So many more."""
        assert face.label is not None
        self._seconds[face.track or 0][face.label] += seconds
        self._certain[face.track or 0, face.label] += seconds * face.certain

    def words(self) -> str:
        """What each showed longest, a line a person; 'not certain' if it was not for most of that."""
        longest = [
            (track, *max(shown.items(), key=lambda item: item[1])) for track, shown in sorted(self._seconds.items())
        ]
        return "\n".join(
            f"person {track}: {in_words(label, 2 * self._certain[track, label] >= seconds)}"
            for track, label, seconds in longest
        )


def write_subtitles(path: Path, lines: Iterable[Line], overwrite: bool = False, usual: float = 0.04) -> None:
    """Subtitles by the ending of the name, .srt or .vtt. usual: see `cues`. Raises ConfigError for another ending, OutputError."""
    if path.suffix.lower() not in SUBTITLE_FORMS:
        raise ConfigError(f"{path}: no form of subtitles; use .srt or .vtt")
    web = path.suffix.lower() == ".vtt"
    with whole_file(path, overwrite) as aside, aside.open("w", encoding="utf-8") as file:
        if web:
            file.write("WEBVTT\n\n")
        for number, cue in enumerate(cues(lines, usual=usual), 1):
            head = "" if web else f"{number}\n"
            file.write(f"{head}{_clock(cue.begin, web)} --> {_clock(cue.end, web)}\n{cue.words}\n\n")


def subtitles_of(rows: Path, out: Path, overwrite: bool, saved: bool) -> None:
    """Subtitles of a table. saved: they go with the saved video, which begins at its first frame; else with the source.
    Raises as `write_subtitles` and `read_rows` do."""
    times = array("d", (row["seconds"] for row in read_rows(rows, ("seconds",))))
    start = times[0] if saved else 0.0
    found = read_rows(rows, ("seconds", "track", "label", "certain"))
    lines = (
        Line(row["seconds"] - start, row["track"], row["label"], row["certain"] != 0 or row["label"] == "unknown")
        for row in found
    )
    write_subtitles(out, lines, overwrite, usual_step(times))


def _clock(seconds: float, web: bool) -> str:
    """Hours to thousandths; a comma before these in SubRip, a point in WebVTT.

    >>> _clock(3725.5, False), _clock(0.25, True)
    ('01:02:05,500', '00:00:00.250')
    """
    whole = round(1000 * seconds)
    minutes, rest = divmod(whole, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{'.' if web else ','}{rest % 1000:03d}"
