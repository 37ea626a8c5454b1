"""The model card, from the spec and measured numbers."""

from __future__ import annotations

from pathlib import Path

from mien.evaluation.judgement import Judgement
from mien.spec import DetectorSpec, ModelSpec

__all__ = ["detector_card", "model_card"]


def _passes(spec: ModelSpec) -> str:
    mirrored = bool(spec.network.get("mirror"))
    return "the chip and its mirror image averaged inside the graph" if mirrored else "one pass, no averaging"


def model_card(spec: ModelSpec, judged: Judgement, file: Path) -> str:
    """The card of a model judged on FER+ PublicTest, as Markdown."""
    scores = judged.scores.expression
    assert scores is not None
    clean = judged.without_copies.expression if judged.without_copies is not None else None
    others = "none left" if clean is None else f"{clean.accuracy:.2%} of {clean.rows:,}"
    low, high = scores.interval
    recalls = "\n".join(
        f"| {name} | {one.recall:.1%} | {one.precision:.1%} | {one.rows:,} |" for name, one in scores.classes.items()
    )

    def edges(name: str) -> str:
        return " to ".join(f"{edge:.2%}" for edge in judged.intervals[name])

    return f"""# {spec.name}

Reads the **apparent** expression of a face: {", ".join(spec.labels)}; and valence and arousal. Faces show; whether a
feeling stands behind what they show, this model does not know.

- File: `{file.name}`, {file.stat().st_size / 1e6:.2f} MB, ONNX; input chips {spec.crop.width}x{spec.crop.height}, RGB 0..255.
- Made by: {spec.made_by}.
- Trained on: {"; ".join(spec.trained_on)}.
- Licence: {spec.licence}.

## Measured

FER+ PublicTest, majority rule, {scores.rows:,} faces, {_passes(spec)}. No weights were selected on these rows: they
are those of the last epoch (averaged); the temperature ({spec.temperature}) was fitted on rows held out of Training.

    mien evaluate {spec.name} --data FER2013 --source ferplus --split PublicTest --without-copies

| measure | value |
|---|---|
| accuracy | {scores.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}) |
| accuracy without the {judged.copies} rows that have an identical or near copy in Training | {others} |
| macro F1 | {scores.macro_f1:.2%} ({edges("macro_f1")}) |
| macro recall | {scores.macro_recall:.2%} ({edges("macro_recall")}) |
| Cohen's kappa | {scores.kappa:.3f} |
| AUROC, one against the rest | {scores.auroc:.3f} |
| expected calibration error | {scores.ece:.2%} |

| | recall | precision | faces |
|---|---|---|---|
{recalls}

## Valence and arousal

Not learned from annotations: the mean valence and arousal of each class in AffectNet's validation set, weighted by the
probabilities. A fair guess for valence; arousal varies within a class and is known less well.

## Where not to use it

- Not to infer emotions at work or in education: the EU AI Act, Article 5(1)(f), forbids it but for medical or safety reasons;
  elsewhere such systems are high-risk (Annex III) and people must be told (Article 50(3)). Privacy and biometric laws apply.
- Not to judge a person, a feeling, an intention, health or truthfulness: expressions do not reliably reveal inner states
  (Barrett et al. 2019).
- Trained on web photographs of 48x48 pixels with noisy labels. Expect unequal accuracy by age, gender and skin tone; it
  was not measured here. Rare classes (disgust, contempt: 119 training faces each) are the least reliable.
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
- Threshold {spec.threshold} (the highest at which 98 % of the teacher's sure faces on validation scenes are found); the long side of a picture is
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
