"""The page and the table of a judgement: what `mien evaluate --out` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from mien.data.manifest import Manifest
from mien.evaluation.judgement import Judgement
from mien.evaluation.metrics import ExpressionScores, aligned
from mien.evaluation.predictions import Predictions
from mien.report.figures import curve, plane
from mien.report.page import Album, page

__all__ = ["judgement_page", "judgement_text", "lines"]

_MISTAKES, _DOUBTS = 24, 6
_NAMES = {
    "accuracy": "accuracy",
    "macro_recall": "macro recall (balanced accuracy)",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "kappa": "Cohen's kappa",
    "alpha": "Krippendorff's alpha, nominal",
    "auroc": "AUROC, one against the rest",
    "aucpr": "AUCPR, one against the rest",
    "top2": "top-2 accuracy",
    "ece": "expected calibration error",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "cross_entropy": "cross-entropy with the targets as given",
}
_PERCENT = {"accuracy", "macro_recall", "macro_precision", "macro_f1", "weighted_f1", "top2", "ece"}


def lines(found: Judgement) -> list[tuple[str, str, str]]:
    """(measure, value, 95 % interval) of every figure, for tables."""
    rows: list[tuple[str, str, str]] = []
    expression = found.scores.expression
    if expression is not None:
        rows.append(("faces with a label", f"{expression.rows:,}", ""))
        intervals = {"accuracy": expression.interval, **found.intervals}
        for name, words in _NAMES.items():
            rows.append((words, _value(name, getattr(expression, name)), _interval(name, intervals.get(name))))
    affect = found.scores.affect
    if affect is not None:
        rows.append(("faces with affect", f"{affect.rows:,}", ""))
        for i, what in enumerate(("valence", "arousal")):
            for name in ("rmse", "mae", "corr", "sagr", "ccc"):
                interval = found.intervals.get(f"{what} {name}")
                rows.append((f"{what} {name.upper()}", f"{getattr(affect, name)[i]:.3f}", _interval("", interval)))
        rows.append(("right quadrant", f"{affect.quadrant:.1%}", ""))
    return rows


def _value(name: str, value: float) -> str:
    if np.isnan(value):
        return "not defined"
    return f"{value:.2%}" if name in _PERCENT else f"{value:.3f}"


def _interval(name: str, edges: tuple[float, float] | None) -> str:
    return "" if edges is None else f"{_value(name, edges[0])} to {_value(name, edges[1])}"


def judgement_text(found: Judgement, command: str) -> str:
    """The judgement as Markdown, for a paper or a card."""
    table = "\n".join(f"| {name} | {value} | {edges} |" for name, value, edges in lines(found))
    text = f"## {found.model} on {found.data}\n\n    {command}\n\n| measure | value | 95 % interval |\n|---|---|---|\n{table}\n"
    if found.without_copies is not None and found.without_copies.expression is not None:
        clean = found.without_copies.expression
        text += (
            f"\nWithout the {found.copies:,} rows that have a copy in training: accuracy {clean.accuracy:.2%} of "
            f"{clean.rows:,}, macro F1 {clean.macro_f1:.2%}.\n"
        )
    return text


def judgement_page(found: Judgement, predictions: Predictions, manifest: Manifest, command: str) -> str:
    """The judgement as one self-contained HTML page with pictures of the judged rows."""
    rows = aligned(predictions, manifest)
    expression = found.scores.expression
    album = Album(manifest)
    facts: dict[str, Any] = {
        "found": found,
        "command": command,
        "lines": lines(found),
        "headline": _headline(found),
        "confusion": None if expression is None else _confusion(expression),
        "classes": {} if expression is None else expression.classes,
        "reliability": _reliability(found),
        "coverage": _coverage(found),
        "plane": _plane(rows, manifest),
        "mistakes": [] if expression is None else _mistakes(rows, manifest, album),
        "doubts": [] if expression is None else _doubts(rows, manifest, album),
        "licence": manifest.header.licence,
        "rule": manifest.header.rule,
    }
    return page("judgement.html", f"{found.model} on {found.data}", facts)


def _headline(found: Judgement) -> list[dict[str, str]]:
    facts = []
    expression, affect = found.scores.expression, found.scores.affect
    if expression is not None:
        low, high = expression.interval
        facts += [
            {"number": f"{expression.accuracy:.1%}", "words": f"accuracy ({low:.1%} to {high:.1%})", "tone": ""},
            {"number": f"{expression.macro_recall:.1%}", "words": "macro recall", "tone": ""},
            {"number": f"{expression.macro_f1:.1%}", "words": "macro F1", "tone": ""},
            {"number": f"{expression.ece:.1%}", "words": "calibration error", "tone": ""},
            {"number": f"{expression.rows:,}", "words": "faces judged", "tone": ""},
        ]
    if affect is not None:
        facts += [
            {"number": f"{affect.ccc[0]:.2f}", "words": "CCC of valence", "tone": ""},
            {"number": f"{affect.ccc[1]:.2f}", "words": "CCC of arousal", "tone": ""},
        ]
    if found.without_copies is not None and found.without_copies.expression is not None:
        clean = found.without_copies.expression
        words = f"accuracy without {found.copies:,} rows that have a copy in training"
        facts.append({"number": f"{clean.accuracy:.1%}", "words": words, "tone": ""})
    return facts


def _confusion(scores: ExpressionScores) -> list[dict[str, Any]]:
    rows = []
    for name, counts in zip(scores.labels, scores.confusion, strict=True):
        total = sum(counts)
        cells = [{"count": n, "share": n / total if total else 0.0} for n in counts]
        rows.append({"label": name, "cells": cells, "total": total})
    return rows


def _reliability(found: Judgement) -> Markup | None:
    if not found.reliability:
        return None
    points = [(said, hit) for said, hit, _ in found.reliability]
    return curve([points], "confidence", "accuracy", "accuracy of the answers against their confidence", diagonal=True)


def _coverage(found: Judgement) -> Markup | None:
    if not found.coverage:
        return None
    points = [(share, hit) for _, share, hit in found.coverage]
    return curve([points], "share of faces answered", "accuracy", "accuracy if only the surest faces are answered")


def _plane(rows: Predictions, manifest: Manifest) -> Markup | None:
    if np.isnan(rows.affect).all():
        return None
    best = manifest.targets()
    labels = [None if np.isnan(t).any() else manifest.labels.names[int(t.argmax())] for t in best]
    return plane(rows.affect, labels, "valence and arousal as read, coloured by the true label")


def _truth(manifest: Manifest) -> np.ndarray:
    targets = manifest.targets()
    return np.where(np.isnan(targets).any(axis=1), -1, np.nan_to_num(targets).argmax(axis=1))


def _mistakes(rows: Predictions, manifest: Manifest, album: Album) -> list[dict[str, Any]]:
    """The most confident wrong answers."""
    truth, said = _truth(manifest), rows.probabilities.argmax(axis=1)
    wrong = np.flatnonzero((truth >= 0) & (truth != said))
    order = wrong[np.argsort(-rows.probabilities[wrong].max(axis=1), kind="stable")][:_MISTAKES]
    return [_face(row, rows, truth, album) for row in order]


def _doubts(rows: Predictions, manifest: Manifest, album: Album) -> list[dict[str, Any]]:
    """The least certain faces of each class."""
    truth, confidence = _truth(manifest), rows.probabilities.max(axis=1)
    found = []
    for label in range(len(manifest.labels)):
        of = np.flatnonzero(truth == label)
        found += [_face(row, rows, truth, album) for row in of[np.argsort(confidence[of], kind="stable")][:_DOUBTS]]
    return found


def _face(row: int, rows: Predictions, truth: Sequence[int] | np.ndarray, album: Album) -> dict[str, Any]:
    said = int(rows.probabilities[row].argmax())
    return {
        "id": rows.ids[row],
        "picture": album.uri(rows.ids[row]),
        "truth": rows.labels.names[int(truth[row])],
        "said": rows.labels.names[said],
        "confidence": float(rows.probabilities[row, said]),
    }
