"""The page of a run: what was asked for, how it went, and what the network says of the held-out rows."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import Any

import msgspec

from mien.evaluation.judgement import Judgement
from mien.recipe import Recipe, kept_epoch, recipe_text
from mien.report.judged import confusion_rows
from mien.report.page import page
from mien.report.tables import judgement_tables, number, percent, span
from mien.spec import ModelSpec

__all__ = ["run_page"]


def run_page(folder: Path, recipe: Recipe, spec: ModelSpec, found: Judgement | None) -> str:
    """One self-contained HTML page, from the folder's metrics.csv, curves.png and environment.json.

    found: the held-out rows judged; None where there is nothing to judge them by.
    """
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        epochs = [{**row, "epoch": str(int(row["epoch"]) + 1)} for row in csv.DictReader(file)]
    expression = None if found is None else found.scores.expression
    facts: dict[str, Any] = {
        "recipe": recipe,
        "text": recipe_text(recipe),
        "spec": spec,
        "headline": _headline(recipe, epochs, found),
        "notes": () if found is None else found.notes,
        "curves": base64.b64encode((folder / "curves.png").read_bytes()).decode(),
        "epochs": epochs,
        "names": list(epochs[0]) if epochs else [],
        "tables": [] if found is None else [t for t in judgement_tables(found) if t.name != "coverage"],
        "confusion": [] if expression is None else confusion_rows(expression),
        "environment": msgspec.json.decode((folder / "environment.json").read_bytes()),
        "folder": folder.name,
    }
    return page("run.html", f"Run {folder.name}", facts)


def _headline(recipe: Recipe, epochs: list[dict[str, str]], found: Judgement | None) -> list[tuple[str, str]]:
    facts = [(f"{len(epochs)}", "epochs")]
    if recipe.trainer.keep == "best" and epochs:
        facts += [(epochs[kept_epoch(recipe, epochs)]["epoch"], f"the epoch kept, by {recipe.schedule.monitor}")]
    if found is not None and found.scores.expression is not None:
        scores = found.scores.expression
        facts += [
            (f"{scores.rows:,}", "held-out faces"),
            (percent(scores.accuracy), f"accuracy ({span(found.intervals.get('accuracy'))})"),
            (percent(scores.macro_f1), "macro F1"),
            (number(scores.auroc), "AUROC"),
            (percent(scores.ece), "calibration error"),
        ]
    if found is not None and found.scores.affect is not None:
        ccc = found.scores.affect.ccc
        facts += [(number(ccc[0], 2), "CCC of valence"), (number(ccc[1], 2), "CCC of arousal")]
    return facts
