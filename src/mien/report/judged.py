"""The report of a judgement: what `mien evaluate --out` writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from mien.data.manifest import Manifest
from mien.evaluation.judgement import Judgement
from mien.evaluation.metrics import ExpressionScores, aligned, truths, wilson
from mien.evaluation.predictions import Predictions
from mien.evaluation.robustness import Level
from mien.evaluation.slices import Slicing
from mien.report.charts import Line, chart, interval_bar
from mien.report.figures import plane
from mien.report.page import Album, page
from mien.report.tables import Table, judgement_tables, markdown, number, percent, slice_words, span

__all__ = ["confusion_rows", "judgement_page", "judgement_text", "robust_charts", "shares"]

_MISTAKES, _DOUBTS, _GROUPS = 24, 6, 24
#: Tables that the page shows in a form of its own, or beside charts.
_OWN = ("classes", "coverage")


def judgement_text(found: Judgement, command: str) -> str:
    """The judgement as Markdown, for a paper."""
    return markdown(f"{found.model} on {found.data}", command, found.notes, found.made, judgement_tables(found))


def judgement_page(
    found: Judgement, predictions: Predictions, manifest: Manifest, command: str, faces: bool = True
) -> str:
    """The judgement as one self-contained HTML page. faces: with pictures of judged rows, which are personal data."""
    rows = aligned(predictions, manifest)
    expression = found.scores.expression
    album = Album(manifest) if faces else None
    tables = {table.name: table for table in judgement_tables(found)}
    facts: dict[str, Any] = {
        "found": found,
        "command": command,
        "tables": tables,
        "headline": _headline(found),
        "confusion": None if expression is None else confusion_rows(expression),
        "classes": [] if expression is None else _classes(found, expression),
        "reliability": _reliability(found),
        "coverage": _coverage(found),
        "planes": _planes(rows, manifest),
        "slices": [_slicing(one, tables) for one in found.slices],
        "robust": [] if found.robustness is None else robust_charts([("", found)]),
        "mistakes": [] if expression is None else _mistakes(rows, manifest, album),
        "doubts": [] if expression is None else _doubts(rows, manifest, album),
        "faces": faces,
    }
    return page("judgement.html", f"{found.model} on {found.data}", {**facts, "sections": _sections(facts)})


def _sections(facts: dict[str, Any]) -> list[tuple[str, str]]:
    parts = (
        ("figures", "All figures", "figures" in facts["tables"]),
        ("confusion", "What is taken for what", facts["confusion"]),
        ("classes", "Each class", facts["classes"]),
        ("people", "Agreement with people", "people" in facts["tables"]),
        ("sure", "Confidence", facts["reliability"]),
        ("affect", "Valence and arousal", facts["planes"]),
        ("copies", "Without copies", "copies" in facts["tables"]),
        ("slices", "Groups", facts["slices"]),
        ("robustness", "Corruptions", facts["robust"]),
        ("mistakes", "Mistakes", facts["mistakes"]),
        ("doubts", "Doubts", facts["doubts"]),
        ("how", "How it was made", True),
    )
    return [(name, words) for name, words, there in parts if there]


def _headline(found: Judgement) -> list[dict[str, str]]:
    expression, affect = found.scores.expression, found.scores.affect
    facts = []
    if expression is not None:
        for name, words in (
            ("accuracy", "accuracy"),
            ("macro_recall", "macro recall"),
            ("macro_f1", "macro F1"),
            ("ece", "calibration error"),
        ):
            facts.append(_fact(percent(getattr(expression, name)), words, span(found.intervals.get(name))))
    if affect is not None:
        for i, what in enumerate(("valence", "arousal")):
            facts.append(
                _fact(number(affect.ccc[i], 2), f"CCC of {what}", span(found.intervals.get(f"{what} ccc"), False))
            )
    clean = found.without_copies
    if clean is not None and clean.expression is not None:
        words = f"accuracy without {found.copies:,} copies"
        facts.append(_fact(percent(clean.expression.accuracy), words, span(found.without_intervals.get("accuracy"))))
    if found.robustness is not None:
        one = found.robustness
        facts.append(_fact(percent(one.relative), "of it left under corruptions", span(one.relative_interval)))
    rows = expression.rows if expression is not None else affect.rows if affect is not None else 0
    return [*facts, _fact(f"{rows:,}", "faces judged", "")]


def _fact(number: str, words: str, edges: str) -> dict[str, str]:
    return {"number": number, "words": words, "edges": edges}


def confusion_rows(scores: ExpressionScores) -> list[dict[str, Any]]:
    """The confusion matrix: for each true label its cells, their shares of the row, and the total."""
    rows = []
    for name, counts in zip(scores.labels, scores.confusion, strict=True):
        total = sum(counts)
        cells = [{"count": n, "share": n / total if total else 0.0} for n in counts]
        rows.append({"label": name, "cells": cells, "total": total})
    return rows


def _classes(found: Judgement, scores: ExpressionScores) -> list[dict[str, Any]]:
    missing = (math.nan, math.nan)
    return [
        {
            "label": name,
            "one": one,
            "recall": interval_bar(
                one.recall, found.intervals.get(f"{name} recall", missing), 0, 1, scores.macro_recall
            ),
            **{what: span(found.intervals.get(f"{name} {what}")) for what in ("precision", "f1")},
            "edges": span(found.intervals.get(f"{name} recall")),
        }
        for name, one in scores.classes.items()
    ]


def shares(low: float = 0.0) -> list[tuple[float, str]]:
    """Ticks of a scale of shares from `low` to 1, in percent."""
    step = 0.25 if low < 0.4 else 0.1
    count = round((1 - low) / step)
    return [(low + i * (1 - low) / count, f"{100 * (low + i * (1 - low) / count):.0f} %") for i in range(count + 1)]


def _reliability(found: Judgement) -> Markup | None:
    if not found.reliability:
        return None
    points = [(said, hit) for said, hit, _ in found.reliability]
    edges = [wilson(round(hit * n), n) for _, hit, n in found.reliability]
    title = "Accuracy of the answers against their confidence; with 95 % intervals"
    return chart([Line("", points, edges)], "confidence", "accuracy", title, shares(), shares(), diagonal=True)


def _coverage(found: Judgement) -> Markup | None:
    expression = found.scores.expression
    if not found.coverage or expression is None:
        return None
    points = sorted((share, hit) for _, share, hit in found.coverage)
    edges = [wilson(round(hit * n), n) for share, hit in points for n in [max(1, round(share * expression.rows))]]
    low = max(0.0, math.floor(10 * min(hit for _, hit in points) - 0.5) / 10)
    title = "Accuracy if only the surest faces are answered, against their share; with 95 % intervals"
    return chart([Line("", points, edges)], "share of faces answered", "accuracy", title, shares(), shares(low))


def _planes(rows: Predictions, manifest: Manifest) -> dict[str, Any] | None:
    """Valence and arousal as read, and as annotated where they are, coloured by the true label."""
    if np.isnan(rows.affect).all():
        return None
    truth = truths(manifest)
    names = (*manifest.labels.names, None)
    labels = [names[i] for i in truth]
    drawn = [("as read", plane(rows.affect, labels, "Valence and arousal as read, coloured by the true label"))]
    true = manifest.affect()
    if not np.isnan(true).all():
        drawn.append(
            ("as annotated", plane(true, labels, "Valence and arousal as annotated, coloured by the true label"))
        )
    return {"drawn": drawn, "labels": [name for name in names if name in set(labels)]}


def _slicing(one: Slicing, tables: dict[str, Table]) -> dict[str, Any]:
    """A column's table; next to each group's accuracy its interval on a scale that all groups share."""
    table = tables[f"slice-{one.column}".replace(" ", "-")]
    groups = list(zip(one.groups, table.rows, strict=True))
    if len(groups) > _GROUPS:
        groups = sorted(groups, key=lambda pair: -pair[0].rows)[:_GROUPS]
    labelled = not all(math.isnan(part.accuracy) for part in one.groups)
    known = [part for part in one.groups if part.enough]
    i = 0 if labelled else 1
    values = [(part.accuracy, part.interval) if labelled else (part.ccc[0], part.ccc_intervals[0]) for part in known]
    low = min((edges[0] for _, edges in values if not math.isnan(edges[0])), default=0.0)
    low = max(-1.0 if i else 0.0, math.floor(10 * low - 0.5) / 10)
    total = sum(part.rows for part in one.groups)
    there = [(part.rows, value) for part, (value, _) in zip(known, values, strict=True) if not math.isnan(value)]
    middle = sum(count * value for count, value in there) / max(1, sum(count for count, _ in there))
    rows = []
    for part, cells in groups:
        value, edges = (part.accuracy, part.interval) if labelled else (part.ccc[0], part.ccc_intervals[0])
        small = "" if part.enough else " (too small to say)"
        shown = (cells[0], cells[1] + small, *cells[2:-1])
        bar = interval_bar(value, edges, low, 1, middle, faint=not part.enough)
        rows.append({"shown": shown, "enough": part.enough, "bar": bar})
    more = len(one.groups) - len(rows)
    return {
        "table": table,
        "rows": rows,
        "more": more,
        "total": total,
        "low": f"{low:g}",
        "words": slice_words(one),
        "real": one.gap is not None and one.gap.real,
    }


def robust_charts(models: list[tuple[str, Judgement]]) -> list[dict[str, Any]]:
    """A small chart for each corruption, with a line for each (name, judgement that has robustness)."""
    known = [(name, one.robustness) for name, one in models if one.robustness is not None]
    drawn = []
    for name in known[0][1].curves:
        lines = [Line(model, *_points(one.clean, one.curves[name], one.rows)) for model, one in known]
        first = known[0][1].curves[name]
        ticks = [(0.0, "none"), *((float(i), f"{level.strength:g}") for i, level in enumerate(first, 1))]
        title = f"Accuracy under {name}, untouched and at five strengths; with 95 % intervals"
        drawn.append(
            {"name": name, "chart": chart(lines, _unit(name), "accuracy", title, ticks, shares(), size=(230, 150))}
        )
    return drawn


def _unit(name: str) -> str:
    from mien.evaluation.corruptions import CORRUPTIONS

    return CORRUPTIONS[name].unit


def _points(
    clean: float, levels: tuple[Level, ...], rows: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    points = [(0.0, clean), *((float(i), level.accuracy) for i, level in enumerate(levels, 1))]
    return points, [wilson(round(clean * rows), rows), *(level.interval for level in levels)]


def _mistakes(rows: Predictions, manifest: Manifest, album: Album | None) -> list[dict[str, Any]]:
    """The most confident wrong answers."""
    truth, said = truths(manifest), rows.probabilities.argmax(axis=1)
    wrong = np.flatnonzero((truth >= 0) & (truth != said))
    order = wrong[np.argsort(-rows.probabilities[wrong].max(axis=1), kind="stable")][:_MISTAKES]
    return [_face(row, rows, truth, album) for row in order]


def _doubts(rows: Predictions, manifest: Manifest, album: Album | None) -> list[dict[str, Any]]:
    """The least certain faces of each class."""
    truth, confidence = truths(manifest), rows.probabilities.max(axis=1)
    found = []
    for label, name in enumerate(manifest.labels):
        of = np.flatnonzero(truth == label)
        chosen = of[np.argsort(confidence[of], kind="stable")][:_DOUBTS]
        if len(chosen):
            found.append({"label": name, "faces": [_face(row, rows, truth, album) for row in chosen]})
    return found


def _face(row: int, rows: Predictions, truth: np.ndarray, album: Album | None) -> dict[str, Any]:
    said = int(rows.probabilities[row].argmax())
    return {
        "id": rows.ids[row],
        "picture": None if album is None else album.uri(rows.ids[row]),
        "truth": rows.labels.names[int(truth[row])],
        "said": rows.labels.names[said],
        "confidence": float(rows.probabilities[row, said]),
    }
