"""The report of a comparison: what `mien compare --out` writes."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from mien.evaluation.comparison import Comparison
from mien.evaluation.judgement import Judgement
from mien.report.charts import Line, chart, interval_bar, key_line
from mien.report.judged import confusion_rows, robust_charts, shares
from mien.report.page import page
from mien.report.tables import comparison_tables, markdown, percent, span

__all__ = ["comparison_page", "comparison_text"]

_NONE = (math.nan, math.nan)


def comparison_text(found: Comparison, command: str) -> str:
    """The comparison as Markdown."""
    first = found.judgements[0]
    return markdown(
        f"{len(found.judgements)} models on {first.data}",
        command,
        first.notes,
        _data_facts(first),
        comparison_tables(found),
    )


def comparison_page(found: Comparison, command: str) -> str:
    """The comparison as one self-contained HTML page, without pictures of anybody."""
    tables = {table.name: table for table in comparison_tables(found)}
    judged = found.judgements
    facts: dict[str, Any] = {
        "judged": judged,
        "command": command,
        "board": tables["leaderboard"],
        "bars": _bars(judged),
        "scale": _scale(judged)[0],
        "duels": tables["duels"],
        "seeds": tables.get("seeds"),
        "verdict": _verdict(found),
        "recalls": _recalls(judged),
        "confusions": [(one.model, confusion_rows(one.scores.expression)) for one in judged if one.scores.expression],
        "key": [(key_line(i), one.model) for i, one in enumerate(judged)],
        "reliability": _reliability(judged),
        "coverage": _coverage(judged),
        "robust": robust_charts([(one.model, one) for one in judged]) if all(one.robustness for one in judged) else [],
        "data_facts": _data_facts(judged[0]),
    }
    return page("comparison.html", f"{len(judged)} models on {judged[0].data}", facts)


def _data_facts(one: Judgement) -> dict[str, str]:
    return {name: words for name, words in one.made.items() if not name.startswith("model")}


def _verdict(found: Comparison) -> str:
    """What the duels say of the first place, in a sentence."""
    best = found.judgements[0].model
    rivals = [one.model for one in found.judgements[1:]]
    beaten = [name for name in rivals if (duel := found.against_best(name)) is not None and duel.real]
    if len(beaten) == len(rivals):
        return f"{best} is really better than {'the other' if len(rivals) == 1 else 'all others'} on these rows."
    level = ", ".join(name for name in rivals if name not in beaten)
    return f"{best} is first, but its distance to {level} may well be chance."


def _scale(judged: tuple[Judgement, ...]) -> tuple[float, bool]:
    """Where the scale of the leaderboard begins, and whether it is one of accuracy."""
    labelled = all(one.scores.expression is not None for one in judged)
    key = "accuracy" if labelled else "valence ccc"
    low = min(one.intervals.get(key, _NONE)[0] for one in judged)
    low = 0.0 if math.isnan(low) else math.floor(10 * low - 0.5) / 10
    return max(low, 0.0 if labelled else -1.0), labelled


def _bars(judged: tuple[Judgement, ...]) -> list[Markup]:
    low, labelled = _scale(judged)
    bars = []
    for one in judged:
        expression, affect = one.scores.expression, one.scores.affect
        value = expression.accuracy if labelled and expression else affect.ccc[0] if affect else math.nan
        bars.append(interval_bar(value, one.intervals.get("accuracy" if labelled else "valence ccc", _NONE), low, 1))
    return bars


def _recalls(judged: tuple[Judgement, ...]) -> list[dict[str, Any]]:
    """Recall of each class by each model, with intervals."""
    scores = [one.scores.expression for one in judged]
    if any(one is None for one in scores):
        return []
    first = scores[0]
    assert first is not None
    rows = []
    for label, one in first.classes.items():
        values = [score.classes[label].recall if score else math.nan for score in scores]
        cells = [
            (percent(value), span(j.intervals.get(f"{label} recall")), value == max(values))
            for value, j in zip(values, judged, strict=True)
        ]
        rows.append({"label": label, "rows": one.rows, "cells": cells})
    return rows


def _reliability(judged: tuple[Judgement, ...]) -> Markup | None:
    if not all(one.reliability for one in judged):
        return None
    lines = [Line(one.model, [(said, hit) for said, hit, _ in one.reliability]) for one in judged]
    title = "Accuracy of the answers against their confidence, for each model"
    return chart(lines, "confidence", "accuracy", title, shares(), shares(), diagonal=True)


def _coverage(judged: tuple[Judgement, ...]) -> Markup | None:
    if not all(one.coverage for one in judged):
        return None
    lines = [Line(one.model, sorted((share, hit) for _, share, hit in one.coverage)) for one in judged]
    low = max(0.0, math.floor(10 * min(y for line in lines for _, y in line.points) - 0.5) / 10)
    title = "Accuracy if only the surest faces are answered, against their share, for each model"
    return chart(lines, "share of faces answered", "accuracy", title, shares(), shares(low))
