"""Subtitles that say what is read: SubRip (.srt) and WebVTT (.vtt), from the rows of a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mien.errors import ConfigError
from mien.files import whole_file

__all__ = ["SUBTITLE_FORMS", "Cue", "Line", "cues", "write_subtitles"]

SUBTITLE_FORMS = (".srt", ".vtt")


class Line(NamedTuple):
    """What a row of a table says that subtitles need."""

    seconds: float
    track: int | None
    label: str | None


class Cue(NamedTuple):
    """Words that are shown from `begin` to `end`, in seconds."""

    begin: float
    end: float
    words: str


def cues(lines: Iterable[Line], step: float = 0.5) -> Iterator[Cue]:
    """What each person shows most often in every `step` seconds; equal neighbours are one cue; nobody, no cue."""
    shown: Cue | None = None
    for begin, end, words in _steps(lines, step):
        if shown is not None and words == shown.words and abs(begin - shown.end) < 1e-6:
            shown = shown._replace(end=end)
            continue
        if shown is not None and shown.words:
            yield shown
        shown = Cue(begin, end, words)
    if shown is not None and shown.words:
        yield shown


def _steps(lines: Iterable[Line], step: float) -> Iterator[Cue]:
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    now, last = None, 0.0
    for line in lines:
        place = int(line.seconds // step)
        if now is not None and place != now:
            yield Cue(now * step, (now + 1) * step, _words(votes))
            votes = defaultdict(Counter)
        now, last = place, line.seconds
        if line.label is not None:
            votes[line.track or 0][line.label] += 1
    if now is not None:
        yield Cue(now * step, max(last, now * step + 0.1), _words(votes))


def _words(votes: dict[int, Counter[str]]) -> str:
    return "\n".join(f"person {track}: {count.most_common(1)[0][0]}" for track, count in sorted(votes.items()))


def write_subtitles(path: Path, lines: Iterable[Line], overwrite: bool = False) -> None:
    """Subtitles by the ending of the name, .srt or .vtt. Raises ConfigError for another, OutputError."""
    if path.suffix.lower() not in SUBTITLE_FORMS:
        raise ConfigError(f"{path}: no form of subtitles; use .srt or .vtt")
    web = path.suffix.lower() == ".vtt"
    with whole_file(path, overwrite) as aside, aside.open("w", encoding="utf-8") as file:
        if web:
            file.write("WEBVTT\n\n")
        for number, cue in enumerate(cues(lines), 1):
            head = "" if web else f"{number}\n"
            file.write(f"{head}{_clock(cue.begin, web)} --> {_clock(cue.end, web)}\n{cue.words}\n\n")


def _clock(seconds: float, web: bool) -> str:
    """Hours to thousandths; a comma before these in SubRip, a point in WebVTT.

    >>> _clock(3725.5, False), _clock(0.25, True)
    ('01:02:05,500', '00:00:00.250')
    """
    whole = round(1000 * seconds)
    minutes, rest = divmod(whole, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{'.' if web else ','}{rest % 1000:03d}"
