"""What an ensemble gains over its best member: a table for every mean and every way to weigh.

    python benchmarks/ensemble.py MODEL|RUN|PREDICTIONS ... --data FER2013 --source fer2013 --split PublicTest [--tta flip]

Weights that are chosen are chosen on one half of the rows and judged on the other, both ways round, so that no row judges
weights that it helped to choose. Answers of models and runs are kept beside this table where --keep names a folder: a second
call, and `mien ensemble`, take them from there.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from mien.cli.judging import answers, rows
from mien.data.manifest import Manifest
from mien.evaluation.ensemble import averaged, cross_weighted
from mien.evaluation.intervals import compare_rows
from mien.evaluation.metrics import ExpressionScores, aligned, score_expression
from mien.evaluation.predictions import Predictions, write_predictions
from mien.evaluation.tables import read_predictions

HEAD = "| {} | accuracy | 95 % interval | macro F1 | macro recall | NLL | ECE | over the best member | real |"


def main() -> None:
    """Read the command line, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--source", default="fer2013")
    parser.add_argument("--split", default="PublicTest")
    parser.add_argument("--rule", default="majority")
    parser.add_argument("--labels")
    parser.add_argument("--tta")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    manifest = rows(given.data, given.source, given.split, given.rule, given.labels)[1]
    told = [said(model, manifest, given) for model in given.models]
    print("\n".join(table(given.models, told, manifest)))


def said(model: str, manifest: Manifest, given: argparse.Namespace) -> Predictions:
    """A member's answers, from the folder of kept ones if they are there."""
    table_already = Path(model).suffix in {".csv", ".parquet"}
    if given.keep is None or table_already:
        tta = None if table_already else given.tta
        return aligned(answers(model, manifest, tta, given.labels is not None), manifest)
    words = f"{Path(model).resolve()}, {given.source}, {given.split}, {given.rule}, {given.labels}, {given.tta}"
    place = given.keep / f"{Path(model).name}-{hashlib.sha256(words.encode()).hexdigest()[:8]}.parquet"
    if not place.is_file():
        given.keep.mkdir(parents=True, exist_ok=True)
        write_predictions(answers(model, manifest, given.tta, given.labels is not None), place)
    return aligned(read_predictions(place), manifest)


def table(names: list[str], told: list[Predictions], manifest: Manifest) -> list[str]:
    """The table's lines: members, then ensembles against the best of them."""
    scores = [score_expression(part, manifest) for part in told]
    best = int(np.argmax([one.accuracy for one in scores]))
    lines = [f"{scores[0].rows:,} rows, {len(told)} members", "", HEAD.format("answer"), "|---|" + "---|" * 8]
    lines += [line(Path(name).name, one) for name, one in zip(names, scores, strict=True)]
    for logits in (False, True):
        what = "logits" if logits else "probabilities"
        for how in ("equal", "fitted", "greedy"):
            mean = (
                averaged(told, None, logits) if how == "equal" else cross_weighted(how, told, manifest, names, logits)
            )
            lines.append(line(f"**{what}, {how}**", score_expression(mean, manifest), gain(mean, told[best], manifest)))
    return lines


def line(name: str, one: ExpressionScores, gained: str = "| | |") -> str:
    """One row of the table."""
    low, high = one.interval
    shares = f"{one.accuracy:.2%} | {low:.2%} to {high:.2%} | {one.macro_f1:.2%} | {one.macro_recall:.2%}"
    return f"| {name} | {shares} | {one.nll:.3f} | {one.ece:.2%} {gained}"


def gain(mean: Predictions, member: Predictions, manifest: Manifest) -> str:
    """How much better than one member, with its interval, and whether that is real."""
    targets = manifest.targets()
    known = ~np.isnan(targets).any(axis=1)
    truth = targets[known].argmax(axis=1)
    right = [part.probabilities[known].argmax(axis=1) == truth for part in (mean, member)]
    subjects = [name for name, k in zip(manifest.table["subject"].to_pylist(), known, strict=True) if k]
    found = compare_rows(right[0], right[1], subjects)
    low, high = found.interval
    edges = f"{100 * found.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"| {edges} | {'yes' if found.real else 'no'} |"


if __name__ == "__main__":
    main()
