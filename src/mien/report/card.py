"""The model card, from the spec and measured numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mien.errors import ConfigError
from mien.evaluation.judgement import Judgement
from mien.report.tables import number, percent, slice_words, span
from mien.runtime.forms import files_of
from mien.spec import DetectorSpec, ModelSpec

__all__ = ["detector_card", "model_card"]

#: What such models are known to be unfair by, and the words that name it in columns.
_TRAITS = {"age": {"age"}, "gender": {"gender", "sex"}, "skin tone": {"skin", "race", "ethnicity"}}


def _passes(spec: ModelSpec) -> str:
    if spec.ensemble is not None:
        return f"The answers of {len(spec.ensemble.members)} members, averaged inside the graph"
    mirrored = bool(spec.network.get("mirror"))
    return "The chip and its mirror image are averaged inside the graph" if mirrored else "One pass, no averaging"


def _selection(spec: ModelSpec) -> str:
    if not spec.made_by.startswith("mien "):
        return "Whether weights were selected on these rows is not known."
    chosen = [f"Temperature or threshold were chosen on: {spec.calibrated_on}."] if spec.calibrated_on else []
    if spec.ensemble is not None:
        by = spec.ensemble.chosen_on
        chosen.append(f"The members' weights were chosen on: {by}." if by else "The members' weights were given.")
    if chosen:
        return " ".join(chosen)
    held = "the rows that the run held out"
    if spec.temperature == 1:
        return f"If an epoch was selected, {held} selected it; the temperature is 1, as without fitting."
    return f"The temperature ({spec.temperature:g}) was fitted on {held}; if an epoch was selected, they selected it."


def model_card(spec: ModelSpec, judged: Judgement, file: Path, command: str = "") -> str:
    """The card of a model's file from a judgement, as Markdown: what it is and is for, figures, limits, law, licence.

    command: that made the figures; by default the one for FER+ PublicTest.
    Raises ConfigError if the judgement has no expressions.
    """
    if judged.scores.expression is None:
        raise ConfigError(
            "the card of a model tells how it reads expressions; these data have no labels, or it answers none"
        )
    command = (
        command or f"mien evaluate {spec.name} --data FER2013 --source ferplus --split PublicTest --without-copies"
    )
    parts = [
        _opening(spec, file),
        _intended(spec),
        _measured(spec, judged, command),
        _affect(spec, judged),
        _limits(spec, judged),
        _LAW,
        f"## Licence\n\n{spec.licence or 'Not stated: ask whoever made the file before using it.'}\n",
    ]
    return "\n".join(parts)


def _form(file: Path) -> str:
    """What a model file is, in words: name, size, form. OpenVINO's are two."""
    files = files_of(file)
    names, size = " and ".join(f"`{one.name}`" for one in files), sum(one.stat().st_size for one in files)
    return f"{names}, {size / 1e6:.2f} MB, {'OpenVINO' if len(files) > 1 else 'ONNX'}"


def _opening(spec: ModelSpec, file: Path) -> str:
    return f"""# {spec.name}

Reads the **apparent** expression of a face: {", ".join(spec.labels)}; and valence and arousal. Faces show; whether a
feeling stands behind what they show, this model does not know.

- File: {_form(file)}; input chips {spec.crop.width}x{spec.crop.height}, RGB 0..255.
- Made by: {spec.made_by}.
- Trained on: {"; ".join(spec.trained_on)}.
{_rounding(spec)}"""


def _rounding(spec: ModelSpec) -> str:
    """What is kept or computed more coarsely than float32, as a line."""
    if spec.precision == "int8":
        return f"- Computes with eight bits; the ranges were set by {spec.quantized_on}.\n"
    return "- Keeps its weights in half precision, computes in float32.\n" if spec.precision == "float16" else ""


def _intended(spec: ModelSpec) -> str:
    return f"""## Intended use

Research on facial expressions, teaching, art, and counting apparent expressions over many faces, with people who know and agree.
It expects a face found by a detector and cut as its spec says (`mien predict` does both), {spec.crop.width} pixels wide or more, seen roughly from the
front. A single answer about a single face is weak evidence; look at the confidence and at the figures below.
"""


def _measured(spec: ModelSpec, judged: Judgement, command: str) -> str:
    scores = judged.scores.expression
    assert scores is not None
    rows = "\n".join(f"| {words} | {value} |" for words, value in _figures(judged))
    recalls = "\n".join(
        f"| {name} | {percent(one.recall)} ({span(judged.intervals.get(f'{name} recall'))}) | {percent(one.precision)} | {one.rows:,} |"
        for name, one in scores.classes.items()
    )
    notes = "".join(f"\nNote: {note}.\n" for note in judged.notes)
    return f"""## Measured

{judged.made.get("data", judged.data)}.
{_passes(spec)}. {_selection(spec)} In brackets: 95 % intervals.

    {command}

| measure | value |
|---|---|
{rows}

| | recall | precision | faces |
|---|---|---|---|
{recalls}
{notes}"""


def _figures(judged: Judgement) -> Iterator[tuple[str, str]]:
    scores, edges = judged.scores.expression, judged.intervals
    assert scores is not None
    shares = {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "macro_recall": "macro recall",
        "ece": "expected calibration error",
    }
    for name, words in shares.items():
        yield words, _told(percent(getattr(scores, name), 2), span(edges.get(name), digits=2))
    for name, words in {
        "kappa": "Cohen's kappa",
        "auroc": "AUROC, one against the rest",
        "nll": "negative log-likelihood, nats",
    }.items():
        yield words, _told(number(getattr(scores, name)), span(edges.get(name), False))
    people = judged.scores.agreement
    if people is not None:
        yield (
            "agreement with one rater drawn at random",
            f"{percent(people.model)} ({span(edges.get('agreement model'))})",
        )
        yield (
            "agreement of one rater with all the others",
            f"{percent(people.others)} ({span(edges.get('agreement others'))})",
        )
    if judged.copies is not None:
        clean = judged.without_copies.expression if judged.without_copies is not None else None
        inside = span(judged.without_intervals.get("accuracy"), digits=2)
        words = "none left" if clean is None else f"{percent(clean.accuracy, 2)} of {clean.rows:,} ({inside})"
        yield f"accuracy without the {judged.copies:,} rows that have an identical or near copy in training", words
    if judged.robustness is not None:
        one = judged.robustness
        yield (
            "accuracy kept under corruptions, mean of 8 kinds at 5 strengths",
            f"{percent(one.relative)} ({span(one.relative_interval)})",
        )


def _told(value: str, edges: str) -> str:
    """A figure with its interval; alone where there is none, as for what these rows do not define (the notes say why)."""
    return f"{value} ({edges})" if edges else value


def _affect(spec: ModelSpec, judged: Judgement) -> str:
    head = "## Valence and arousal\n\n"
    affect = judged.scores.affect
    if affect is not None:
        values = [
            f"{what} {_told(number(affect.ccc[i]), span(judged.intervals.get(f'{what} ccc'), False))}"
            for i, what in enumerate(("valence", "arousal"))
        ]
        head += f"CCC on {affect.rows:,} annotated faces: {', '.join(values)}.\n\n"
    if spec.affect == "circumplex":
        return (
            head
            + """Not learned from annotations: the mean valence and arousal of each class in AffectNet's validation set, weighted by the
probabilities. A fair guess for valence; arousal varies within a class and is known less well.
"""
        )
    return head + ("Learned from annotations.\n" if spec.affect == "trained" else "Not answered.\n")


def _unmeasured(columns: Sequence[str]) -> str:
    """Of the traits that such models are known to be unfair by, those that no column names."""
    words = {word for column in columns for word in re.split(r"[^a-z]+", column.lower())}
    left = [trait for trait, names in _TRAITS.items() if not names & words]
    return " and ".join([", ".join(left[:-1]), left[-1]] if len(left) > 1 else left)


def _limits(spec: ModelSpec, judged: Judgement) -> str:
    scores = judged.scores.expression
    assert scores is not None
    weak = [
        f"{name} ({percent(one.recall)} of {one.rows:,})" for name, one in scores.classes.items() if one.recall < 0.7
    ]
    found = [f"- By {one.column}: {slice_words(one)}" for one in judged.slices]
    unmeasured = _unmeasured([one.column for one in judged.slices])
    if unmeasured:
        found.append(f"- Expect unequal accuracy by {unmeasured}; it was not measured here.")
    lines = [
        "- People who label such faces disagree often, and the labels are theirs: a high figure means agreement with them, not truth.",
        f"- Low recall: {', '.join(weak)}." if weak else "",
        *found,
        f"- Expect faces smaller than {spec.crop.width} pixels, turned away, covered, dark or blurred to be read worse; "
        "`mien evaluate --robustness` measures how much.",
    ]
    return "## Limits\n\n" + "\n".join(line for line in lines if line) + "\n"


_LAW = """## Law, and where not to use it

- Not to infer emotions at work or in education: the EU AI Act (2024/1689), Article 5(1)(f), forbids it since 2 February 2025 but for
  medical or safety reasons; elsewhere such systems are high-risk (Annex III) and people exposed must be told (Article 50(3)).
- Faces are personal data; the GDPR and biometric laws apply.
- Not to judge a person, a feeling, an intention, health or truthfulness: expressions do not reliably reveal inner states (Barrett
  et al. 2019).
"""


def detector_card(spec: DetectorSpec, file: Path, measured: str) -> str:
    """The card of a face detector, as Markdown. measured: tables that benchmarks/detector.py printed for this file."""
    return f"""# {spec.name}

Finds faces: boxes, scores, five landmarks (right eye, left eye, nose, right and left mouth corner as the person has them).
It does not know who anybody is.

- File: `{file.name}`, {file.stat().st_size / 1e3:.0f} KB, ONNX, in YuNet's form: input BGR 0..255 of any size (sides multiples of 32),
  outputs cls, obj, bbox, kps at strides 8, 16, 32. It reads luminance alone, so colour casts and grey photographs do not matter.
- Made by: {spec.made_by}.
- Trained on: {"; ".join(spec.trained_on)}.
- Licence: {spec.licence}. The teacher is YuNet (S. Yu et al., Apache-2.0). The scenes are composed of heads from
  muxspace/facial_expressions (Apache-2.0, press photographs) on photographs of one example for each ImageNet class
  (EliSchwartz/imagenet-sample-images), whose pictures keep their owners' rights; none of them is part of this file.
- Threshold {spec.threshold} (the highest at which 99 % of the teacher's sure faces on validation scenes are found); the long side of a picture is
  shrunk to {spec.long_side} pixels by default; `min_size` finds smaller faces at the cost of time.

## Measured

{measured.strip()}

## Limits

- It learned from YuNet's answers, so it shares YuNet's blind spots and can at best agree with it: some animal faces and
  drawings count as faces; strongly turned, covered, very dark or upside-down faces are missed.
- The heads are press photographs of public figures: expect unequal results by age, skin tone and head covering; that was not
  measured.
- A found face is a rectangle, not a permission: tell the people who are watched, and mind the law where you are.
"""
