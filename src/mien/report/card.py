"""The model card, from the spec and measured numbers."""

from __future__ import annotations

from pathlib import Path

from mien.evaluation.metrics import ExpressionScores
from mien.spec import ModelSpec

__all__ = ["model_card"]


def _passes(spec: ModelSpec) -> str:
    mirrored = bool(spec.network.get("mirror"))
    return "the chip and its mirror image averaged inside the graph" if mirrored else "one pass, no averaging"


def model_card(spec: ModelSpec, scores: ExpressionScores, file: Path) -> str:
    """The card of a model judged on FER+ PublicTest, as Markdown."""
    low, high = scores.interval
    recalls = "\n".join(f"| {name} | {recall:.1%} |" for name, recall in scores.recalls.items())
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

    mien evaluate {spec.name} --data FER2013 --source ferplus --split PublicTest

| measure | value |
|---|---|
| accuracy | {scores.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}) |
| macro F1 | {scores.macro_f1:.2%} |
| macro recall | {scores.macro_recall:.2%} |
| expected calibration error | {scores.ece:.2%} |

| recall | |
|---|---|
{recalls}

280 of the 3,589 PublicTest rows have an identical copy in Training; the figures include them.

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
