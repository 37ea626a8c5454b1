"""The timeline of a video: what `mien watch --report` and `mien report TABLE` write."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import ConfigError, VideoError
from mien.evaluation.timeline import Episode, Person, Summary, Timeline, episodes, everybody, read_timeline, summary
from mien.files import path_text, whole_file
from mien.report.figures import data_uri, tile
from mien.report.page import page
from mien.report.strips import BINS, Bins, bands, binned, clock, curves, path, ribbon
from mien.vision.video import frames, is_address, video_info

__all__ = ["check_page", "timeline_page", "write_report"]

_PEOPLE, _EPISODES, _FACES, _SIDE = 12, 12, 4, 96
_SHORTEST = 1.0


def write_report(
    table: str | PathLike[str],
    out: str | PathLike[str],
    overwrite: bool = False,
    video: str | PathLike[str] | None = None,
    title: str | None = None,
    rate: float | None = None,
) -> Timeline:
    """The timeline of a table as one self-contained HTML page. Raises ConfigError, DataError, OutputError; VideoError: no such video.
    A video that is not named as the table's is refused if it is too short to be that one.

    video: take thumbnails of the faces from it, a file or a folder of pictures.  rate: of that folder, frames a second.
    title: of the page; by default the name of the source.
    """
    lasts = None if video is None else _check_video(video, rate)
    timeline = read_timeline(table)
    other = video is not None and Path(video).name != Path(timeline.source).name
    if other and lasts is not None and timeline.end > lasts + max(1.0, 2 * timeline.step):
        raise ConfigError(
            f"{video}: lasts {lasts:.1f} s, and {table} goes on to {timeline.end:.1f} s; give the video that the table is "
            f"of ({timeline.source})"
        )
    text = timeline_page(timeline, video, title, rate)
    with whole_file(check_page(out), overwrite) as aside:
        aside.write_text(text, encoding="utf-8")
    return timeline


def _check_video(video: str | PathLike[str], rate: float | None) -> float | None:
    """How long the video lasts, seconds; None: it does not say. Raises ConfigError, VideoError."""
    if is_address(video):
        raise ConfigError(f"{video}: thumbnails are of what can be read again; record it, and give the file")
    if Path(video).is_dir() and rate is None:
        raise ConfigError(
            f"{video}: a folder of pictures has no times; write its page with `mien watch --report --thumbnails`"
        )
    return video_info(video, rate or 25.0).seconds


def check_page(out: str | PathLike[str]) -> Path:
    """The page's name. Raises ConfigError: browsers would not take it for a page."""
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{path}: a timeline is a page; use a name that ends in .html")
    return path


def timeline_page(
    timeline: Timeline, video: str | PathLike[str] | None = None, title: str | None = None, rate: float | None = None
) -> str:
    """The page's HTML. People seen for less than a second have no part of their own, nor have those beyond the twelve longest."""
    shown = [person for person in timeline.people if person.seen >= _SHORTEST][:_PEOPLE] or list(timeline.people[:1])
    strips = [(f"{person.track}", _binned(person, timeline)) for person in shown]
    facts: dict[str, Any] = {
        "timeline": timeline,
        "headline": _headline(timeline),
        "ribbon": ribbon(strips, timeline.labels) if strips else None,
        "people": [
            _person(person, bins, timeline, video, rate) for person, (_, bins) in zip(shown, strips, strict=True)
        ],
        "everybody": _everybody(timeline) if len(timeline.people) > 1 else None,
        "others": len(timeline.people) - len(shown),
        "others_seconds": sum(person.seen for person in timeline.people) - sum(person.seen for person in shown),
        "bins": BINS,
        "bin_seconds": max((timeline.end - timeline.begin) / BINS, timeline.step),
        "labels": timeline.labels if not shown or any(_named(person) for person in shown) else (),
        "pictures": video is not None,
        "shortest": _SHORTEST,
    }
    return page("timeline.html", path_text(title or Path(timeline.source).name or "Timeline"), facts)


def _binned(person: Person, timeline: Timeline) -> Bins:
    return binned(person, timeline.begin, timeline.end, timeline.step)


def _headline(timeline: Timeline) -> list[dict[str, str]]:
    whole = timeline.end - timeline.begin
    share = timeline.filled / whole if whole else 0.0
    return [
        {"number": clock(whole, short=whole >= 60), "words": "from first to last frame"},
        {"number": f"{timeline.frames:,}", "words": "frames read"},
        {"number": f"{len(timeline.people):,}", "words": "tracks (people, as far as motion tells)"},
        {"number": f"{share:.0%}", "words": "of the time with a face"},
    ]


def _everybody(timeline: Timeline) -> dict[str, Any]:
    """The part of the page about all together."""
    person = everybody(timeline)
    facts = _figures(person, _binned(person, timeline), timeline, "Everybody together")
    return facts | {"track": "all", "path": None, "episodes": [], "count": 0, "faces": [], "whole": True}


def _person(
    person: Person, bins: Bins, timeline: Timeline, video: str | PathLike[str] | None, rate: float | None
) -> dict[str, Any]:
    name = f"Person {person.track}"
    shown = episodes(person, timeline.labels)
    best = sorted(shown, key=lambda one: -one.peak * min(one.offset - one.onset, 3.0))[:_EPISODES]
    return _figures(person, bins, timeline, name) | {
        "track": person.track,
        "path": None if np.isnan(person.affect).all() else path(bins, name),
        "episodes": [_episode(one) for one in sorted(best, key=lambda one: one.onset)],
        "count": len(shown),
        "faces": [] if video is None else _faces(person, best, video, rate or 25.0),
        "whole": False,
    }


def _figures(person: Person, bins: Bins, timeline: Timeline, name: str) -> dict[str, Any]:
    """What the page shows of a person as of all together."""
    found = summary(person, timeline.step, timeline.smoothing)
    return {
        "name": name,
        "seen": clock(person.seen, short=person.seen >= 60),
        "share": person.seen / max(timeline.end - timeline.begin, 1e-9),
        "doubted": person.doubted / max(person.seen, 1e-9),
        "bands": bands(bins, timeline.labels, name) if _named(person) else None,
        "curves": None if np.isnan(person.affect).all() else curves(bins, name),
        "shares": _shares(found, timeline.labels) if _named(person) else [],
        "affect": _affect(found),
        "block": found.block,
        "sure": not np.isnan(found.affect_edges).all() or not np.isnan(found.share_edges).all(),
    }


def _named(person: Person) -> bool:
    """Whether the model answers expressions, and not valence and arousal alone."""
    return not np.isnan(person.probabilities).all()


def _shares(found: Summary, labels: Sequence[str]) -> list[dict[str, Any]]:
    rows = [
        {"label": label, "share": float(found.shares[i]), "mean": float(found.means[i]), "edges": _edges(found.share_edges[:, i], "%")}
        for i, label in enumerate(labels)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["share"])


def _affect(found: Summary) -> list[dict[str, str]]:
    return [
        {"name": name, "value": f"{found.affect[i]:+.2f}", "edges": _edges(found.affect_edges[:, i], "")}
        for i, name in enumerate(("valence", "arousal"))
        if not np.isnan(found.affect[i])
    ]


def _edges(pair: np.ndarray, unit: str) -> str:
    if np.isnan(pair).any():
        return "too short to say"
    return f"{pair[0]:.1%} to {pair[1]:.1%}" if unit else f"{pair[0]:+.2f} to {pair[1]:+.2f}"


def _episode(one: Episode) -> dict[str, Any]:
    return {
        "label": one.label,
        "times": [clock(seconds, short=False) for seconds in (one.onset, one.apex, one.offset)],
        "seconds": one.offset - one.onset,
        "peak": one.peak,
        "affect": "" if np.isnan(one.valence) else f"{one.valence:+.2f}, {one.arousal:+.2f}",
    }


def _faces(person: Person, best: Sequence[Episode], video: str | PathLike[str], rate: float) -> list[dict[str, str]]:
    """Thumbnails: the apex of the strongest episodes, else the middle of the time; none where the video does not answer."""
    times = [one.apex for one in best[:_FACES]] or [float(person.seconds[len(person.seconds) // 2])]
    found = []
    for seconds in sorted(times):
        row = int(np.abs(person.seconds - seconds).argmin())
        try:
            frame = next(frames(video, begin=float(person.seconds[row]) - 2e-4, rate=rate), None)
        except VideoError:
            continue
        if frame is not None:
            x0, y0, x1, y1 = (float(edge) for edge in person.boxes[row])
            found.append(
                {"picture": data_uri(tile(frame.image, _SIDE, (x0, y0, x1, y1))), "time": clock(seconds, short=False)}
            )
    return found
