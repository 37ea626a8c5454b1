"""The tables of a judgement and of a comparison: one form that the console, Markdown and the page all print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mien.evaluation.comparison import Comparison, Duel
from mien.evaluation.judgement import Judgement
from mien.evaluation.metrics import Scores, wilson
from mien.evaluation.robustness import Robustness
from mien.evaluation.seeds import SeedGroup
from mien.evaluation.slices import FEW, Slice, Slicing

__all__ = [
    "NAMES",
    "Table",
    "chance",
    "comparison_tables",
    "judgement_tables",
    "markdown",
    "number",
    "percent",
    "slice_words",
    "span",
]

Interval = tuple[float, float]
NAMES = {
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
    "nll": "negative log-likelihood, nats",
    "brier": "Brier score",
    "cross_entropy": "cross-entropy with the targets as given, nats",
}
_PERCENT = {"accuracy", "macro_recall", "macro_precision", "macro_f1", "weighted_f1", "top2", "ece", "quadrant"}
_PEOPLE = {
    "model": "the model and one rater",
    "others": "all other raters (their most frequent label) and one rater",
    "people": "one rater and another",
    "most": "the most frequent label and one rater (no answer can do better)",
}
_AFFECT = {"rmse": "RMSE", "mae": "MAE", "corr": "CORR", "sagr": "SAGR", "ccc": "CCC"}


@dataclass(frozen=True, slots=True)
class Table:
    """name: a word for anchors.  title, caption: for people.  head: of the columns; rows: their cells, the first one the row's name."""

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percent(value: float, digits: int = 1) -> str:
    """A share in percent; 'not defined' for NaN."""
    return "not defined" if math.isnan(value) else f"{value:.{digits}%}".replace("%", " %")


def number(value: float, digits: int = 3) -> str:
    """A figure that is no share; 'not defined' for NaN."""
    return "not defined" if math.isnan(value) else f"{value:z.{digits}f}"


def chance(p: float) -> str:
    """A p value in words."""
    return "below 0.0001" if p < 0.0001 else f"{p:.2g}"


def _equals(words: str) -> str:
    return words if words.startswith("below") else f"= {words}"


def span(edges: Interval | None, in_percent: bool = True, digits: int = 1) -> str:
    """An interval in words, without its unit, which stands at the value; '' for none."""
    if edges is None or math.isnan(edges[0]):
        return ""
    one, two = (f"{100 * edge:z.{digits}f}" if in_percent else f"{edge:z.3f}" for edge in edges)
    return f"{one} to {two}"


def judgement_tables(found: Judgement) -> list[Table]:
    """Every figure of a judgement; tables without rows are left out."""
    tables = [
        _measures(found),
        _classes(found),
        _people(found),
        _affect(found),
        _affect_by(found),
        _clean(found),
        _coverage(found),
        *(_sliced(one) for one in found.slices),
        *([] if found.robustness is None else [_robust(found.robustness)]),
    ]
    return [table for table in tables if table.rows]


def _measures(found: Judgement) -> Table:
    rows = list(_expression_rows(found.scores, found.intervals))
    subjects = (
        found.scores.expression is not None and found.intervals.get("accuracy") != found.scores.expression.interval
    )
    how = "bootstrap by subject" if subjects else "Wilson's for accuracy and top-2, else bootstrap"
    caption = f"Intervals: {how} (1,000 draws). Macro means are over the classes that have rows."
    return Table("figures", "Expressions", caption, ("measure", "value", "95 % interval"), tuple(rows))


def _expression_rows(scores: Scores, intervals: dict[str, Interval]) -> Iterator[tuple[str, ...]]:
    expression = scores.expression
    if expression is None:
        return
    yield "faces with a label", f"{expression.rows:,}", ""
    for name, words in NAMES.items():
        value, share = getattr(expression, name), name in _PERCENT
        yield words, percent(value, 2) if share else number(value), span(intervals.get(name), share, 2)


def _classes(found: Judgement) -> Table:
    expression = found.scores.expression
    rows = []
    for name, one in ({} if expression is None else expression.classes).items():
        cells = [name, f"{one.rows:,}"]
        for what in ("precision", "recall", "f1"):
            cells += [percent(getattr(one, what)), span(found.intervals.get(f"{name} {what}"))]
        rows.append(tuple(cells))
    head = ("label", "faces", "precision", "95 %", "recall", "95 %", "F1", "95 %")
    return Table("classes", "Each class", "A class without rows is not listed.", head, tuple(rows))


def _people(found: Judgement) -> Table:
    people = found.scores.agreement
    if people is None:
        return Table("people", "", "", (), ())
    rows = [
        (words, percent(getattr(people, name)), span(found.intervals.get(f"agreement {name}")))
        for name, words in _PEOPLE.items()
    ]
    rows.append(("Krippendorff's alpha of the raters", number(people.alpha), ""))
    caption = (
        f"How often two say the same, on {people.rows:,} faces with {people.raters:.1f} votes each on average. Votes for anything "
        "else than these labels are left out, as are faces that the rule of the labels leaves out."
    )
    return Table("people", "Agreement with people", caption, ("who", "agree", "95 % interval"), tuple(rows))


def _affect(found: Judgement) -> Table:
    affect = found.scores.affect
    if affect is None:
        return Table("affect", "", "", (), ())
    rows = []
    for name, words in _AFFECT.items():
        cells = [words]
        for i, what in enumerate(("valence", "arousal")):
            share = name == "sagr"
            value = getattr(affect, name)[i]
            cells += [percent(value) if share else number(value), span(found.intervals.get(f"{what} {name}"), share)]
        rows.append(tuple(cells))
    quadrant = (percent(affect.quadrant), span(found.intervals.get("quadrant")))
    rows.append(("right quadrant (both signs)", *quadrant, "", ""))
    caption = (
        f"Over all {affect.rows:,} annotated faces at once; population variance; the sign of 0 agrees with 0 alone."
    )
    head = ("measure", "valence", "95 % interval", "arousal", "95 % interval")
    return Table("affect", "Valence and arousal", caption, head, tuple(rows))


def _affect_by(found: Judgement) -> Table:
    rows = []
    for name, one in found.scores.affect_by.items():
        pairs = [number(getattr(one, key)[i]) for key in ("rmse", "ccc") for i in (0, 1)]
        rows.append((name, f"{one.rows:,}", *pairs, percent(one.quadrant)))
    caption = "Within a class valence and arousal vary little, so CCC is low there even for good answers; RMSE is the figure to read."
    head = ("label", "faces", "RMSE valence", "RMSE arousal", "CCC valence", "CCC arousal", "right quadrant")
    return Table("affect-by", "Valence and arousal of each class", caption, head, tuple(rows))


def _clean(found: Judgement) -> Table:
    left = found.without_copies
    if left is None:
        return Table("copies", "", "", (), ())
    wanted = {NAMES[name] for name in ("accuracy", "macro_recall", "macro_f1", "kappa", "ece", "nll")} | {
        "faces with a label"
    }
    rows = [row for row in _expression_rows(left, found.without_intervals) if row[0] in wanted]
    if left.affect is not None:
        rows += [
            (f"{what} CCC", number(left.affect.ccc[i]), span(found.without_intervals.get(f"{what} ccc"), False))
            for i, what in enumerate(("valence", "arousal"))
        ]
    caption = f"{found.copies or 0:,} judged rows have an identical or near copy (mirror images too) in training; here they are left out."
    return Table("copies", "Without copies", caption, ("measure", "value", "95 % interval"), tuple(rows))


def _coverage(found: Judgement) -> Table:
    expression = found.scores.expression
    if expression is None:
        return Table("coverage", "", "", (), ())
    rows = []
    for least, share, accuracy in found.coverage[::2]:
        n = round(share * expression.rows)
        edges = wilson(round(accuracy * n), n)
        rows.append((f"{least:.2f}", percent(share), f"{n:,}", percent(accuracy), span(edges)))
    head = ("least confidence", "answered", "faces", "accuracy", "95 % interval")
    caption = "If only answers with at least this confidence are given."
    return Table("coverage", "Coverage against accuracy", caption, head, tuple(rows))


def slice_words(one: Slicing) -> str:
    """What a slicing's gap says, in a sentence."""
    gap = one.gap
    if gap is None and not any(part.labelled for part in one.groups):
        return "No row has a label: gaps are looked for in accuracy alone."
    if gap is None:
        return f"Fewer than two groups with {FEW} faces or more: too small to say."
    verdict = "unlikely to be chance" if gap.real else "may well be chance"
    return f"Largest gap: {percent(gap.difference)[:-2]} points ({span(gap.interval)}), {gap.best} over {gap.worst}; p {_equals(chance(gap.adjusted))}: {verdict}."


def _sliced(one: Slicing) -> Table:
    affect = any(not math.isnan(part.ccc[0]) for part in one.groups)
    labels = any(not math.isnan(part.accuracy) for part in one.groups)
    head = ["group", "faces"]
    head += ["accuracy", "95 %", "expected from its labels", "macro recall", "95 %"] if labels else []
    head += ["CCC valence", "95 %", "CCC arousal", "95 %"] if affect else []
    rows = tuple(_group(part, labels, affect) for part in one.groups)
    title = f"By {one.column}" + (f" ({one.unit})" if one.unit else "")
    return Table(f"slice-{one.column}".replace(" ", "-"), title, slice_words(one), (*head, ""), rows)


def _group(part: Slice, labels: bool, affect: bool) -> tuple[str, ...]:
    cells = [part.name, f"{part.rows:,}"]
    if labels:
        cells += [percent(part.accuracy), span(part.interval), percent(part.expected)]
        cells += [percent(part.macro_recall), span(part.macro_interval)]
    if affect:
        for value, edges in zip(part.ccc, part.ccc_intervals, strict=True):
            cells += [number(value), span(edges, False)]
    return (*cells, "" if part.enough else "too small to say")


def _robust(one: Robustness) -> Table:
    rows = []
    for name, levels in one.curves.items():
        cells = [percent(level.accuracy) for level in levels]
        relative = (percent(one.relatives[name]), span(one.relatives_intervals[name]))
        rows.append((name, *cells, *relative, percent(sum(level.flips for level in levels) / len(levels))))
    rows.append(("mean", *[""] * 5, percent(one.relative), span(one.relative_interval), percent(one.flips)))
    caption = (
        f"Accuracy at five strengths on {one.rows:,} faces ({percent(one.clean)} untouched), its mean share of the accuracy untouched, and how "
        "often the top label changes."
    )
    head = ("corruption", "1", "2", "3", "4", "5", "relative accuracy", "95 % interval", "label changes")
    return Table("robustness", "Under corruptions", caption, head, tuple(rows))


def comparison_tables(found: Comparison) -> list[Table]:
    """The leaderboard, the duels, and what chance does where runs differ by their seed."""
    return [_leaderboard(found), _duels(found.duels), *([_seeds(found.seeds)] if found.seeds else [])]


_ACROSS = {
    "accuracy": "accuracy",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "ece": "ECE",
    "valence ccc": "CCC valence",
    "arousal ccc": "CCC arousal",
}


def _seeds(groups: Sequence[SeedGroup]) -> Table:
    there = [name for name in _ACROSS if name in groups[0].means]
    rows = [
        (
            group.recipe,
            "; ".join(f"{model} ({seed})" for model, seed in zip(group.models, group.seeds, strict=True)),
            *(_around(name, group.means[name], group.deviations[name]) for name in there),
        )
        for group in groups
    ]
    caption = (
        "Mean and standard deviation (n - 1) over runs of one recipe, from the same start, that differ by their seed."
    )
    return Table(
        "seeds", "Across seeds", caption, ("recipe", "runs (seed)", *(_ACROSS[name] for name in there)), tuple(rows)
    )


def _around(name: str, mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "not defined"
    return f"{100 * mean:.2f} ± {100 * deviation:.2f} %" if name in _PERCENT else f"{mean:.3f} ± {deviation:.3f}"


def _leaderboard(found: Comparison) -> Table:
    labelled = all(one.scores.expression is not None for one in found.judgements)
    affective = all(one.scores.affect is not None for one in found.judgements)
    head = ["", "model"]
    head += ["accuracy", "95 %", "macro recall", "95 %", "macro F1", "95 %", "ECE", "NLL"] if labelled else []
    head += ["CCC valence", "95 %", "CCC arousal", "95 %"] if affective else []
    copies = found.judgements[0].copies
    if copies is not None:
        head += _without_head(labelled)
    robust = all(one.robustness is not None for one in found.judgements)
    head += ["relative accuracy", "95 %"] if robust else []
    rows = []
    for place, one in enumerate(found.judgements, 1):
        cells = [str(place), one.model]
        if labelled:
            for name in ("accuracy", "macro_recall", "macro_f1"):
                cells += [percent(getattr(one.scores.expression, name)), span(one.intervals.get(name))]
            assert one.scores.expression is not None
            cells += [percent(one.scores.expression.ece), number(one.scores.expression.nll)]
        if affective:
            assert one.scores.affect is not None
            for i, what in enumerate(("valence", "arousal")):
                cells += [number(one.scores.affect.ccc[i]), span(one.intervals.get(f"{what} ccc"), False)]
        cells += [] if copies is None else _without(one, labelled)
        if robust and one.robustness is not None:
            cells += [percent(one.robustness.relative), span(one.robustness.relative_interval)]
        duel = found.against_best(one.model)
        cells.append("" if duel is None else "yes" if duel.real else "no")
        rows.append(tuple(cells))
    caption = f"On the same {_faces(found.judgements[0].scores, labelled, affective)}, the best first. 'Really behind': whether the distance to the first is more than chance."
    if copies is not None:
        caption += f" {copies:,} judged rows have an identical or near copy (mirror images too) in training; 'without copies' leaves these out."
    if robust:
        caption += " 'Relative accuracy': the mean share that is kept under corruptions."
    return Table("leaderboard", "Leaderboard", caption, (*head, "really behind"), tuple(rows))


def _faces(scores: Scores, labelled: bool, affective: bool) -> str:
    """How many faces the figures that are compared are of."""
    annotated = scores.affect.rows if affective and scores.affect is not None else 0
    if not labelled or scores.expression is None:
        return f"{annotated:,} faces"
    count = scores.expression.rows
    some = f" (valence and arousal: {annotated:,})" if annotated not in (0, count) else ""
    return f"{count:,} faces{some}"


def _without_head(labelled: bool) -> list[str]:
    names = ("accuracy",) if labelled else ("CCC valence", "CCC arousal")
    return [word for name in names for word in (f"{name} without copies", "95 %")]


def _without(one: Judgement, labelled: bool) -> list[str]:
    """What ranks, on the rows that have no copy in training, with intervals."""
    left, edges = one.without_copies, one.without_intervals
    if labelled:
        scores = None if left is None else left.expression
        return ["none left", ""] if scores is None else [percent(scores.accuracy), span(edges.get("accuracy"))]
    affect = None if left is None else left.affect
    if affect is None:
        return ["none left", ""] * 2
    pairs = zip(affect.ccc, ("valence ccc", "arousal ccc"), strict=True)
    return [cell for value, name in pairs for cell in (number(value), span(edges.get(name), False))]


def _duels(duels: Sequence[Duel]) -> Table:
    rows = tuple(_duel(duel) for duel in duels)
    labelled = bool(duels) and "accuracy" in duels[0].differences
    head = ["first", "second"]
    head += (
        ["accuracy", "95 %", "macro F1", "95 %", "only first right", "only second right", "McNemar's p", "after Holm"]
        if labelled
        else []
    )
    head += ["CCC valence", "95 %", "CCC arousal", "95 %"] if duels and "valence ccc" in duels[0].differences else []
    caption = (
        "First minus second on the same rows, in points; paired bootstrap, 1,000 draws. A difference is called real if McNemar's "
        f"exact test gives p < 0.05 after Holm's correction for {len(duels)} comparison{'s' if len(duels) > 1 else ''} and the "
        "interval of accuracy leaves out 0; where a model answers no labels, if the intervals of both CCC do, on the same side."
    )
    return Table("duels", "Which differences are real", caption, (*head, "real"), rows)


def _duel(duel: Duel) -> tuple[str, ...]:
    cells = [duel.first, duel.second]
    if "accuracy" in duel.differences:
        for name in ("accuracy", "macro_f1"):
            low, high = (100 * edge for edge in duel.intervals[name])
            cells += [f"{100 * duel.differences[name]:+.2f}", f"{low:+.2f} to {high:+.2f}"]
        cells += [f"{duel.only_first:,}", f"{duel.only_second:,}", chance(duel.p), chance(duel.adjusted)]
    if "valence ccc" in duel.differences:
        for name in ("valence ccc", "arousal ccc"):
            low, high = duel.intervals[name]
            cells += [f"{duel.differences[name]:+.3f}", f"{low:+.3f} to {high:+.3f}"]
    return (*cells, "yes" if duel.real else "no")


def markdown(title: str, command: str, notes: Iterable[str], made: dict[str, str], tables: Iterable[Table]) -> str:
    """Tables as Markdown, for a paper or a repository."""
    parts = [f"## {title}", f"    {command}"]
    parts += [f"Note: {note}." for note in notes]
    parts += [_markdown(table) for table in tables]
    if made:
        facts = (("what", "is"), *((name, text.replace("\n", " ")) for name, text in made.items()))
        parts.append("### How it was made\n\n" + _grid(facts[0], facts[1:]))
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    return f"### {table.title}\n\n{table.caption}\n\n{_grid(table.head, table.rows)}"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])
