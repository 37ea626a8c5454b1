"""Files for other programs: episodes as a plain CSV, for ELAN (.eaf) and BORIS (.boris); a summary of every person as CSV."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence
from math import isnan
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mien.errors import ConfigError, DataError, VideoError
from mien.evaluation.timeline import Episode, Timeline, episodes, everybody, summary
from mien.files import whole_file
from mien.vision.video import is_address, video_info

__all__ = [
    "ANNOTATION_FORMS",
    "all_episodes",
    "check_annotations",
    "check_summary",
    "episodes_csv",
    "episodes_table",
    "summary_table",
    "write_annotations",
    "write_summary",
]

_DATE = "2000-01-01T00:00:00"


def all_episodes(timeline: Timeline) -> list[Episode]:
    """The episodes of every person, by onset."""
    found = [one for person in timeline.people for one in episodes(person, timeline.labels)]
    return sorted(found, key=lambda one: (one.onset, one.track, one.label))


def episodes_table(found: Sequence[Episode]) -> list[list[object]]:
    """A header and a row an episode: person, expression, seconds of onset, apex and offset, how long, peak and mean; affect is
    empty where there is none."""
    head: list[object] = ["track", "label", "onset", "apex", "offset", "seconds", "peak", "mean", "valence", "arousal"]
    rows: list[list[object]] = [head]
    for e in found:
        times = [round(value, 3) for value in (e.onset, e.apex, e.offset, e.offset - e.onset)]
        shares = ["" if isnan(value) else round(value, 4) for value in (e.peak, e.mean, e.valence, e.arousal)]
        rows.append([e.track, e.label, *times, *shares])
    return rows


def episodes_csv(timeline: Timeline) -> str:
    """The episodes as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(episodes_table(all_episodes(timeline)))
    return out.getvalue()


def _media(timeline: Timeline) -> Path | None:
    """The video of a table, whole path: by its name as it is, or from the table's folder or one above it; None: it is not there."""
    places = (folder / timeline.source for folder in (Path.cwd(), *timeline.table.resolve().parents))
    return next((path for path in places if path.is_file()), None)


def _eaf(timeline: Timeline) -> str:
    """An ELAN annotation document of format 3.0: a tier a person and expression, so that expressions may overlap."""
    root = ElementTree.Element("ANNOTATION_DOCUMENT", AUTHOR="mien", DATE=_DATE, FORMAT="3.0", VERSION="3.0")
    head = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if is_address(timeline.source):
        where = {"MIME_TYPE": "video/*", "MEDIA_URL": timeline.source}
        ElementTree.SubElement(head, "MEDIA_DESCRIPTOR", where)
    elif timeline.source:
        media, near = _media(timeline), f"./{Path(timeline.source).name}"
        kind = "video/mp4" if near.lower().endswith(".mp4") else "video/*"
        where = {"MIME_TYPE": kind, "MEDIA_URL": media.as_uri() if media else near, "RELATIVE_MEDIA_URL": near}
        ElementTree.SubElement(head, "MEDIA_DESCRIPTOR", where)
    order = ElementTree.SubElement(root, "TIME_ORDER")
    tiers: dict[str, list[Episode]] = defaultdict(list)
    for one in all_episodes(timeline):
        tiers[f"person {one.track}: {one.label}"].append(one)
    number = 0
    for name in sorted(tiers):
        tier = ElementTree.SubElement(root, "TIER", TIER_ID=name, LINGUISTIC_TYPE_REF="expression")
        for one in tiers[name]:
            number += 1
            _annotate(order, tier, number, one)
    order[:] = sorted(order, key=lambda slot: int(slot.get("TIME_VALUE", "0")))
    ElementTree.SubElement(
        root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID="expression", TIME_ALIGNABLE="true", GRAPHIC_REFERENCES="false"
    )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _annotate(order: ElementTree.Element, tier: ElementTree.Element, number: int, one: Episode) -> None:
    begin, end = f"ts{2 * number - 1}", f"ts{2 * number}"
    for slot, seconds in ((begin, one.onset), (end, one.offset)):
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(round(1000 * seconds)))
    where = {"ANNOTATION_ID": f"a{number}", "TIME_SLOT_REF1": begin, "TIME_SLOT_REF2": end}
    alignable = ElementTree.SubElement(ElementTree.SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", where)
    ElementTree.SubElement(alignable, "ANNOTATION_VALUE").text = f"{one.label} (apex {one.apex:.2f} s, {one.peak:.0%})"


def _media_info(timeline: Timeline, name: str) -> dict[str, Any]:
    """What BORIS wants to know of the video: by the file if it is there, else what the table tells."""
    media, rate = _media(timeline), timeline.rate
    known: dict[str, Any] = {"hasVideo": True}
    if media is not None:
        try:
            info = video_info(media)
            rate, known = info.rate, known | {"length": info.seconds, "hasAudio": info.audio}
        except VideoError:
            pass
    facts = known | {"fps": None if rate is None else round(rate, 3)}
    return {"offset": {"1": 0.0}} | {fact: {name: value} for fact, value in facts.items() if value is not None}


def _boris(timeline: Timeline) -> str:
    """A BORIS project (format 7.0): a subject a person, a state event an expression, one observation."""
    found = all_episodes(timeline)
    people = sorted({one.track for one in found})
    events: list[list[Any]] = [
        [round(seconds, 3), f"person {one.track}", one.label, "", note]
        for one in found
        for seconds, note in ((one.onset, f"peak {one.peak:.2f} at {one.apex:.2f} s"), (one.offset, ""))
    ]
    events.sort(key=lambda event: event[0])
    name, media = Path(timeline.source).name or "video", str(_media(timeline) or timeline.source)
    observation = {
        "file": {"1": [media] if media else [], **{str(i): [] for i in range(2, 9)}},
        "type": "MEDIA", "date": _DATE, "description": f"read by {timeline.model}", "time offset": 0.0, "events": events,
        "independent_variables": {}, "visualize_spectrogram": False, "close_behaviors_between_videos": False,
        "media_info": _media_info(timeline, media),
    }  # fmt: skip
    project = {
        "time_format": "hh:mm:ss", "project_name": name, "project_date": _DATE, "project_description": "",
        "project_format_version": "7.0", "behavioral_categories": [], "coding_map": {}, "behaviors_coding_map": [],
        "independent_variables": {}, "converters": {},
        "subjects_conf": {str(i): {"key": "", "name": f"person {track}", "description": ""} for i, track in enumerate(people)},
        "behaviors_conf": {
            str(i): {"type": "State event", "key": chr(97 + i % 26), "code": label, "description": f"apparent {label}",
                     "category": "", "modifiers": {}, "excluded": "", "coding map": ""}
            for i, label in enumerate(timeline.labels)
        },
        "observations": {name: observation},
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(project), indent=1).decode() + "\n"


_WRITERS = {".csv": episodes_csv, ".eaf": _eaf, ".boris": _boris}
ANNOTATION_FORMS = tuple(_WRITERS)


def check_annotations(path: str | PathLike[str]) -> Path:
    """The path. Raises ConfigError: an ending that is none of the forms."""
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{path}: no form of episodes; use .csv, .eaf (ELAN) or .boris")
    return path


def write_annotations(timeline: Timeline, path: str | PathLike[str], overwrite: bool = False) -> None:
    """The episodes as the ending says: .csv, .eaf (ELAN) or .boris. Raises ConfigError for another, DataError: no expressions in
    the table; OutputError."""
    path = check_annotations(path)
    if timeline.people and all(isnan(p) for person in timeline.people for p in person.probabilities[:, 0]):
        raise DataError(f"{path}: episodes are of expressions, and this table has valence and arousal alone")
    with whole_file(path, overwrite) as aside:
        aside.write_text(_WRITERS[path.suffix.lower()](timeline), encoding="utf-8")


def check_summary(path: str | PathLike[str]) -> Path:
    """The path. Raises ConfigError: it is not called .csv."""
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"{path}: a summary is CSV; use a name that ends in .csv")
    return path


def summary_table(timeline: Timeline) -> list[list[object]]:
    """A header and a row a person, those longest seen first; with several people a last row, its track empty, of all together.

    share_LABEL: of the time in which it was the most probable, with its 95 % interval (_low, _high); mean_LABEL: mean
    probability; valence and arousal: means with intervals. Unknown is empty.
    """
    labels = timeline.labels
    edges = ("", "_low", "_high")
    head: list[object] = ["track", "seconds", *(f"share_{label}{edge}" for label in labels for edge in edges)]
    head += [
        *(f"mean_{label}" for label in labels),
        *(f"{name}{edge}" for name in ("valence", "arousal") for edge in edges),
    ]
    rows: list[list[object]] = [head]
    for person in (*timeline.people, *([everybody(timeline)] if len(timeline.people) > 1 else [])):
        found = summary(person, timeline.step, timeline.smoothing)
        shares = np.vstack([found.shares, found.share_edges]).T.ravel()
        affect = np.vstack([found.affect, found.affect_edges]).T.ravel()
        values = ["" if isnan(v) else round(float(v), 4) for v in (*shares, *found.means, *affect)]
        rows.append([person.track or "", round(person.seen, 3), *values])
    return rows


def write_summary(timeline: Timeline, path: str | PathLike[str], overwrite: bool = False) -> None:
    """`summary_table` as CSV. Raises ConfigError: another ending; OutputError."""
    with whole_file(check_summary(path), overwrite) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(summary_table(timeline))
